"""A second reader of logs and of a record's README, by regular expressions alone: what must stand there, and what does.

It shares nothing with verify.claims: numbers of the field's logs, mean and deviation by the statistics module, the
tests of significance in closed form.
"""

import math
import re
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev

CONSTANTS = {"1", "16,000,000", "0.005", "0.01"}  # n - 1, the cap, the record rule
NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:,\d{3})*(?:\.\d+)?(?:e[-+]\d+)?(?![\w])")


@dataclass(frozen=True)
class LogNumbers:
    seed: int
    loss: str
    bpb: str
    steps: int
    train: float
    eval: float
    model: int
    code: int
    total: int


def of_log(text: str) -> LogNumbers:
    """Of a log whose last score is the one that counts."""
    score = re.findall(r"^\S+ val_loss:(\d+\.\d{8}) val_bpb:(\d+\.\d{8})\b", text, re.M)[-1]
    stop = re.findall(r"^stopping_early: \S+ train_time:(\d+)ms step:(\d+)/", text, re.M)
    ended = stop or re.findall(r"^step:(?P<s>\d+)/\d+ val_loss:\S+ val_bpb:\S+ train_time:(?P<t>\d+)ms", text, re.M)
    train, steps = ended[-1] if stop else ended[-1][::-1]
    packed = text[text.index("\nTotal submission size ", text.index("\nSerialized model ")) :]
    return LogNumbers(
        seed=int(re.search(r"^seed:(\d+)$", text, re.M)[1]),
        loss=score[0],
        bpb=score[1],
        steps=int(steps),
        train=int(train) / 1000,
        eval=sum(map(int, re.findall(r"^\S+ val_loss:\S+ val_bpb:\S+.* eval_time:(\d+)ms", packed, re.M))) / 1000,
        model=int(re.findall(r"^Serialized model \S+: (\d+) bytes", text, re.M)[-1]),
        code=int(re.findall(r"^Code size: (\d+) bytes", text, re.M)[-1]),
        total=int(re.findall(r"^Total submission size \S+: (\d+) bytes", text, re.M)[-1]),
    )


def score_rows(logs: list[LogNumbers]) -> list[list[str]]:
    """The table of scores as it must be, without the name of the score."""
    rows = [
        [
            *(str(log.seed), log.bpb, log.loss, f"{log.steps:,}", f"{log.train:.3f}", f"{log.eval:.3f}"),
            *(f"{log.model:,}", f"{log.code:,}", f"{log.total:,}"),
        ]
        for log in logs
    ]
    columns = [[float(log.bpb) for log in logs], [float(log.loss) for log in logs]]
    rows.append(["mean", *(f"{fmean(column):.8f}" for column in columns), *[""] * 6])
    if len(logs) > 1:
        rows.append(["sd", *(f"{stdev(column):.8f}" for column in columns), *[""] * 6])
    return rows


def size_rows(logs: list[LogNumbers], code: int, artifact: int | None, cap: int = 16_000_000) -> list[list[str]]:
    """The table of sizes: of the files, then of every log."""
    shipped = (
        [f"{artifact:,}", f"{code + artifact:,}", f"{cap - code - artifact:+,}"] if artifact else ["absent", "-", "-"]
    )
    rows = [["the files here", f"{code:,}", *shipped]]
    for log in logs:
        sizes = (f"{log.code:,}", f"{log.model:,}", f"{log.total:,}", f"{cap - log.total:+,}")
        rows.append([f"the log of seed {log.seed}", *sizes])
    return rows


def significance_rows(logs: list[LogNumbers], against: float) -> tuple[list[list[str]], list[list[str]]]:
    """(against what, tests) of three runs against one mean: Student's t of 2 degrees of freedom has a closed form."""
    bpb, loss = [float(log.bpb) for log in logs], [float(log.loss) for log in logs]
    ratio, error = fmean(bpb) / fmean(loss), stdev(bpb) / math.sqrt(3)
    shift = 0.005 * ratio
    values = (against, shift, against - shift, against - shift - fmean(bpb))
    tests = []
    for name in ("t", "z"):
        for less in (shift, 0.0):
            statistic = (fmean(bpb) - (against - less)) / error
            p = 0.5 + statistic / (2 * math.sqrt(2 + statistic**2)) if name == "t" else NormalDist().cdf(statistic)
            if name == "t" and statistic < 0:  # without the rounding of 0.5 - 0.4999
                p = 1 / ((2 + statistic**2) * (1 - statistic / math.sqrt(2 + statistic**2)))
            title = {"t": "one-sample Student t test", "z": "one-sample z test"}[name]
            df = "2.000" if name == "t" else ""
            small = "yes" if p < 0.01 else "no"
            tests.append([title, "0.005 nats" if less else "none", f"{p:.3e}", small, f"{statistic:.4f}", df])
    return [[f"{value:.8f}", f"{value / ratio:.8f}"] for value in values], tests


def sections(readme: str) -> dict[str, str]:
    """Heading -> text below it; "" is the top."""
    parts = re.split(r"^## (.+)\n", readme, flags=re.M)
    return {"": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}


def tables(text: str) -> list[list[list[str]]]:
    """The rows of each Markdown table, without its heads."""
    blocks = re.findall(r"(?:^\|.*\n?)+", text, re.M)
    return [[cells(line) for line in block.strip().splitlines()[2:]] for block in blocks]


def cells(line: str) -> list[str]:
    parts = re.split(r"(?<!\\)\|", line.strip())[1:-1]
    return [
        part.strip().replace("\\|", "|").replace("\\\\", "\\").replace("&lt;", "<").replace("&amp;", "&")
        for part in parts
    ]


def numbers(text: str) -> set[str]:
    """Every number that stands in a text, names of files and labels apart."""
    return set(NUMBER.findall(re.sub(r"`[^`]*`", "", text)))
