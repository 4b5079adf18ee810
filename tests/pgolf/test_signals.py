"""SIGTERM at the worst moments: no error is lost to it, and a process of torchrun other than the first says nothing."""

import json
import os
import signal
import subprocess
import sys

import click
import pytest

from codec.errors import UsageError
from pgolf.__main__ import COMMANDS, main
from tests.conftest import ROOT


@click.command()
@click.option("--json", "as_json", is_flag=True)
def failing(as_json):
    """A command that is ended while its error is on its way up."""
    try:
        raise UsageError("no such thing")
    finally:
        signal.raise_signal(signal.SIGTERM)


@click.command()
def full():
    """The same with an error of the operating system, which becomes a sentence on its way."""
    raise OSError(28, "No space left on device")


@pytest.fixture
def escaped(monkeypatch):
    """Signals that reached the handler of whoever called `main`."""
    seen = []
    before = signal.signal(signal.SIGTERM, lambda *_: seen.append("escaped"))
    for name in ("failing", "full"):
        monkeypatch.setitem(COMMANDS, name, (f"{__name__}:{name}", ""))
    yield seen
    signal.signal(signal.SIGTERM, before)


def test_a_signal_does_not_replace_the_error_on_its_way_up(escaped, capsys):
    assert main(["failing", "--json"]) == 2
    out, err = capsys.readouterr()
    assert err == "Error: no such thing\n"
    assert json.loads(out)["error"]["kind"] == "UsageError"
    assert escaped == []


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["failing"], 2, "Error: no such thing"),
        (["full"], 4, "Error: the operating system says: No space left on device; make room on this machine"),
        (["failing", "--steps"], 2, "Error: No such option"),
    ],
)
def test_a_signal_does_not_come_between_an_error_and_its_sentence(
    escaped, capsys, monkeypatch, arguments, code, sentence
):
    def ended_before_each_line(*line, echo=click.echo, **options):
        signal.raise_signal(signal.SIGTERM)
        echo(*line, **options)

    monkeypatch.setattr("pgolf.__main__.click.echo", ended_before_each_line)
    assert main(arguments) == code
    err = capsys.readouterr().err
    assert err.startswith(sentence)
    assert err.count("\n") == 1
    assert escaped == []


PROGRAM = """
import os, signal, sys, time

def end(*_):
    os.kill(os.getpid(), signal.SIGTERM)

moment = sys.argv.pop(1)
if moment == "waiting":
    time.sleep = end
else:
    sys.addaudithook(lambda event, values: event == "import" and values[0] == moment and end())
from pgolf.__main__ import main
sys.exit(main(sys.argv[1:]))
"""
TRAIN = ["train", "tiny", "--data", "nowhere", "-o", "run"]


@pytest.mark.parametrize(
    ("moment", "arguments"),
    [
        ("click", TRAIN),
        ("pgolf.data_origin", TRAIN),
        ("torch", TRAIN),
        ("trainer.run.loop", TRAIN),
        ("waiting", TRAIN),  # for the first rank to say that there is no such folder
        ("waiting", ["train", "tiny"]),  # or that options are missing
    ],
)
def test_another_rank_is_ended_without_a_word(tmp_path, moment, arguments):
    launched = {"TORCHELASTIC_RUN_ID": "none", "RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, moment, *arguments],
        cwd=tmp_path,
        env={**os.environ, **launched, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGTERM, "", "")
