"""A line that names bits per byte, token by token: whose score it is, how much, and what else it says.

    line  := decoration? (word | pair | bracket | separator)* bpb (word | pair | bracket | separator)*
    bpb   := name (":" | "=" | "is" | blank)? number        one number of bits per byte, by whatever name
    pair  := key (":" | "=") value                          the loss and the time among them

Words in front are the label. A line with two scores, or one that compares, says nothing that could be relied on; nor
does a label of several words with one that is not known (`best legal_ttt`, `not legal_ttt`): it may deny the others.
"""

import math
import re

from verify.claims.log_events import Metric, ScoreKind
from verify.claims.log_text import NAMES_BPB

NUMBER = r"[-+]?(?:\d{1,12}(?:\.\d{1,20})?(?:e[-+]?\d{1,2})?|nan|inf(?:inity)?)"
FIGURE = (
    rf"(?P<number>{NUMBER})(?![\w%]|\.\w|\s*[:=]|[-,/'\u00a0\u2009\u202f]\d| \d{{3}}\b|\s+[0-3]\.\d{{2,20}}(?![\w%]))"
)
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
# Behind a score: it is not of all targets, or not what was measured.
DENIED = re.compile(
    r"\bfirst \d|\bsubset\b|\bpartial\b|\btrain(?:ing)?[ _]set|\bbest of\b|\b(?:not|invalid|illegal|"
    r"estimated?|approx\w*|hypothetical|wrong|ignored?|discard(?:ed)?|skipped|projected|extrapolated)\b",
    re.I,
)
# Parts of an identifier by which it names what was not done, or a choice among several scores.
DENYING = {
    "not",
    "no",
    "non",
    "without",
    "before",
    "illegal",
    "invalid",
    "best",
    "old",
    "prev",
    "wrong",
    "hypothetical",
}
KNOWN_WORDS = re.compile(  # parts of the words that labels of several words are made of
    r"final|exact|scores?|results?|eval|evaluat(?:ed|ion)|val|validation|valid|test|metrics?|loss|after|with|at|on|the|of|"
    r"in|for|by|from|is|and|full|total|overall|mean|average|model|weights|artifact|checkpoint|(?:re)?loaded|u?int|b?fp?|"
    r"bits?|float|raw|zlib|zstd|lzma|xz|brotli|gptq|lite|awq|(?:de)?quanti[sz]ed|quanti[sz]ation|quant|compressed|packed|"
    r"submission|pre|post|ema|swa|unquantized|prequant|diagnostic|round|trip|roundtrip|sliding|slide|windows?|windowed|"
    r"strided?|seq|len|length|context|ctx|ttt|legal|causal|first|lora|phased?|multi|sgd|adamw?|slot|etlb|n|gram|ngram|ppm|"
    r"cache|mixture|rescored|two|second|pass|temp|temped|temperature|[sxbkwhemt]|ternary|binary|xnor|mixed|done|complete|"
    r"completed|finished|seed|run|bp[bt]|cap|step|tokens|bytes|end|overlap|overlapping",
)
# Behind `bpb` these tell of other weights than those that were packed.
OF_WEIGHTS = {"ema", "swa", "raw", "float", "pre"}
MODE = (
    r"(?:(?:legal|score.first|final|quantized)[ _-])*"
    r"(?:ttt|sliding(?:[ _-]?window)?|round[ _-]?trip|slot|quantized|etlb)"
    r"(?:[ _-](?:eval|exact|lora|phased|window|score|result|final|s?\d{1,4}))*"
)
BARE = re.compile(r"[-+=>~\u2248\s|*:]{0,8}(?P<number>\d\.\d{1,20})[\s.,;!|*]{0,8}")  # a number, and nothing else
OF_MODE = re.compile(
    rf"(?<![A-Za-z])(?:\w{{0,40}}_)?{MODE}(?![A-Za-z])\s*(?:\([^()]{{0,80}}\))?"
    r"(?:\s*(?:bpb|score|result|final|is|was|got|gives|at|of|[:=|]|-+>|=>|\u2192|\u2248|~)){0,3}\s*"
    r"(?P<number>\d\.\d{2,20})(?![\w%]|\.\d|\s*(?:m?s|sec|min|nats?|x|GB|MB)\b)",
    re.I,
)
AWAITS = re.compile(rf"(?:bpb|byte|{MODE})\)?(?:[:=|>\u2192\s-]|\bis\b)*$", re.I)  # what the next line may give
PLAUSIBLE = (0.3, 3.0)  # bits per byte of a text model that learnt something; the best is 1.05, an untrained one 3.5
PROGRESS = re.compile(
    r"(?:(?:step|iter|iteration|epoch|chunk|batch|doc|docs|window|windows|phase)s?[ :=#]{0,2}|\[)(\d{1,12})/(\d{1,12})",
    re.I,
)
LONGEST = 2000  # characters of a line that is read; beyond, one with bits per byte is listed as not understood
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
    """Whether a person would read a score in it: it puts a figure beside bits per byte, or beside a way of scoring.

    The latter only where the figure could be a score and is nothing else by its own name: `Legal TTT -> 1.0811`.
    """
    named = NAMES_BPB.search(line)
    line = _narrow(line[:LONGEST])
    if of_mode := OF_MODE.search(line):
        return PLAUSIBLE[0] <= float(of_mode["number"]) <= PLAUSIBLE[1]
    return bool(
        named
        and (
            BPB.search(line) or AFTER.search(line) or re.search(r"(?<![\w./])\d{1,2}\.\d|(?i:bpb|byte)\W{0,12}\d", line)
        )
    )


