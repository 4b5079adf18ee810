"""A line that names bits per byte, token by token: whose score it is, how much, and what else it says.

    line  := decoration? (word | pair | bracket | separator)* bpb (word | pair | bracket | separator)*
    bpb   := name (":" | "=" | "is" | blank)? number        one number of bits per byte, by whatever name
    pair  := key (":" | "=") value                          the loss and the time among them

Words in front are the label. A line with two scores, or one that compares, says nothing that could be relied on.
"""

import math
import re

from verify.claims.log_events import Metric, ScoreKind
from verify.claims.log_text import NAMES_BPB

NUMBER = r"[-+]?(?:\d{1,12}(?:\.\d{1,20})?|nan|inf(?:inity)?)"
FIGURE = rf"(?P<number>{NUMBER})(?![\w.%]|\s*[:=]|[-,/]\d)"
UNIT = r"(?:bpb|bits?[ _/-](?:per[ _-])?byte)"
BPB = re.compile(
    rf"(?P<front>(?:[A-Za-z][\w./-]{{0,60}}_)?){UNIT}(?P<back>_\w{{1,40}})?(?:\s*\([^()]{{0,200}}\))?"
    rf"\s*(?:[:=]|\bis\b|->)?\s*{FIGURE}",
    re.I,
)
AFTER = re.compile(rf"(?<![\w.:=/-]){FIGURE}\s*{UNIT}\b(?!\s*[:=])", re.I)
LEGAL_TTT = re.compile(r"(?P<label>(?:Legal )?TTT): ?(?P<number>\d{1,2}\.\d{4,20})(?:[ ,(].*)?$")
PAIR = re.compile(r"(?<![\w/.%-])([A-Za-z_][\w/.%-]{0,60})[:=]\s?([^\s,|;()\[\]{}]{1,200})")
DECORATION = re.compile(r"^[\s>*|#=\u2713\u2714\u2705\u27a1\u2192\u2022\u25cf~-]+(?=\S)|[\s|=\u2713\u2714\u2705]+$")
SOURCE = re.compile(r"^\s*(?:#|//)|[{}`\"']|^\s*(?:-|\*) .*`|\bprint\(|\blog0?\(")
COMPARES = re.compile(
    r"->|\u2192|\bvs\.?\b|delta|gain|improv|better|worse|diff|below|above|target|baseline|threshold|\b(?:expected|"
    r"predicted|previous|prior|would)\b|train(?:ing)?[ _]set",
    re.I,
)
PARTIAL = re.compile(
    r"\bfirst \d|\bsubset\b|\bpartial\b|\btrain(?:ing)?[ _]set", re.I
)  # behind a score: it is not of all targets
HIGHEST = 64.0  # bits per byte that anybody logs; beyond, the number is a step, a stride or a percentage
LOSSES = ("val_loss", "loss", "nll", "val_nll", "ce")
TIMES = ("eval_time", "time", "elapsed", "took")  # pairs of a measurement that say what it took, best first
COUNTED = ("step", "iter", "iteration", "epoch")  # words that a number follows
UNITS = {"ms": 1000, "s": 1, "sec": 1, "m": 1 / 60, "min": 1 / 60}  # in a second
KINDS: tuple[tuple[ScoreKind, str], ...] = (  # the first pattern that a label matches
    ("training", r"(.*\b)?(step|iter(ation)?|epoch)[ :=#_]?\d{1,12}\b|\[?\d{1,12}/\d{1,12}\]?$"),
    (
        "diagnostic",
        r".*(\bprox(y|ies)|prob(e|ing)\b|_search|search:|running|chunk|\bbatch|partial|subset|sampled?\b|candidate|trial|"
        r"best[ _]so|progress|windows\b|\bttp:|train[ _]bpb|\btrain$|per.?doc)",
    ),
    ("prequant_ttt", r".*pre.?quant.*ttt"),
    ("float", r".*(pre.?quant|post.?ema|post.?swa|fp32|float|unquantized|raw model)"),
    ("slot", r".*slot"),
    ("etlb", r".*etlb"),
    ("mixture", r".*(n.?gram|ppm|cache)"),
    ("rescored", r".*(two.?pass|second.?pass|rescor)"),
    ("ttt", r".*ttt"),
    ("sliding", r".*slid"),
    ("roundtrip", r".*(round.?trip|quantized|\bint\d)"),
)


