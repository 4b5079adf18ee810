"""The page: facts and figures as one HTML file that needs no other, and asks for none."""

import base64
import hashlib
import json
from collections.abc import Sequence
from html import escape
from importlib.resources import files

from pgolf.report import figures
from pgolf.report.facts import Missing, Report, Stretch, Subject, TextFacts
from pgolf.report.figures import Figure, Table
from pgolf.report.svg import Drawing, node

WIDE, NARROW = 900, 350  # pixels of a picture beside a margin, and on a phone
SCRIPT = """
const button = document.getElementById("theme"), root = document.documentElement;
const night = matchMedia("(prefers-color-scheme: dark)");
const dark = () => (root.dataset.theme || (night.matches ? "dark" : "light")) === "dark";
const tell = () => { button.textContent = dark() ? "Light" : "Dark"; };
button.hidden = false;
button.addEventListener("click", () => { root.dataset.theme = dark() ? "light" : "dark"; tell(); });
tell();
"""
SIGNS = {"fail": "✕", "warn": "!", "unknown": "?", "not stated": "-", "pass": "✓"}
EVIDENCE = 2000  # characters of a witness that are shown; --json has all


def report_page(report: Report) -> str:
    """The whole file; equal facts give equal text."""
    sections = [
        ("glance", "At a glance", _glance(report)),
        *_bytes(report),
        *_texts(report),
        *_runs(report),
        ("findings", "Findings", "".join(_findings(each, alone=len(report.subjects) == 1) for each in report.subjects)),
        ("missing", "Not shown here", _missing(report)),
    ]
    sections = [each for each in sections if each[2]]
    links = "".join(node("li", node("a", escape(title), href=f"#{name}")) for name, title, _ in sections)
    body = "".join(
        node("section", node("h2", escape(title), id=f"{name}-title"), text, id=name, aria_labelledby=f"{name}-title")
        for name, title, text in sections
    )
    return _document(report.title, links, body)


def _document(title: str, links: str, body: str) -> str:
    style = files("pgolf.report").joinpath("page.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; img-src data:"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)} - pgolf report</title>
