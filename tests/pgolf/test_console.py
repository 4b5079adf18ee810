"""What reaches a terminal: no control character of foreign text, time left that makes sense, JSON that is JSON."""

import io
import json
import math
import time

import click
import pytest

from codec.errors import InputError, printable
from pgolf import console
from pgolf.console import echo, print_json, print_table, progress
from verify.finding import Finding

HOSTILE = "import socket # \x1b[2J\x1b[8m\x9b\x07\x08\u202e\udcff\r\nverdict: pass"


def harmless(text):
    return text.isprintable() and "\n" not in text


def test_foreign_text_is_one_line_without_control_characters(capsys):
    finding = Finding(rule="bytes.cap", level="pass", message=HOSTILE, evidence={"source": HOSTILE})
    error = InputError("names " + HOSTILE, where="a\x1b]0;title\x07.py", hint="x\ny")
    assert all(map(harmless, (printable(HOSTILE), finding.message, str(error))))
    assert finding.message.startswith("import socket # ?[2J?[8m")
    assert error.message.endswith(HOSTILE)  # for JSON, which has its own way to write them
    echo(HOSTILE)
    echo(HOSTILE, err=True)
    print_table([(HOSTILE, HOSTILE)], (HOSTILE, "x"))
    out, err = capsys.readouterr()
    assert harmless(err.removesuffix("\n"))
    assert all(map(harmless, out.removesuffix("\n").split("\n")))
    assert len(out.splitlines()) == 4  # one sentence, two lines of headers, one row


def test_json_stays_json(capsys):
    value = {"text": HOSTILE, "rows": [(1.5, math.inf), {"x": -math.inf}], "nan": math.nan, "n": 3, "b": True}
    print_json(value)
    out = capsys.readouterr().out
    assert harmless(out.removesuffix("\n"))

    def no_constant(name):
        raise AssertionError(name)

    found = json.loads(out, parse_constant=no_constant)
    assert found == {"text": HOSTILE, "rows": [[1.5, None], {"x": None}], "nan": None, "n": 3, "b": True}


class Clock:
    def __init__(self, monkeypatch):
        self.now = 1000.0
        monkeypatch.setattr(console.time, "monotonic", lambda: self.now)


REPORTS = [
    *[(30.0, 0, "0 done"), (20.0, 10, "bpb 2.5"), (20.0, 20, "bpb 2.4"), (20.0, 100, "bpb 2.3")],
    *[(20.0, 40, "again"), (20.0, 60, "again")],  # a second pass
]


@pytest.mark.parametrize(("left", "times"), [(True, ["", "0:03:00", "0:02:40", "", "", "0:00:40"]), (False, [""] * 6)])
def test_time_left_is_counted_from_the_first_report_on(monkeypatch, capsys, left, times):
    """Loading, before the first report, is not repeated; no progress gives no time, and neither does the end."""
    clock = Clock(monkeypatch)
    with progress("scoring", 100, left=left) as report:
        for seconds, done, note in REPORTS:
            clock.now += seconds
            report(done, note)
    lines = capsys.readouterr().err.splitlines()
    expected = [
        f"scoring: {done}/100 {note}" + (f", {rest} left" if rest else "")
        for (_, done, note), rest in zip(REPORTS, times, strict=True)
    ]
    assert lines == expected


def test_a_terminal_shows_note_and_time_left(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal, clock = Terminal(), Clock(monkeypatch)
    monkeypatch.setattr(console.sys, "stderr", terminal)
    monkeypatch.setattr(time, "time", lambda: clock.now)
    with progress("scoring", 100) as report:
        for seconds, done, note in REPORTS[:4]:
            clock.now += seconds
            report(done, note)
    drawn = click.unstyle(terminal.getvalue()).split("\r")
    assert any("10/100" in text and text.rstrip().endswith("bpb 2.5, 0:03:00 left") for text in drawn)
    assert not any("left" in text for text in drawn if " 0/100" in text or "100/100" in text)
