import time

import numpy as np
import pytest

from codec.errors import InputError, LimitError
from tests.verify.conftest import BIGRAM
from verify.reload import Settings, reload
from verify.submission import Submission

SETTINGS = Settings(length=16, stride=4, threads=1)


def run(folder, heldout, **options):
    subject = Submission.open(folder)
    return reload(subject, subject.blob, heldout, Settings(length=16, stride=4, threads=1, **options))


def test_the_fresh_process_scores_exactly(write_submission, heldout, bigram_nats, capfd):
    """stdout noise, from Python and from below it, does not disturb the reports."""
    noise = 'import os, sys\nprint(\'{"kind": "score"}\')\nos.write(1, b\'{"kind": "error"}\\n\')\n'
    calls = []
    subject = Submission.open(write_submission(noise + BIGRAM))
    result = reload(subject, subject.blob, heldout, SETTINGS, lambda done, note: calls.append(done))
    assert result.score.nats == pytest.approx(bigram_nats, rel=1e-6)
    assert (result.score.tokens, result.score.bytes) == (heldout.targets, heldout.proof["bytes"])
    assert calls[-1] == heldout.targets
    assert list(result.state) == ["table"]
    assert capfd.readouterr() == ("", "")


def test_a_script_that_does_not_carry_its_modules_fails(write_submission, heldout):
    with pytest.raises(InputError, match="No module named 'codec', the submission does not carry it"):
        run(write_submission(carried=False), heldout)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("x = 1", "offers no `load"),
        ("def load(path, device):\n    raise ValueError('bad magic')", "failed with ValueError: bad magic"),
        ("def load(path, device):\n    return 3", "returned a int without"),
        ("raise SystemExit(0)", "failed with SystemExit"),
        (
            "import os, sys\nsys.stderr.write('out of memory\\n')\nos._exit(7)",
            "exit code 7 and no score .* out of memory",
        ),
        (BIGRAM.replace("self.table[ids]", "self.table[ids, :9]"), "one logit per vocabulary id"),
        (BIGRAM.replace("self.table[ids]", "self.table[ids] / 0 * 0"), "not finite"),
    ],
)
def test_scripts_that_cannot_be_scored(write_submission, heldout, script, message):
    with pytest.raises(InputError, match=message) as error:
        run(write_submission(script), heldout)
    assert error.value.where.endswith("train_gpt.py")


def test_a_hanging_script_and_its_children_are_ended(write_submission, heldout, tmp_path):
    alive = tmp_path / "alive"
    script = (
        "import subprocess, time\n"
        f"subprocess.Popen(['sh', '-c', 'while :; do touch {alive}; sleep 0.1; done'])\ntime.sleep(600)\n"
    )
    started = time.monotonic()
    with pytest.raises(LimitError, match="time limit of 5 s"):
        run(write_submission(script), heldout, time_limit=5)
    assert time.monotonic() - started < 20
    stamp = alive.stat().st_mtime  # the child had started
    time.sleep(0.5)
    assert alive.stat().st_mtime == stamp


def test_only_counted_files_are_there_and_neither_text_nor_environment(write_submission, heldout, monkeypatch):
    monkeypatch.setenv("EVAL_STRIDE", "8")
    look = (
        "import os, pathlib\nhere = pathlib.Path(__file__).parent\n"
        "seen = sorted(p.name for p in here.parent.rglob('*') if p.is_file())\n"
        "def load(path, device):\n    raise ValueError(seen, os.environ.get('EVAL_STRIDE'))\n"
    )
    folder = write_submission(look)
    (folder / "extra.npz").write_bytes(b"more weights")
    with pytest.raises(InputError, match=r"\['job', 'model.bin', 'stderr', 'train_gpt.py'\], None"):
        run(folder, heldout)


def test_another_artifact_through_the_same_script(write_submission, heldout):
    from codec.encoder import encode

    subject = Submission.open(write_submission())
    zeros = encode({"table": np.zeros((300, 300), np.float32)}, {})
    score = reload(subject, zeros, heldout, SETTINGS).score
    assert score.loss == pytest.approx(np.log(300), rel=1e-6)
