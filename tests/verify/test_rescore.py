"""The process that runs a submission: scored from outside, with its own files only, and ended at every limit."""

import os
import tempfile
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
import torch

from codec.encoder import encode
from codec.errors import InputError, LimitError, UsageError
from tests.verify.conftest import BIGRAM
from tests.verify.measured import FACTS
from verify.rescore import reload
from verify.run_rules import check_attempts, check_sandbox
from verify.sandbox import confine as sandbox
from verify.sandbox import launch, nursery
from verify.sandbox.launch import Settings, running
from verify.submission.folder import Submission

SETTINGS = Settings(length=16, stride=4, threads=1)
LOAD = "def load(path, device):\n"


def run(folder, heldout, **options):
    subject = Submission.open(folder)
    return reload(subject, subject.blob, heldout, Settings(length=16, stride=4, threads=1, **options))


def test_the_score_is_exact_and_noise_does_not_disturb_it(write_submission, heldout, bigram_nats, capfd):
    """What the script prints, from Python and from below it, and what it reads from stdin, goes nowhere."""
    noise = "import os, sys\nprint('{}')\nos.write(1, b'{}')\nassert sys.stdin.read() == ''\n"
    calls = []
    subject = Submission.open(write_submission(noise + BIGRAM))
    result = reload(subject, subject.blob, heldout, SETTINGS, lambda done, note: calls.append(done))
    assert result.score.nats == pytest.approx(bigram_nats, rel=1e-6)
    assert (result.score.tokens, result.score.bytes) == (heldout.targets, heldout.proof["bytes"])
    assert calls[-1] == heldout.targets
    assert list(result.state) == ["table"]
    assert capfd.readouterr() == ("", "")
    assert (result.notes, result.attempts) == ((), ())
    assert result.missing == (() if os.getuid() else (sandbox.THREADS,))


def test_hidden_and_head_give_the_same_logits(write_submission, heldout, table):
    """Only the positions that are asked for come back; a row's first ones are left out in the process."""
    parts = BIGRAM.replace("def load", "    def hidden(self, ids):\n        return self.table[ids]\n\ndef load")
    subject = Submission.open(write_submission(parts))
    ids = torch.from_numpy(heldout.tokens[:24].astype(np.int64)).view(2, 12)
    with running(subject, subject.blob, SETTINGS) as model:
        assert torch.equal(model.logits(ids), torch.from_numpy(table)[ids])
        assert torch.equal(model.head(model.hidden(ids)[:, 5:]), torch.from_numpy(table)[ids][:, 5:])


def test_a_script_that_does_not_carry_its_modules_fails(write_submission, heldout):
    with pytest.raises(InputError, match="No module named 'codec', the submission does not carry it"):
        run(write_submission(carried=False), heldout)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("x = 1", "offers neither `load"),
        (LOAD + "    raise ValueError('bad magic')", "failed with ValueError: bad magic"),
        ("raise SyntaxError('f-string')", "failed with SyntaxError: f-string"),
        pytest.param(LOAD + "    return 3", "returned a int without", marks=pytest.mark.slow),
        pytest.param("raise SystemExit(0)", "failed with SystemExit", marks=pytest.mark.slow),
        ("import os, sys\nsys.stderr.write('no luck \\33[2J\\n')\nos._exit(7)", r"exit code 7 and .* no luck \?\[2J"),
        pytest.param("import os\nos.abort()", "ended with SIGABRT and no score", marks=pytest.mark.slow),
        pytest.param(
            BIGRAM.replace("self.table[ids]", "self.table[ids, :9]"),
            "one logit per vocabulary id",
            marks=pytest.mark.slow,
        ),
        (BIGRAM.replace("self.table[ids]", "self.table[ids] / 0 * 0"), "not finite"),
        pytest.param(BIGRAM.replace("self.table[ids]", "[1]"), "failed with|logits have shape", marks=pytest.mark.slow),
    ],
)
def test_scripts_that_cannot_be_scored(write_submission, heldout, script, message):
    with pytest.raises(InputError, match=message) as error:
        run(write_submission(script), heldout)
    assert error.value.where.endswith("train_gpt.py")


@pytest.mark.slow
def test_forged_answers_are_refused(write_submission, heldout):
    """A script that finds the pipe can write what it likes to it, and gets no score for that."""
    script = LOAD + (
        "    import os, struct\n"
        '    text = b\'{"kind": "score", "nats": 1.0}\'\n'
        "    for number in range(3, 30):\n"
        "        try:\n"
        "            os.write(number, struct.pack('<II', len(text), 0) + text)\n"
        "        except OSError:\n"
        "            pass\n"
        "    os._exit(0)\n"
    )
    with pytest.raises(InputError, match="says None about its model"):
        run(write_submission(script), heldout)


def test_a_forged_score_does_not_count(write_submission, heldout, bigram_nats):
    """Softmax and sums made better in the script's process: they are made outside, from its logits."""
    cheat = "torch.nn.functional.cross_entropy = torch.Tensor.log_softmax = lambda *a, **k: torch.zeros(1)\n"
    result = run(write_submission(BIGRAM.replace("class Bigram", cheat + "class Bigram")), heldout)
    assert result.score.nats == pytest.approx(bigram_nats, rel=1e-6)


@pytest.mark.slow
def test_a_script_that_hangs_while_it_scores_is_ended(write_submission, heldout):
    with pytest.raises(LimitError, match="time limit of 6 s"):
        run(write_submission(BIGRAM.replace("return self.table[ids]", "while True: pass")), heldout, time_limit=6)


