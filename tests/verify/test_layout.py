"""What a submission's process sees of its files, and what it does not see of anything else."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from codec.errors import InputError
from tests.verify.conftest import BIGRAM
from verify.rescore import reload
from verify.sandbox.confine import Limits
from verify.sandbox.launch import Settings
from verify.sandbox.layout import WHEN, lay_out
from verify.sandbox.scratch import Watchdog
from verify.submission.folder import Submission

SETTINGS = Settings(length=16, stride=4, threads=1)
LINUX = sys.platform.startswith("linux")


def test_all_files_have_one_time_and_mode_and_only_their_bytes(write_submission, tmp_path):
    folder = write_submission("import helper\nimport part.inner\n", carried=False)
    (folder / "helper.py").write_bytes(b"x = 1\n")
    (folder / "part").mkdir()
    (folder / "part" / "inner.py").write_bytes(b"")
    (folder / "other.py").write_bytes(b"y = 1\n")
    os.truncate(folder / "helper.py", 100_000)  # a hole, which nothing marks in the copy
    (folder / "helper.py").write_bytes(b"x = 1\n")
    os.utime(folder / "helper.py", (1, 2))
    (folder / "helper.py").chmod(0o700)
    (folder / "part").chmod(0o701)
    (folder / "submission.json").write_text('{"artifact": "said by a name.bin"}')
    (folder / "model.bin").rename(folder / "said by a name.bin")
    subject = Submission.open(folder)
    (tmp_path / "scratch").mkdir()
    layout = lay_out(subject, subject.blob, tmp_path / "scratch")
    copy = layout.script.parent
    files = {path.relative_to(copy).as_posix(): path.stat() for path in copy.rglob("*")}
    assert sorted(files) == ["helper.py", "model.bin", "part", "part/inner.py", "train_gpt.py"]
    assert {found.st_mtime for found in files.values()} == {WHEN}
    assert {oct(found.st_mode & 0o777) for found in files.values()} == {"0o644", "0o755"}
    assert layout.artifact.read_bytes() == subject.blob


SEED_WITH_LATE_LOAD = "import os\nglobals()['lo' + 'ad'] = lambda path, device: None\n"


def test_settings_do_not_reach_a_script_with_load(write_submission, heldout, bigram_nats):
    script = "import os\nassert 'TABLE' not in os.environ\n" + BIGRAM
    folder = write_submission(script)
    (folder / "README.md").write_text("TABLE=abc python train_gpt.py\n")
    subject = Submission.open(folder)
    assert (subject.environment, subject.own_load, subject.given) == ({"TABLE": "abc"}, True, {})
    assert reload(subject, subject.blob, heldout, SETTINGS).score.nats == pytest.approx(bigram_nats)
    (folder / "train_gpt.py").write_text(SEED_WITH_LATE_LOAD)
    late = Submission.open(folder)
    assert late.given == {"TABLE": "abc"}
    with pytest.raises(InputError, match="makes its `load` while it runs"):
        reload(late, late.blob, heldout, SETTINGS)


@pytest.mark.parametrize(
    ("script", "offers"),
    [
        ("def load(a, b):\n    pass\n", True),
        ("if True:\n    load = print\n", True),
        ("from helper import load\n", True),
        ("from helper import something as load\n", True),
        ("from helper import *\n", True),
        ("def other():\n    load = 1\n", False),
        ("class A:\n    def load(self):\n        pass\n", False),
        ("import torch\ntorch.load('x')\n", False),
    ],
)
def test_load_is_found_without_running_anything(write_submission, script, offers):
    folder = write_submission(script, carried=False)
    (folder / "helper.py").write_text("def load(a, b):\n    pass\nsomething = 1\n")
    (folder / "README.md").write_text("A=1 python train_gpt.py\n")
    assert Submission.open(folder).own_load is offers


@pytest.mark.skipif(not LINUX, reason="Landlock is of Linux")
def test_a_script_finds_neither_the_toolkit_nor_other_packages(write_submission, heldout):
    """Not by import, not by looking whether they are there; what requirements.txt names is there."""
    script = (
        "import importlib.util, os, sys\n"
        "assert importlib.util.find_spec('pytest') is None and importlib.util.find_spec('click') is not None\n"
        "import click\n"
        "try:\n    import pytest\nexcept ImportError:\n    pass\nelse:\n    raise ValueError('found')\n"
        "assert not [name for name in sys.modules if name.partition('.')[0] in ('codec', 'verify')]\n"
        "assert os.listdir('..') == ['submission'], os.listdir('..')\n"
        "import importlib.metadata, tempfile\n"
        "assert importlib.metadata.version('torch')\n"
        "tempfile.TemporaryFile().close()\n"
    )
    folder = write_submission(script + BIGRAM)
    (folder / "requirements.txt").write_text("torch>=2\n# a comment\nCLICK\n-r other.txt\nAAECAwQF.weights==1\n")
    subject = Submission.open(folder)
    assert subject.packages == ("click", "torch")  # a name that says something else reaches nobody
    assert reload(subject, subject.blob, heldout, SETTINGS).attempts == ()


def test_a_refused_reading_is_noted(write_submission, heldout, tmp_path):
    (tmp_path / "text").write_text("held out")
    script = (
        "import pathlib\nimport numpy as np\n"
        "for look in (lambda: open({0!r}), lambda: pathlib.Path({0!r}).read_text(), lambda: np.fromfile({0!r})):\n"
        "    try:\n        look()\n    except OSError:\n        pass\n"
        "try:\n    open({1!r})\nexcept OSError:\n    pass\n"
    ).format(str(tmp_path / "text"), str(tmp_path / "missing"))
    subject = Submission.open(write_submission(script + BIGRAM))
    attempts = reload(subject, subject.blob, heldout, SETTINGS).attempts
    assert attempts == (f"train_gpt.py line 3: tried to read {tmp_path / 'text'}",)


HIDING = {
    "open": "file = open('big', 'wb'); file.write(bytes(2_000_000)); file.flush(); os.remove('big')",
    "mapped": (
        "file = open('big', 'wb+'); file.write(bytes(2_000_000)); file.flush(); "
        "held = mmap.mmap(file.fileno(), 4096); file.close(); os.remove('big')"
    ),
}


@pytest.mark.skipif(not LINUX, reason="looks into /proc")
@pytest.mark.parametrize("how", HIDING)
def test_removed_files_count_while_they_are_held(tmp_path, how):
    code = f"import mmap, os, sys, time\n{HIDING[how]}\nprint(1, flush=True)\ntime.sleep(60)\n"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline()
        assert list(Path(tmp_path).iterdir()) == []
        limits = Limits(scratch=str(tmp_path), scratch_bytes=1_000_000)
        watchdog = Watchdog(process.kill, limits, 30, process.pid)
        watchdog.start()
        watchdog.join(40)
        assert watchdog.reason == "filled its scratch folder beyond 1,000,000 bytes"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
