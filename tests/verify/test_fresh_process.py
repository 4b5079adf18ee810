import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from codec.errors import InputError, LimitError
from verify.audit.fresh_process import ScorerJob, find_scorer, observe
from verify.audit.gallery.toy import Procedure, stream
from verify.audit.trace import trace

SCORER = """
from pathlib import Path
from verify.audit.gallery.honest import sliding
from verify.audit.gallery.toy import Procedure

def make(act="pass"):
    def steps(tokens, batch, ranks):
        for number, scored in enumerate(sliding(tokens, batch, ranks)):
            if number == 1:
                exec(act)
            yield scored
    return Procedure("mine", steps)

scorer = make()
"""


@pytest.fixture
def script(tmp_path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(SCORER)
    return path


REACHES = [
    ("open({answers!r}).read()", "open {answers}"),
    ("Path({answers!r}).read_bytes()", "open {answers}"),
    ("import os; os.open({answers!r}, 0)", "open {answers}"),
    ("open({notes!r}, 'w').close()", "open {notes}"),
    ("open({folder!r} + '/mine.py')", ""),
    ("import numpy; numpy.fromfile({answers!r}, 'u1')", "open {answers}"),
    ("import subprocess; subprocess.run(['true'])", "subprocess.Popen true"),
    ("import os; os.system('true')", "os.system "),
    ("import socket; socket.socket().bind(('127.0.0.1', 0))", "socket.bind"),
    ("import socket; socket.socket().connect_ex(('127.0.0.1', 9))", "socket.connect"),
    ("import wave, sqlite3", ""),
    ("import tempfile; tempfile.gettempdir()", ""),
    ("import glob; [open(file) for file in glob.glob({folder!r} + '/pgolf-audit-*/tokens*')]", ""),
    ("pass", ""),
]


def test_reaching_out_is_seen_and_nothing_else(script, tmp_path, monkeypatch):
    """One process for all: each scorer is watched by itself.  The text is not lying around for them to find."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    names = {"answers": str(tmp_path / "answers"), "notes": str(tmp_path / "notes"), "folder": str(tmp_path)}
    (tmp_path / "answers").write_text("42")
    allowed = ScorerJob(
        scorer=f"{script}:make", arguments=(REACHES[0][0].format(**names),), allowed=(tmp_path / "answers",)
    )
    jobs = [ScorerJob(scorer=f"{script}:make", arguments=(act.format(**names),)) for act, _ in REACHES]
    seen = observe([allowed, *jobs], stream(), batch=4)
    assert seen[0].events == ()
    for one, (act, event) in zip(seen[1:], REACHES, strict=True):
        assert bool(one.events) is bool(event), (act, one.events)
        assert not event or any(line.startswith(event.format(**names)) for line in one.events), one.events


def test_a_fresh_process_gives_the_same_run(script):
    here = trace(find_scorer(f"{script}:make"), stream(), batch=4)
    for seen in observe([ScorerJob(scorer=f"{script}:make"), ScorerJob(scorer=f"{script}:scorer")], stream(), batch=4):
        assert np.array_equal(seen.trace.nats, here.nats)
        assert np.array_equal(seen.trace.positions, here.positions)
        assert (seen.trace.digests, seen.trace.starts) == (here.digests, here.starts)


@pytest.mark.parametrize(
    ("act", "message"),
    [("raise SystemExit(3)", "SystemExit"), ("import os; os._exit(5)", "exit code 5")],
)
def test_a_scorer_that_fails_is_named(script, act, message):
    jobs = [ScorerJob(scorer=f"{script}:scorer"), ScorerJob(scorer=f"{script}:make", arguments=(act,))]
    with pytest.raises(InputError, match=message) as caught:
        observe(jobs, stream(), batch=4)
    assert caught.value.where == f"{script}:make"


def test_a_scorer_that_sleeps_is_ended(script):
    with pytest.raises(LimitError, match="longer than"):
        observe(
            [ScorerJob(scorer=f"{script}:make", arguments=("import time; time.sleep(600)",))],
            stream(),
            batch=4,
            time_limit=0.5,
        )


@pytest.mark.parametrize(
    "name", ["none.py:make", "nothing:make", "no-colon", "{script}:absent", "{script}:Path", "{broken}:make"]
)
def test_what_is_no_scorer_is_refused(script, tmp_path, name):
    broken = tmp_path / "broken.py"
    broken.write_text("def")
    with pytest.raises(InputError):
        find_scorer(name.format(script=script, broken=broken))


def test_the_watch_is_a_scorer_of_this_module():
    assert isinstance(find_scorer("verify.audit.gallery:build", ["sliding", ""]), Procedure)


def test_an_environment_that_is_a_link_may_be_imported_from(tmp_path):
    """Its modules are opened below the folder that it points to."""
    (tmp_path / "environment").symlink_to(sys.prefix)
    said = subprocess.run(
        [
            tmp_path / "environment/bin/python",
            "-c",
            "import numpy, os, pathlib, sys; from verify.audit.fresh_process import _imported;"
            "print(sys.prefix, _imported(pathlib.Path(os.path.realpath(numpy.__file__))))",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.split() == [str(tmp_path / "environment"), "True"]