def kind_of(label: str) -> ScoreKind:
    """What a label of the field says was scored, and how."""
    return next((kind for kind, pattern in KINDS if re.match(pattern, label.lower())), "other")


def names_score(line: str) -> bool:
    """Whether a line names bits per byte and puts a figure beside, so that a person would read a score in it."""
    named = NAMES_BPB.search(line)
    return bool(
        named
        and (
            BPB.search(line) or AFTER.search(line) or re.search(r"(?<![\w./])\d{1,2}\.\d|(?i:bpb|byte)\W{0,12}\d", line)
        )
    )


def read_score(line: str, *, ended: bool = True) -> Metric | None:
    """The one score of a line; None when it has none, or when it cannot be told which.

    ended: by a newline; a number that the end of the file cuts is no score.
    """
    text = DECORATION.sub("", DECORATION.sub("", line))
    if SOURCE.search(line) or len(line) > 2000:
        return None
    if legal := LEGAL_TTT.match(text):
        return _metric(legal["label"], legal["number"], None, {}) if ended or legal.end("number") < len(text) else None
    found = [match for match in BPB.finditer(text) if not COMPARES.search(f"{match['front']}{match['back'] or ''}")]
    found = found or list(AFTER.finditer(text))
    if len(found) > 1:
        found = [match for match in found if (match.groupdict().get("front") or "").lower() == "val_"]
    if len(found) != 1 or "train_loss" in text:
        return None
    score = found[0]
    before, after = text[: score.start()], text[score.end() :]
    if COMPARES.search(_words(before)) or (COMPARES.search(_words(after)) and not PAIR.match(score[0])):
        return None
    bpb = float(score["number"])
    if PARTIAL.search(after) or (math.isfinite(bpb) and not 0 < bpb <= HIGHEST):
        return None
    pairs = dict(PAIR.findall(text))
    loss = next((pairs[key] for key in LOSSES if re.fullmatch(NUMBER, pairs.get(key, ""), re.I)), None)
    if not ended and not after.strip() and not (loss and _decimals(loss) == _decimals(score["number"])):
        return None
    name = score.groupdict().get("front") or ""
    return _metric(_label(before, name), score["number"], loss, pairs)


def _words(text: str) -> str:
    """Without pairs and brackets."""
    return PAIR.sub(" ", re.sub(r"\([^()]*\)|\[[^\[\]]*\]", " ", text))


def _decimals(number: str) -> int:
    return len(number.partition(".")[2])


def _label(before: str, name: str) -> str:
    """The words in front, without pairs; else what the name of bits per byte says, `quantized_bpb`."""
    words: list[str] = []
    for word in re.split(r"[\s|,;]+", re.sub(r"\([^()]*\)|\[[^\[\]]*%[^\[\]]*\]", " ", before)):
        pair = PAIR.fullmatch(word)
        counted = bool(words) and words[-1].lower().rstrip(":") in COUNTED
        if not word or word in ("-", "=", ":", "is") or (pair and words):
            continue
        if re.fullmatch(rf"{NUMBER}(?:ms|s|%)?:?", word) and not counted:
            continue
        if pair and (pair[1] in LOSSES or pair[1].endswith("loss")):
            continue
        if words and word.rstrip(":=") in LOSSES:
            continue
        if word not in words:
            words.append(word)
    front = name.strip("_").removeprefix("val").strip("_")
    label = " ".join(words).rstrip(":=").strip()
    if front and front.lower() not in label.lower():
        label = f"{label} {front}".strip()
    return label.removesuffix(" loss").removesuffix(" val").rstrip(":= ") or "val_bpb"


def _metric(label: str, number: str, loss: str | None, pairs: dict[str, str]) -> Metric:
    notes = {key: value for key, value in pairs.items() if key not in LOSSES and not key.endswith("bpb")}
    return Metric(
        label=label,
        kind=kind_of(label),
        loss=None if loss is None else float(loss),
        bpb=float(number),
        decimals=_decimals(number),
        seconds=next((seconds(notes[key]) for key in TIMES if key in notes), None),
        notes=notes,
    )


def seconds(text: str) -> float | None:
    """A time with its unit, in seconds."""
    found = re.fullmatch(r"(\d{1,12}(?:\.\d{1,20})?)(ms|s|sec|m|min)", text)
    return float(found[1]) / UNITS[found[2]] if found else None
