"""A log format of one's own, registered from outside the toolkit, read by what reads the field's."""

import runpy

import pytest

from codec.errors import InputError, UsageError
from verify.claims import log_grammar
from verify.claims.group_rules import check_group
from verify.claims.log_grammar import GRAMMARS, register
from verify.claims.log_reader import read_log
from verify.claims.runs import read_group

PLUGIN = """
import re

from verify.claims.log_events import Metric, Hyperparameters, Size, Training
from verify.claims.log_grammar import LineKind, LogGrammar, register

WHAT = {"float": "float", "packed": "roundtrip", "packed, sliding": "sliding"}


def score(match):
    bpb = match["bpb"]
    kind = WHAT.get(match["what"], "other")
    nats = float(match["nats"])
    return (Metric(label=match["what"], kind=kind, bpb=float(bpb), decimals=len(bpb.partition(".")[2]), loss=nats),)


def size(match):
    model, code = int(match["model"]), int(match["code"])
    return (
        Size(part="model", bytes=model, codec=match["codec"]),
        Size(part="code", bytes=code, codec=""),
        Size(part="total", bytes=model + code, codec=match["codec"]),
    )


def trained(match):
    return (Training(step=int(match["steps"]), seconds=60 * float(match["minutes"])),)


register(
    LogGrammar(
        name="tab",
        lines=(
            LineKind(
                name="score",
                pattern=re.compile(r"SCORE\\t(?P<what>[^\\t]+)\\t(?P<bpb>[0-9.]+) bits\\t(?P<nats>[0-9.]+) nats$"),
                read=score,
            ),
            LineKind(
                name="size",
                pattern=re.compile(r"SIZE\\t(?P<model>[0-9]+) \\((?P<codec>\\w+)\\) \\+ (?P<code>[0-9]+)$"),
                read=size,
            ),
            LineKind(
                name="training",
                pattern=re.compile(r"TRAINED\\t(?P<steps>[0-9]+)\\t(?P<minutes>[0-9.]+)$"),
                read=trained,
            ),
            LineKind(
                name="setting",
                pattern=re.compile(r"SET\\t(?P<name>\\w+)\\t(?P<value>.*)$"),
                read=lambda match: (Hyperparameters(values={match["name"]: match["value"]}),),
            ),
        ),
    )
)
"""
LOG = """SET\tseed\t{seed}
SET\tworld_size\t8
TRAINED\t9000\t9.5
SCORE\tfloat\t1.10000000 bits\t1.87000000 nats
SIZE\t15900000 (zstd) + 50000
SCORE\tpacked\t1.12000000 bits\t1.90400000 nats
SCORE\tpacked, sliding\t{bpb} bits\t{nats} nats
"""


@pytest.fixture
def plugin(tmp_path):
    """The grammar as a file of its own, outside the package."""
    path = tmp_path / "tab_logs.py"
    path.write_text(PLUGIN)
    return path


@pytest.fixture
def logs(tmp_path):
    for seed, bpb, nats in ((7, "1.10500000", "1.87850000"), (8, "1.10700000", "1.88190000")):
        (tmp_path / f"run_{seed}.log").write_text(LOG.format(seed=seed, bpb=bpb, nats=nats))
    return tmp_path


@pytest.fixture
def registered(plugin, monkeypatch):
    """Registered for this test only."""
    monkeypatch.setattr(log_grammar, "GRAMMARS", dict(GRAMMARS))
    runpy.run_path(str(plugin))


def test_without_it_the_format_is_not_read(logs):
    with pytest.raises(InputError, match="no line with val_loss and val_bpb"):
        read_log(logs / "run_7.log")


@pytest.mark.usefixtures("registered")
def test_its_logs_are_compared_like_the_fields(logs):
    group = read_group([logs])
    assert [(run.seed, run.label, run.bpb, run.total_bytes) for run in group.runs] == [
        (7, "packed, sliding", 1.105, 15_950_000),
        (8, "packed, sliding", 1.107, 15_950_000),
    ]
    assert [(log.steps, log.train_seconds) for log in group.logs] == [(9000, 570.0)] * 2
    assert [metric.line for metric in group.logs[0].metrics] == [4, 6, 7]
    levels = {finding.rule: finding.level for finding in check_group(group)}
    assert (levels["log.bytes"], levels["log.headline"], levels["log.budget"]) == ("pass", "pass", "pass")
    assert "fail" not in levels.values()


@pytest.mark.usefixtures("registered")
def test_the_fields_logs_are_read_as_before(tmp_path):
    (tmp_path / "a.log").write_text("quantized val_loss:2.0 val_bpb:1.5\n")
    assert read_log(tmp_path / "a.log").metrics[0].kind == "roundtrip"


@pytest.mark.usefixtures("registered")
def test_a_name_is_taken_once():
    with pytest.raises(UsageError, match="`tab` is registered already"):
        register(log_grammar.GRAMMARS["tab"])


def test_by_the_command_line(pgolf, plugin, logs):
    done = pgolf("--plugin", plugin, "compare", logs)
    assert done.returncode == 0, done.stderr
    assert "packed, sliding" in done.stdout
