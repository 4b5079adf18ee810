"""The patterns of the lines that training logs of the field hold."""

import re
from typing import Literal

Kind = Literal[
    "training", "float", "roundtrip", "sliding", "ttt", "slot", "etlb", "mixture", "rescored", "prequant_ttt", "other"
]
KINDS: tuple[tuple[Kind, str], ...] = (  # the first pattern that a label matches
    ("training", r"(step:)?\d{1,12}/\d{1,12}$"),
    ("prequant_ttt", r".*pre.?quant.*ttt"),
    ("float", r".*(pre.?quant|post.?ema|post.?swa)"),
    ("slot", r".*slot"),
    ("etlb", r".*etlb"),
    ("mixture", r".*(n.?gram|ppm|cache)"),
    ("rescored", r".*(two.?pass|second.?pass|rescor)"),
    ("ttt", r".*ttt"),
    ("sliding", r".*slid"),
    ("roundtrip", r".*(roundtrip|quantized)"),
)
NUMBER = r"\d{1,12}(?:\.\d{1,20})?"  # bounded, as all digits here: logs come from anywhere
PREFIX = (  # a time stamp in any of the usual forms, then torchrun's name of the process
    r"^(?:\[?(?:\d{4}-\d\d-\d\d[T ])?\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?\]?[ |:,-]+)?"
    r"(?:\[?(?:rank|default)\d+\]?:? *)?"
)
WORD = r"[\w+./:=-]+"  # no quotes, braces or brackets: those are source, not a log
PAIR = r"[\w/.]+[:=] ?\S+"
MEASURED = re.compile(
    rf"{PREFIX}(?P<label>[A-Za-z0-9]{WORD}(?: {WORD})*?),? val_loss[:=] ?(?P<loss>{NUMBER}),? "
    rf"val_bpb[:=] ?(?P<bpb>{NUMBER})(?P<rest>(?:,? {PAIR})*)\s*$"
)
SPOKEN = re.compile(rf"{PREFIX}(?P<label>(?:Legal )?TTT)(?: bpb)?: ?(?P<bpb>\d{{1,2}}\.\d{{4,20}})(?:[ ,(].*)?$")
SIZE = re.compile(
    PREFIX + r"(?P<what>Serialized model|Code size|Total submission size)(?P<how>[^:]*): (?P<bytes>\d[\d,]{0,20}) bytes"
)
STOPPED = re.compile(rf"{PREFIX}stopping_early: \S+ train_time: ?(?P<ms>\d{{1,12}})ms step: ?(?P<step>\d{{1,12}})/")
EVALUATED = re.compile(rf"{PREFIX}total_eval_time: ?(?P<seconds>{NUMBER})s")
TARGETS = re.compile(rf"{PREFIX}(?:val_tokens|val_loader:.* tokens): ?(?P<tokens>\d{{1,15}})\s*$")
STARTED = re.compile(rf"{PREFIX}(?P<what>\w+):start(?:ing)?(?P<rest>(?: {PAIR})+)\s*$")
SETTING = re.compile(r"^  (\w+): (.*)$")
SOURCE = re.compile(r"\"\"\"|'''|(?P<imports>import \w|from [\w.]+ import )|def \w|class \w|if __name__")
SOURCE_HASH = re.compile(r"source sha256:([0-9a-f]{64})$")
CALIBRATED = re.compile(rf"{PREFIX}phase_times calibrate:(?P<spent>\d{{1,12}}ms)\s*$")
PER_SECOND = {"ms": 1000, "s": 1, "m": 1 / 60}


def kind_of(label: str) -> Kind:
    """What a label says was scored, and how."""
    return next((kind for kind, pattern in KINDS if re.match(pattern, label.lower())), "other")