<link rel="icon" href="data:,">
<style>
{style}</style>
</head>
<body>
<a class="skip" href="#main">Skip to the report</a>
<header>
<p class="kicker">pgolf report</p>
<h1>{escape(title)}</h1>
<nav aria-label="Sections"><ul>{links}</ul></nav>
<button id="theme" type="button" hidden>Dark</button>
</header>
<main id="main" tabindex="-1">
{body}
</main>
<footer><p>One file, nothing loaded from elsewhere. Numbers of every picture are in the table below it.</p></footer>
<script>{SCRIPT}</script>
</body>
</html>
"""


def _glance(report: Report) -> str:
    if len(report.subjects) == 1:
        each = report.subjects[0]
        tiles = "".join(
            node(
                "div",
                node("dt", escape(name)),
                node("dd", escape(value), *([node("small", escape(more))] if more else [])),
            )
            for name, value, more in _numbers(each)
        )
        text = node("dl", tiles, class_="tiles")
    else:
        names = list(dict.fromkeys(name for each in report.subjects for name, *_ in _numbers(each)))
        rows = []
        for each in report.subjects:
            known = {name: value for name, value, _ in _numbers(each)}
            rows.append((each.name, each.kind, *(known.get(name, "") for name in names)))
        text = _table(Table(("", "what it is", *names), tuple(rows)), "The numbers side by side")
    notes = [(each.name, note) for each in report.subjects for note in each.notes]
    told = "".join(node("li", escape(note if len(report.subjects) == 1 else f"{name}: {note}")) for name, note in notes)
    figure = figures.cap_figure(report)
    return text + (node("ul", told, class_="notes") if told else "") + (_figure(figure) if figure else "")


def _numbers(each: Subject) -> list[tuple[str, str, str]]:
    """(what, how much, a remark) of the numbers that come first."""
    found = []
    if each.verdict:
        levels = [finding.level for finding in each.findings]
        told = ", ".join(f"{levels.count(level)} {level}" for level in SIGNS if level in levels)
        found.append(("verdict", each.verdict, told.replace(" pass", " hold")))
    if each.text:
        found.append(("bits per byte", f"{each.text.bpb:.4f}", f"{each.text.targets:,} targets, {each.text.scorer}"))
        if each.float_bpb is not None:
            found.append(("cost of rounding", f"{each.text.bpb - each.float_bpb:+.4f}", "bits per byte, same script"))
    elif each.seeds:
        runs = len(each.seeds.runs)
        spread = "" if each.seeds.sd is None else f"± {each.seeds.sd:.4f}, "
        found.append(
            ("bits per byte", f"{each.seeds.mean:.4f}", f"{spread}{runs} run{'s' if runs > 1 else ''}, as logged")
        )
    if each.total_bytes is not None:
        left = each.cap - each.total_bytes
        word = "the largest, " if each.kind == "runs" and each.seeds and len(each.seeds.runs) > 1 else ""
        told = f"{word}{abs(left):,} {'below' if left >= 0 else 'over'} {each.cap:,}"
        found.append(("bytes", f"{each.total_bytes:,}", told))
    if each.code:
        found.append(("code bytes", f"{each.code.bytes:,}", f"{len(each.code.modules)} modules"))
    if each.artifact:
        found.append(("bits per weight", f"{each.artifact.bits_per_weight:.3f}", f"{each.artifact.weights:,} weights"))
        if each.artifact.snr_db is not None:
            found.append(("signal to noise", f"{each.artifact.snr_db:.1f} dB", "of all weights"))
    return found


def _bytes(report: Report) -> list[tuple[str, str, str]]:
    found = []
    for number, each in enumerate(report.subjects):
        if each.artifact:
            shown = "".join(_figure(figure) for figure in figures.artifact_figures(each.artifact, each.code))
            if each.code:
                rows = tuple((name, f"{size:,}") for name, size in each.code.modules)
                table = _table(Table(("module", "bytes of source"), rows), f"Code of {each.name}")
                summary = node("summary", f"Code: {len(rows)} modules, {each.code.bytes:,} bytes as packed")
                shown += node("details", summary, table)
            title = "Bytes and bits" if len(report.subjects) == 1 else f"Bytes and bits: {each.name}"
            found.append((f"bytes-{number}", title, shown))
    return found


def _texts(report: Report) -> list[tuple[str, str, str]]:
    found = []
    for number, each in enumerate(report.subjects):
        if each.text:
            text = _figure(figures.text_figure(each.text)) + _worst(each.text)
            title = "Where the model is bad" if len(report.subjects) == 1 else f"Where it is bad: {each.name}"
            found.append((f"text-{number}", title, text))
    return found


def _worst(text: TextFacts) -> str:
    documents, passages = _quotes(text.worst_documents), _quotes(text.worst_snippets)
    return node("h3", f"Worst of {text.documents:,} documents") + documents + node("h3", "Worst passages") + passages


def _quotes(found: Sequence[Stretch]) -> str:
    items = [
        node(
            "li",
            node(
                "p",
                node("strong", f"{each.bpb:.4f}"),
                f" bits per byte, {each.bytes:,} bytes from target {each.first:,}",
            ),
            node("blockquote", escape(each.text)),
        )
        for each in found
    ]
    return node("ol", *items, class_="quotes")


def _runs(report: Report) -> list[tuple[str, str, str]]:
    groups = [each.seeds for each in report.subjects if each.seeds]
    text = "".join(_figure(figure) for figure in figures.run_figures(groups)) if groups else ""
    return [("runs", "Runs", text)]


def _findings(subject: Subject, *, alone: bool) -> str:
    if not subject.findings:
        return ""
    serious = [each for level in SIGNS for each in subject.findings if each.level == level != "pass"]
    passed = [each for each in subject.findings if each.level == "pass"]
    items = "".join(_finding(each.level, each.rule, each.message, each.evidence) for each in serious)
    held = "".join(_finding(each.level, each.rule, each.message, each.evidence) for each in passed)
    text = "" if alone else node("h3", escape(subject.name))
    text += node("ul", items, class_="findings") if items else node("p", "Nothing to look at.")
    if held:
        rules = len({each.rule for each in passed})
        text += node(
            "details",
            node("summary", f"{rules} rule{'s' if rules > 1 else ''} hold"),
            node("ul", held, class_="findings"),
        )
    return text


def _finding(level: str, rule: str, message: str, evidence: dict[str, object]) -> str:
    badge = node(
        "span", node("span", SIGNS[level], aria_hidden="true"), f" {level}", class_=f"level {level.split()[0]}"
    )
    text = node("p", node("code", escape(rule)), " ", escape(message))
    if evidence:
        witness = json.dumps(evidence, indent=1, ensure_ascii=False, default=str)
        cut = (
            f"{witness[:EVIDENCE]}\n… {len(witness) - EVIDENCE:,} characters more: --json"
            if len(witness) > EVIDENCE
            else witness
        )
        text += node(
            "details",
            node("summary", "Witness", node("span", escape(f" of {rule}"), class_="hidden")),
            node("pre", escape(cut), tabindex=0, role="region", aria_label=f"Witness of {rule}"),
        )
    return node("li", badge, node("div", text))


def _missing(report: Report) -> str:
    rows: dict[Missing, list[str]] = {}
    for each in report.subjects:
        for one in each.missing:
            rows.setdefault(one, []).append(each.name)
    items = "".join(
        node("li", escape(f"{one.what[:1].upper()}{one.what[1:]}{_of(names, report)}: "), _marked(one.how))
        for one, names in rows.items()
    )
    return node("ul", items, class_="notes") if items else ""


def _of(names: list[str], report: Report) -> str:
    """Whose, unless it is everybody's."""
    return "" if len(names) == len(report.subjects) else f", of {', '.join(names)}"