def score_of_two(line: str, following: str) -> bool:
    """Whether a line names a score and the next one is its figure: `val_bpb:` and `1.0811`."""
    alone = BARE.fullmatch(following[:LONGEST])
    return bool(
        alone and AWAITS.search(_narrow(line[-LONGEST:])) and PLAUSIBLE[0] <= float(alone["number"]) <= PLAUSIBLE[1]
    )


def read_score(line: str, *, ended: bool = True) -> Metric | None:
    """The one score of a line; None when it has none, or when it cannot be told which.

    ended: by a newline; a number that the end of the file cuts is no score.
    """
    if len(line) > LONGEST or SOURCE.search(line):
        return None
    text = DECORATION.sub("", DECORATION.sub("", _narrow(line)))
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
    if DENIED.search(after) or (math.isfinite(bpb) and not 0 < bpb <= HIGHEST):
        return None
    pairs = dict(PAIR.findall(text))
    loss = next((pairs[key] for key in LOSSES if re.fullmatch(NUMBER, pairs.get(key, ""), re.I)), None)
    if not ended and not after.strip() and not (loss and _decimals(loss) == _decimals(score["number"])):
        return None
    named = score.groupdict()
    metric = _metric(_label(before, named.get("front") or ""), score["number"], loss, pairs)
    return metric if metric.kind == "diagnostic" or _clear(metric, text, named.get("back") or "") else None


def _clear(metric: Metric, text: str, back: str) -> bool:
    """Whether label and name tell what was scored.  back: what the name says behind `bpb`, as `_ema`."""
    words = metric.label.split()
    parts = {part for word in words for part in re.findall(r"[a-z]+", word.lower())}
    ends = {*re.findall(r"[a-z]+", back.lower())}
    if metric.kind == "training":  # a step of training scores in no other way than plainly
        return {kind_of(word) for word in words} <= {"training", "float", "other", "diagnostic"}
    if any(int(at) < int(of) for at, of in PROGRESS.findall(text)) or ends & OF_WEIGHTS:
        return False
    spoken = (parts if len(words) > 1 else set()) | ends
    return all(map(KNOWN_WORDS.fullmatch, spoken)) and (metric.kind == "other" or not parts & DENYING)


def _narrow(line: str) -> str:
    """Without long blanks, over which the patterns would take the square of their length."""
    return re.sub(r"(\s)\s{2,}", r"\1 ", line)


def _words(text: str) -> str:
    """Without pairs and brackets."""
    return PAIR.sub(" ", re.sub(r"\([^()]*\)|\[[^\[\]]*\]", " ", text))


def _decimals(number: str) -> int:
    """Behind the point, as printed; of `1.0811e-1` five."""
    digits, _, power = number.lower().partition("e")
    return max(0, len(digits.partition(".")[2]) - int(power or 0)) if digits[-1:].isdigit() else 0


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
        loss_decimals=None if loss is None else _decimals(loss),
        seconds=next((seconds(notes[key]) for key in TIMES if key in notes), None),
        notes=notes,
    )


def seconds(text: str) -> float | None:
    """A time with its unit, in seconds."""
    found = re.fullmatch(r"(\d{1,12}(?:\.\d{1,20})?)(ms|s|sec|m|min)", text)
    return float(found[1]) / UNITS[found[2]] if found else None
