"""What reaches a terminal: no control character of foreign text, time left that makes sense, JSON that is JSON."""

import contextlib
import io
import json
import math
import threading
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


PAST = "0:00:30 so far"
LEFT = [PAST, "0:03:00 left", "0:02:40 left", "", "0:01:50 so far", "0:00:40 left"]


@pytest.mark.parametrize(
    ("how", "times"),
    [
        ({}, LEFT),
        ({"left": False}, [PAST, "", "", "", "0:01:50 so far", ""]),
        ({"most": True}, [text if "so far" in text or not text else f"at most {text}" for text in LEFT]),
    ],
)
def test_time_left_is_counted_from_the_first_report_on(monkeypatch, capsys, how, times):
    """Loading, before the first report, is not repeated; no progress gives no time left, and neither does the end."""
    clock = Clock(monkeypatch)
    with progress("scoring", 100, **how) as report:
        for seconds, done, note in REPORTS:
            clock.now += seconds
            report(done, note)
    lines = capsys.readouterr().err.splitlines()
    expected = [
        f"scoring: {done}/100 {note}" + (f", {text}" if text else "")
        for (_, done, note), text in zip(REPORTS, times, strict=True)
    ]
    assert lines == expected


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def tick(monkeypatch):
    """What the thread of a bar does each second; it is not started."""
    ticks = []

    @contextlib.contextmanager
    def never(seconds, tick):
        ticks.append(tick)
        yield

    monkeypatch.setattr(console, "_every", never)
    return lambda: ticks[-1]()


def test_the_time_goes_on_while_nothing_is_reported(monkeypatch, capsys, tick):
    clock = Clock(monkeypatch)
    with progress("packing", 100) as report:
        for done in (0, 10):
            clock.now += 10
            report(done, "code")
        for seconds in (10, 10, 20, 60):
            clock.now += seconds
            tick()
    # Not yet after 10 s, which is too soon for a line; 120 s are more than those first 10 let expect.
    times = ("0:01:30 left", "0:01:10 left", "0:00:50 left", "0:02:00 so far")
    assert capsys.readouterr().err.splitlines() == [f"packing: 10/100 code, {text}" for text in times]


def test_what_goes_on_at_the_end_is_seen(monkeypatch, tick):
    terminal, clock = Terminal(), Clock(monkeypatch)
    monkeypatch.setattr(console.sys, "stderr", terminal)
    with progress("training", 100, left=False) as report:
        for done in (0, 100):
            report(done, "validating")
        clock.now += 4
        tick()
    assert drawn(terminal)[-2:] == ["validating", "validating, 0:00:04 so far"]


def test_a_terminal_is_drawn_again_each_second(monkeypatch, tick):
    terminal, clock = Terminal(), Clock(monkeypatch)
    monkeypatch.setattr(console.sys, "stderr", terminal)
    with progress("packing", 100) as report:
        report(0, "code")
        clock.now += 3
        tick()
        report(0, "encode")
        assert drawn(terminal)[-2:] == ["code, 0:00:03 so far", "encode, 0:00:03 so far"]


def test_the_thread_of_a_bar_ticks_and_ends_with_it():
    ticked, threads = threading.Event(), threading.active_count()
    with console._every(0.001, ticked.set):
        assert ticked.wait(60)
    assert threading.active_count() == threads


def drawn(terminal):
    """What each drawing of the bar says behind its numbers."""
    return [text.split("  ")[-1].strip() for text in click.unstyle(terminal.getvalue()).split("\r") if text.strip()]


def test_what_may_end_early_ends_full(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(console.sys, "stderr", terminal)
    with progress("fitting", 100, most=True) as report:
        report(30, "landing")
    assert "100/100" in terminal.getvalue()


def test_a_terminal_shows_note_and_time_left(monkeypatch):
    terminal, clock = Terminal(), Clock(monkeypatch)
    monkeypatch.setattr(console.sys, "stderr", terminal)
    monkeypatch.setattr(time, "time", lambda: clock.now)
    with progress("scoring", 100) as report:
        for seconds, done, note in REPORTS[:4]:
            clock.now += seconds
            report(done, note)
    texts = click.unstyle(terminal.getvalue()).split("\r")
    assert any("10/100" in text and text.rstrip().endswith("bpb 2.5, 0:03:00 left") for text in texts)
    assert not any("left" in text for text in texts if " 0/100" in text or "100/100" in text)