def _marked(text: str) -> str:
    """What stands between backticks as code."""
    parts = text.split("`")
    return "".join(node("code", escape(part)) if place % 2 else escape(part) for place, part in enumerate(parts))


def _figure(figure: Figure) -> str:
    drawings = [(kind, figure.draw(float(width)), width) for kind, width in (("wide", WIDE), ("narrow", NARROW))]
    pictures = "".join(_picture(kind, drawing, width, figure.title) for kind, drawing, width in drawings)
    marks = "".join(
        node("li", node("svg", _swatch(kind), width=18, height=12, aria_hidden="true"), escape(told))
        for kind, told in figure.legend
    )
    legend = node("ul", marks, class_="legend") if marks else ""
    numbers = node(
        "details",
        node("summary", "Numbers", node("span", escape(f" of {figure.title}"), class_="hidden")),
        _table(figure.table, figure.title),
    )
    caption = node("figcaption", node("h3", escape(figure.title)), node("p", escape(figure.note)))
    return node("figure", caption, legend, pictures, numbers)


def _swatch(kind: str) -> str:
    if kind.startswith("line-"):
        return node("path", d="M0 6H18", class_=kind)
    if kind.startswith("mark-predicted"):
        return node("circle", cx=9, cy=6, r=4.5, class_=kind)
    if kind.startswith("mark-measured"):
        return node("path", d="M9 0.5L14.5 6L9 11.5L3.5 6z", class_=kind)
    return node("rect", x=0, y=0, width=18, height=12, class_=kind)


def _picture(kind: str, drawing: Drawing, width: int, title: str) -> str:
    """One that is wider than its place scrolls in it, and can be reached by the keyboard to do so."""
    if drawing.width <= width:
        return node("div", drawing.svg, class_=f"picture {kind}")
    more = {"tabindex": 0, "role": "region", "aria_label": f"{title}, scrolls sideways"}
    return node("div", drawing.svg, class_=f"picture {kind} scrolls", **more)


def _table(table: Table, caption: str) -> str:
    columns = [[cell for cell in column if cell] for column in zip(*table.rows, strict=True)]
    right = [bool(place) and all(map(_numeric, cells)) for place, cells in enumerate(columns)]
    head = node(
        "tr",
        *(
            node("th", escape(each), scope="col", **({"class_": "number"} if number else {})) if each else node("td")
            for each, number in zip(table.headers, right, strict=True)
        ),
    )
    rows = "".join(_row(row, right) for row in table.rows)
    inside = node("table", node("caption", escape(caption), class_="hidden"), node("thead", head), node("tbody", rows))
    return node("div", inside, class_="table", tabindex=0, role="region", aria_label=f"Table: {caption}")


def _row(row: Sequence[str], right: Sequence[bool]) -> str:
    """right: which columns hold numbers only."""
    cells = [
        node("td", escape(each), **({"class_": "number"} if number else {})) if each else "<td></td>"
        for each, number in zip(row[1:], right[1:], strict=True)
    ]
    return node("tr", node("th", escape(row[0]), scope="row"), *cells)


def _numeric(text: str) -> bool:
    return text[:1] in "+-0123456789" and text[-1:].isdigit()