@pytest.mark.parametrize(
    "greedy",
    ["[bytes(10**8) for _ in range(40)]", "__import__('torch').ones(10**9)"],
)
@pytest.mark.slow
def test_memory_is_limited(write_submission, heldout, greedy):
    with pytest.raises(LimitError, match="asked for more memory than the limit of 2 GB; raise --memory-limit"):
        run(write_submission(f"{LOAD}    return {greedy}\n"), heldout, memory_limit=2 * 10**9)


def test_only_counted_files_are_there_and_neither_text_nor_environment(write_submission, heldout, monkeypatch):
    monkeypatch.setenv("EVAL_STRIDE", "8")
    look = (
        "import os, pathlib, sys\nhere = pathlib.Path(__file__).parent\n"
        "seen = sorted(p.name for p in here.parent.rglob('*') if p.is_file())\n"
        + LOAD
        + "    raise ValueError(seen, os.environ.get('EVAL_STRIDE'), sys.argv[1:], pathlib.Path.cwd() == here)\n"
    )
    folder = write_submission(look)
    (folder / "extra.npz").write_bytes(b"more weights")
    with pytest.raises(InputError, match=r"\['model.bin', 'train_gpt.py'\], None, \[\], True"):
        run(folder, heldout)


@pytest.mark.slow
def test_modules_of_the_folder_can_be_imported(write_submission, heldout, bigram_nats):
    script = "try:\n    import helper\nexcept ImportError:\n    raise SystemExit('no helper') from None\n"
    folder = write_submission(script + BIGRAM)  # inside `try`, so that packing does not refuse what is not there yet
    (folder / "helper.py").write_text("value = 1\n")
    assert run(folder, heldout).score.nats == pytest.approx(bigram_nats, rel=1e-6)


@pytest.mark.slow
def test_another_artifact_through_the_same_script(write_submission, heldout):
    subject = Submission.open(write_submission())
    zeros = encode({"table": np.zeros((300, 300), np.float32)}, {})
    score = reload(subject, zeros, heldout, SETTINGS).score
    assert score.loss == pytest.approx(np.log(300), rel=1e-6)


def test_attempts_are_told_even_when_they_are_caught(write_submission, heldout):
    script = (
        "import socket, subprocess, os\n"
        "def trying(what):\n"
        "    try:\n"
        "        what()\n"
        "    except OSError:\n"
        "        pass\n"
        "trying(lambda: socket.create_connection(('127.0.0.1', 9)))\n"
        "trying(lambda: subprocess.run(['true']))\n"
        "trying(lambda: open('/var/tmp/escaped', 'w'))\n"
        "open('own.log', 'w').close()\n"
    )
    result = run(write_submission(script + BIGRAM), heldout)
    assert len(result.attempts) == 4
    refused = check_attempts(replace(FACTS, packed=result))
    assert refused.level == "fail"
    assert refused.evidence == {"attempts": list(result.attempts)}
    assert "train_gpt.py line 7: used the network" in refused.message
    assert "train_gpt.py line 8: started a program (subprocess.Popen)" in refused.message
    assert "train_gpt.py line 9: tried to write to /var/tmp/escaped" in refused.message
    assert not os.path.exists("/var/tmp/escaped")


def test_a_pickle_is_not_opened(write_submission, heldout):
    """Neither by pickle nor by torch.load with weights_only=False."""
    evil = "import pickle, os\nclass Evil:\n    def __reduce__(self):\n        return os.mkdir, ('ran',)\n"
    by_pickle = evil + LOAD + "    pickle.loads(pickle.dumps(Evil()))\n"
    with pytest.raises(InputError, match=r"a pickle asks for \w+\.mkdir.*; the sandbox refused: train_gpt.py line 6"):
        run(write_submission(by_pickle), heldout)
    by_torch = "import torch\n" + evil + LOAD + "    torch.save(Evil(), 'x')\n    torch.load('x', weights_only=False)\n"
    with pytest.raises(InputError, match="UnpicklingError"):
        run(write_submission(by_torch), heldout)


def test_what_the_sandbox_lacks_cannot_be_unsaid(write_submission, heldout, monkeypatch):
    """A script that reaches the list before it is told empties it."""
    lacking = "import verify.sandbox.nursery as own; own.confine = lambda limits: ['everything']; own.main()"
    boot = nursery.BOOT.replace("from verify.sandbox.nursery import main; main()", lacking)
    assert lacking in boot
    monkeypatch.setattr(nursery, "BOOT", boot)
    monkeypatch.setattr(launch, "NURSERY", nursery.Nursery())
    forging = (
        "import sys\n"
        "frame = sys._getframe()\n"
        "while frame:\n"
        "    for found in list(frame.f_locals.values()):\n"
        "        if type(found) is list and found[:1] == ['everything']:\n"
        "            found.clear()\n"
        "    frame = frame.f_back\n"
    )
    result = run(write_submission(forging + BIGRAM), heldout)
    assert check_sandbox(replace(FACTS, packed=result)).evidence == {"missing": ["everything"]}


def test_nothing_is_left_of_folders_in_folders(write_submission, heldout, monkeypatch, tmp_path):
    """Deeper than Python's recursion: the process is ended, or scored if it was faster, and its folder is gone."""
    deep = "import os\nfor _ in range(1500):\n    os.mkdir('a')\n    os.chdir('a')\n"
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    with suppress(LimitError):
        run(write_submission(deep + BIGRAM), heldout)
    assert list((tmp_path / "tmp").iterdir()) == []


def test_settings():
    with pytest.raises(UsageError, match="stride 17 with windows of 16"):
        Settings(length=16, stride=17)
    assert Settings(stride=17).length is None
