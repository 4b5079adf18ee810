"""A log file as lines of text: decoded, without what terminals and launchers put around what the script printed.

Every pattern of verify.claims sees these lines only, so a fact reads the same whatever carried it here.
"""

import json
import re
from collections import Counter
from dataclasses import dataclass

BOMS = ((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"), (b"\xef\xbb\xbf", "utf-8"))
TERMINAL = re.compile(
    r"\x1b\][^\x07\x1b]{0,500}(?:\x07|\x1b\\)|\x1b\[[0-9;?]{0,30}[A-Za-z]|\x1b[()][A-Z0-9]|[\x07\x08]"
)
DAY = r"\d{4}[-/]\d\d[-/]\d\d"
CLOCK = r"\d{1,2}:\d\d:\d\d(?:[.,]\d{1,9})?(?:\s?Z|\s?UTC|\s?[+-]\d\d:?\d\d)?"
LEVELS = r"(?:DEBUG|INFO|WARNING|WARN|ERROR|CRITICAL|debug|info|warning|error)"
GAP = r"(?:\s{0,12}[|,:-](?:\s|$)|\s)?"  # at most one blank: what follows may be an indented line
PREFIXES = tuple(
    re.compile(pattern)
    for pattern in (
        rf"[\[(]?(?:{DAY}[T ])?{CLOCK}[\])]?{GAP}",  # a time, with or without its day
        rf"[\[(]?\d\d/\d\d/(?:\d\d|\d{{4}}) {CLOCK}(?: [AP]M)?[\])]?{GAP}",  # rich and logging, American
        r"[\[(]?1\d{9}(?:\.\d{1,9}|\d{3})?[\])]?:? ",  # seconds or milliseconds since 1970
        r"std(?:out|err) [FP] ",  # kubernetes, behind its time
        rf"[A-Z][a-z][a-z] [ \d]\d {CLOCK} [\w.-]{{1,80}} [\w./@-]{{1,80}}(?:\[\d{{1,9}}\])?: ?",  # journald, syslog
        rf"(?:[\w.]{{1,80}} - )?\[?{LEVELS}\]?(?: *- | *\| [\w.<>]{{1,80}}:[\w.<>]{{1,80}}:\d{{1,6}} - "
        r"|:[\w.]{1,80}:|: ?| +(?=\S))",  # logging, loguru, basicConfig
        r"[\w.-]{1,80} +\| ",  # docker compose: the container's name
        r"[IWEF]\d{4} [\d:.]{8,20} +\d{1,9} (?!torch/)[\w./-]{1,200}:\d{1,6}\] ",  # absl, unless torchrun speaks
        r"\(\w{1,60} pid=\d{1,9}(?:, ip=[\d.]{7,15})?\) ",  # ray
    )
)
RANK = re.compile(
    r"(?:\[?(?:rank|default|Rank)[ _]?(?P<name>\d{1,5})\]?:? ?|\[\d{1,3},(?P<mpi>\d{1,5})\]<std(?:out|err)>: ?)"
)
SRUN = re.compile(r"(?P<rank>\d{1,5}): ?")
LABELLED = 0.5  # share of lines that `srun --label` must have labelled: it labels all, others print `42: 1.08` rarely
LAUNCHER = re.compile(r"[IWEF]\d{4} [\d:.]{8,20} +\d{1,9} torch/")  # torchrun's own lines
NAMES_BPB = re.compile(r"bpb|bits?[ _/-]?(?:per|/)[ _-]?byte", re.I)


@dataclass(frozen=True, slots=True, kw_only=True)
class TextLine:
    """number: in the file, from 1.  rank: of the process that printed it, if a launcher says.  ended: by a newline."""

    number: int
    text: str
    rank: int | None = None
    ended: bool = True


def read_lines(data: bytes) -> tuple[list[TextLine], list[TextLine]]:
    """(what the script printed, what other ranks printed of bpb that the first one did not).

    Of several ranks the lowest that names bpb speaks for the run, with the lines that carry no rank.
    """
    lines = _stripped(_split(_decoded(data)))
    share = [SRUN.match(line.text) for line in lines if line.text.strip()]
    if share and sum(map(bool, share)) / len(share) > LABELLED:
        lines = _stripped([_labelled(line) for line in lines])
    lines = [line for line in lines if not LAUNCHER.match(line.text)]
    speaking = [line.rank for line in lines if line.rank is not None and NAMES_BPB.search(line.text)]
    ranks = {line.rank for line in lines if line.rank is not None}
    if len(ranks) < 2:
        return lines, []
    first = min(speaking or ranks)
    kept = [line for line in lines if line.rank in (None, first)]
    said = {line.text.strip() for line in kept}
    others = [line for line in lines if line.rank not in (None, first)]
    return kept, [line for line in others if NAMES_BPB.search(line.text) and line.text.strip() not in said]


def _decoded(data: bytes) -> str:
    for mark, name in BOMS:
        if data.startswith(mark):
            return data[len(mark) :].decode(name, errors="replace")
    zeros = Counter(place % 2 for place, byte in enumerate(data[:4000]) if not byte)
    size = len(data[:4000]) / 2
    for parity, name in ((1, "utf-16-le"), (0, "utf-16-be")):
        if zeros[parity] > 0.8 * size and zeros[1 - parity] < 0.1 * size:
            return data.decode(name, errors="replace")
    return data.decode("utf-8", errors="replace")


def _split(text: str) -> list[TextLine]:
    """By newlines; a carriage return inside a line, as progress bars use it, begins another of the same number."""
    whole = text.split("\n")
    lines: list[TextLine] = []
    for number, line in enumerate(whole, 1):
        parts = [part for part in line.rstrip("\r").split("\r") if part] or [""]
        parts = [piece for part in parts for piece in part.splitlines() or [""]]
        ended = number < len(whole) or line.endswith("\r")
        lines += [
            TextLine(number=number, text=_from_json(part), ended=ended or part is not parts[-1]) for part in parts
        ]
    return lines[:-1] if lines and not lines[-1].text else lines


def _from_json(line: str) -> str:
    """Docker's json-file driver wraps each line: {"log": "...\\n", "stream": "stdout", "time": "..."}."""
    if not line.startswith('{"log":'):
        return line
    try:
        return str(json.loads(line)["log"]).rstrip("\n")
    except (ValueError, RecursionError, KeyError, TypeError):
        return line


def _stripped(lines: list[TextLine]) -> list[TextLine]:
    return [_without_prefixes(line) for line in lines]


def _without_prefixes(line: TextLine) -> TextLine:
    text, rank = TERMINAL.sub("", line.text), line.rank
    for _ in range(6):  # deeper than any launcher in a container in a journal nests
        if found := RANK.match(text):
            rank = int(found["name"] or found["mpi"])
        else:
            found = next((match for prefix in PREFIXES if (match := prefix.match(text))), None)
        if not found:
            break
        text = text[found.end() :]
    return TextLine(number=line.number, text=text, rank=rank, ended=line.ended)


def _labelled(line: TextLine) -> TextLine:
    found = SRUN.match(line.text)
    if not found:
        return line
    return TextLine(number=line.number, text=line.text[found.end() :], rank=int(found["rank"]), ended=line.ended)
