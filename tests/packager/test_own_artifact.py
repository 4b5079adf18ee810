"""A folder around somebody's own artifact, and the refusals that keep the two kinds of artifact apart."""

import hashlib
import json

import numpy as np
import pytest

from codec import encode

SCRIPT = """\
import zlib
import helper
from pathlib import Path
VOCAB_SIZE = 1024
if __name__ == "__main__":
    print(helper.name(), len(zlib.decompress(Path(__file__).with_name("final_model.int6.ptz").read_bytes())))
"""
OURS = "from codec.decoder import decode\ndef load(path, device='cpu'):\n    return decode(open(path, 'rb').read())\n"


@pytest.fixture
def work(tmp_path):
    (tmp_path / "mine.py").write_text(SCRIPT)
    (tmp_path / "ours.py").write_text(OURS)
    (tmp_path / "helper.py").write_text("def name():\n    return 'helped'\n")
    (tmp_path / "final_model.int6.ptz").write_bytes(bytes(1000))
    (tmp_path / "pga1.bin").write_bytes(encode({"x": np.arange(4, dtype=np.float32)}, {}))
    return tmp_path


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_folder_states_only_what_is_known(pgolf, work):
    options = ("--script", "mine.py", "--artifact", "final_model.int6.ptz", "--author", "A. Üser")
    done = pgolf("pack", *options, "-o", "out", "--json", cwd=work)
    assert done.returncode == 0, done.stderr
    files, said = contents(work / "out"), json.loads(done.stdout)
    assert set(files) == {"train_gpt.py", "final_model.int6.ptz", "requirements.txt", "submission.json", "README.md"}
    assert files["final_model.int6.ptz"] == bytes(1000)
    record = json.loads(files["submission.json"])
    code = files["train_gpt.py"]
    assert (record["bytes_code"], record["bytes_model"]) == (len(code), 1000)
    assert said["total_bytes"] == record["bytes_total"] == len(code) + 1000
    assert record["artifact_sha256"] == hashlib.sha256(bytes(1000)).hexdigest()
    assert record["script_sha256"] == hashlib.sha256(code).hexdigest()
    assert (record["author"], record["val_bpb"]) == ("A. Üser", None)
    readme = files["README.md"].decode()
    assert f"{len(code):,}" in readme
    assert "--eval" not in readme
    assert files["requirements.txt"] == b""
    again = pgolf("pack", *options, "-o", "out", cwd=work)
    assert again.returncode == 0
    assert contents(work / "out") == files
    inspected = pgolf("inspect", "out", cwd=work)
    assert inspected.returncode == 0, inspected.stderr
    for words in ("helper", "packed together", "final_model.int6.ptz: 1,000 bytes", "also there: README.md"):
        assert words in inspected.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (
            ["--script", "mine.py", "--artifact", "pga1.bin"],
            3,
            "pga1.bin: is an artifact of this toolkit, and mine.py does",
        ),
        (["--script", "mine.py", "--artifact", "final_model.int6.ptz", "--cap", "900"], 1, "over the cap of 900"),
        (["--script", "mine.py", "--artifact", "missing.bin"], 3, "missing.bin: no such file"),
        (["--artifact", "pga1.bin"], 2, "--artifact goes with --script"),
        (
            ["x.safetensors", "--recipe", "pr162", "--script", "mine.py", "--artifact", "pga1.bin"],
            2,
            "--artifact goes without CHECKPOINT, --recipe: they are for a checkpoint",
        ),
        (
            ["--script", "mine.py", "--artifact", "pga1.bin", "--fit", "--eval-only"],
            2,
            "without --fit, --eval-only: they",
        ),
        (["--script", "mine.py"], 2, "Missing CHECKPOINT"),
        (
            ["--script", "mine.py", "--artifact-from", "printf weights > out", "--dry-run"],
            2,
            "--dry-run goes without --artifact-from",
        ),
        (["--script", "mine.py", "--artifact-from", "exit 3"], 3, "ended with exit code 3"),
        (["--script", "mine.py", "--artifact-from", "true"], 3, "wrote 0 new files (none)"),
        (["--script", "mine.py", "--artifact-from", "touch a b"], 3, "wrote 2 new files (a, b)"),
        (
            ["--script", "mine.py", "--artifact", "pga1.bin", "--artifact-from", "true"],
            3,
            "pga1.bin: was not written by the command",
        ),
    ],
)
def test_refusals_are_one_sentence_and_leave_nothing(pgolf, work, arguments, code, message):
    done = pgolf("pack", *arguments, "-o", "out", cwd=work)
    assert (done.returncode, done.stdout) == (code, "")
    assert message in done.stderr
    assert not (work / "out").exists()


def test_our_artifact_goes_with_a_script_that_reads_it(pgolf, work):
    done = pgolf("pack", "--script", "ours.py", "--artifact", "pga1.bin", "-o", "out", cwd=work)
    assert done.returncode == 0, done.stderr
    assert (work / "out" / "requirements.txt").read_text().startswith("numpy==")


@pytest.mark.parametrize("named", [(), ("--artifact", "new.bin")])
def test_a_command_writes_the_artifact(pgolf_process, work, named):
    command = "echo noise; printf weights > new.bin"
    done = pgolf_process(
        "pack", "--script", "mine.py", *named, "--artifact-from", command, "-o", "out", "--json", cwd=work
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["artifact"] == "new.bin"
    assert (work / "out" / "new.bin").read_bytes() == b"weights"


def test_a_folder_of_something_else_is_kept(pgolf, work):
    (work / "out").mkdir()
    (work / "out" / "thesis.txt").write_text("x")
    done = pgolf("pack", "--script", "mine.py", "--artifact", "final_model.int6.ptz", "-o", "out", cwd=work)
    assert done.returncode == 2
    assert contents(work / "out") == {"thesis.txt": b"x"}


def test_inspect_weighs_whatever_it_is_given(pgolf, work):
    readable = pgolf("inspect", "mine.py", cwd=work)
    assert readable.returncode == 0, readable.stderr
    assert "helper" in readable.stdout
    assert readable.stdout.splitlines()[-1].split() == ["readable;", "of", "this", "file", str(len(SCRIPT))]
    (work / "blob.xyz").write_bytes(b"\x01\x02" * 50)
    unknown = pgolf("inspect", "blob.xyz", cwd=work)
    assert unknown.stdout == "100 bytes of no known format, beginning with 01 02 01 02 01 02 01 02\n"
    (work / "bare").mkdir()
    (work / "bare" / "train_gpt.py").write_text("print(1)\n")
    alone = pgolf("inspect", "bare", "--json", cwd=work)
    assert json.loads(alone.stdout)["code"] == {
        "bytes": 9,
        "packed": False,
        "modules": [{"name": "__main__", "bytes": 9}],
    }
    (work / "none").mkdir()
    assert "holds no train_gpt.py" in pgolf("inspect", "none", cwd=work).stderr
