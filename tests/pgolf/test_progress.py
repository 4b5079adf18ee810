"""Every command that works longer than 2 seconds shows bars; all reach their end, and none goes beyond."""

import contextlib

import pytest

from pgolf import console
from pgolf.__main__ import COMMANDS as EVERY
from pgolf.__main__ import main
from tests.packager.conftest import checkpoint, data  # noqa: F401
from tests.pgolf.test_outputs import COMMANDS, here, made  # noqa: F401
from verify.audit.gallery import EXHIBITS
from verify.submission_gallery import FOLDERS

# command -> what it took on two cores, of which a second or two are imports: a submission of 36 M weights, all folders
# of ../shared/data/records, three runs beside such a submission's artifact, a machine.
SHORT = {"inspect": "1.7 s", "compare": "1.0 s", "record": "2.6 s", "doctor": "1.5 s, without --gpu"}
SMALL = ("--seq-len", "16", "--stride", "8")
VERIFY = ("verify", "packed", "--data", "data", *SMALL, "--limit-tokens", "64", "--cap", "1000000")
SCORED, KNOWN = ["scoring", "looking for foresight"], "looking for known text"
FLOATS = ["reading", "reading floats", *SCORED, "scoring floats", KNOWN]
CHECKPOINT = "run/checkpoint.safetensors"

# What is typed -> the labels of its bars.
BARS = {
    COMMANDS["data"]: ["encoding"],
    COMMANDS["pack"]: ["pack"],
    ("pack", "--script", "packed/train_gpt.py", "--artifact", "text.txt", "-o", "{}"): ["pack"],
    COMMANDS["train"]: ["train tiny"],
    COMMANDS["decode"]: ["decode"],
    COMMANDS["unpack"]: ["decode"],
    COMMANDS["encode"]: ["encode"],
    COMMANDS["calibrate"]: ["calibrate"],
    COMMANDS["inspect"]: [],
    COMMANDS["measure"]: ["measure"],
    COMMANDS["compare"]: [],
    COMMANDS["wrap"]: ["wrap"],
    COMMANDS["report"]: ["report packed"],
    ("report", "packed/model.bin", "seed.log", "-o", "{}.html"): ["report model.bin", "report runs"],
    COMMANDS["record"]: [],
    ("doctor",): [],
}
LONG = {
    COMMANDS["new"]: ["wrap"],
    ("calibrate", CHECKPOINT, "--source", "self", "--sequences", "3", "--batch", "2", "-o", "{}"): ["calibrate"],
    ("pack", CHECKPOINT, "--recipe", "pr162-small", "--fit", "--cap", "120000", "-o", "{}"): ["pack"],
    ("pack", CHECKPOINT, "--bits-per-weight", "6", "-o", "{}"): ["pack"],
    ("encode", CHECKPOINT, "--recipe", "pr162-small", "--bytes", "60000", "-o", "{}"): ["encode"],
    ("report", CHECKPOINT, "-o", "{}.html"): ["report checkpoint.safetensors"],
    (*COMMANDS["measure"], "--recipe", "pr162-small", "--recipe", "best", "--peer", "zlib-9"): ["measure"],
    (*VERIFY, "--checkpoint", CHECKPOINT): FLOATS,
    ("data", "--embedded", "--vocab-size", "1024", "-o", "{}"): ["standard library", "encoding"],
    (*VERIFY, "--strict", "4", "--score", "slot", "--score", "ttt", "--fresh", "text.txt"): [
        "reading",
        *SCORED,
        "scoring from prefixes",
        "scoring by slot",
        "scoring by ttt",
        "looking for foresight by slot",
        "looking for foresight by ttt",
        "looking for foresight in the fresh text",
        "looking for foresight by slot in the fresh text",
        "looking for foresight by ttt in the fresh text",
        KNOWN,
    ],
    ("report", "packed", "--data", "data", "--checkpoint", CHECKPOINT, "--measure-loss", "2", "-o", "{}.html"): [
        "report packed",
        *FLOATS,
        "loss by tensor",
    ],
    ("audit", "packed", "--data", "data", *SMALL, "--targets", "32", "--cuts", "4", "--coded", "2", "--sums", "1"): [
        "scoring once",
        "auditing",
    ],
    COMMANDS["audit"]: ["auditing"],
    ("audit", "--gallery", "--submissions"): ["verifying"],
    COMMANDS["demo"]: [
        "encoding",
        "train cpu-demo",
        "calibrate",
        "pack",
        *FLOATS,
        "recipes",
        "models of bytes",
        "report submission",
        "loss by tensor",
    ],
    ("doctor", "--gpu", "--dry-run", "-o", "{}"): ["gpu-check"],
}


@pytest.fixture
def bars(monkeypatch):
    """(label, total, what was reported) of every bar, in their order."""
    found = []

    @contextlib.contextmanager
    def recorded(label, total, clock):
        reports = []
        found.append((label, total, reports))
        yield lambda done, note: reports.append((done, note))

    monkeypatch.setattr(console, "_lines", recorded)
    return found


@pytest.fixture
def few(monkeypatch):
    """The galleries with two exhibits each: all of them take minutes."""
    for gallery in (EXHIBITS, FOLDERS):
        for name in [*gallery][2:]:
            monkeypatch.delitem(gallery, name)


def shown(bars, arguments):
    assert main([part.format("out") for part in arguments]) in (0, 1)  # 1: a verdict, of a model that is not trained
    for label, total, reports in bars:
        numbers = [done for done, _ in reports]
        assert numbers, f"{label} shows nothing"
        assert numbers[-1] == total, f"{label} ends at {numbers[-1]} of {total}"
        assert min(numbers) >= 0, label
        assert max(numbers) <= total, f"{label} goes to {max(numbers)} of {total}"
        assert all(isinstance(done, int) for done in numbers), label
    return [label for label, _, _ in bars]


@pytest.mark.parametrize(("arguments", "labels"), BARS.items(), ids=" ".join)
def test_every_stage_has_a_bar_that_reaches_its_end(here, bars, arguments, labels):  # noqa: F811
    assert shown(bars, arguments) == labels


@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "labels"), LONG.items(), ids=" ".join)
def test_every_long_stage_has_a_bar_that_reaches_its_end(here, bars, few, arguments, labels):  # noqa: F811
    assert shown(bars, arguments) == labels


def test_every_command_is_in_the_table():
    with_bars = {arguments[0] for table in (BARS, LONG) for arguments, labels in table.items() if labels}
    assert with_bars | SHORT.keys() == EVERY.keys()
    assert with_bars & SHORT.keys() == {"doctor"}
