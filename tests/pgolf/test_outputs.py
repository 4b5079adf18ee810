"""Outputs of all commands: places that cannot be written, folders of others, and signals that come in between."""

import json
import os
import shutil
import signal

import numpy as np
import pytest

from codec.storage.atomic_files import TEMPORARY
from codec.storage.token_shards import shard_bytes
from pgolf.__main__ import COMMANDS as EVERY
from pgolf.__main__ import main, root
from tests.packager.conftest import checkpoint, data  # noqa: F401
from verify.audit.gallery import audit_all
from verify.audit.gallery.exhibits import find_exhibit

COMMANDS = {
    "data": ("data", "text.txt", "--vocab-size", "300", "-o", "{}"),
    "pack": ("pack", "run/checkpoint.safetensors", "--recipe", "pr162", "-o", "{}"),
    "train": ("train", "tiny", "--data", "data", "--steps", "1", "-o", "{}"),
    "decode": ("decode", "packed", "-o", "{}"),
    "unpack": ("unpack", "packed", "-o", "{}"),
    "encode": ("encode", "run/checkpoint.safetensors", "--recipe", "pr162", "-o", "{}"),
    "calibrate": ("calibrate", "run/checkpoint.safetensors", "--data", "data", "-o", "{}"),
    "inspect": ("inspect", "packed", "--unwrap", "{}"),
    "demo": ("demo", "--text", "text.txt", "--steps", "1", "-o", "{}"),
    "measure": ("measure", "run/checkpoint.safetensors", "--plot", "{}.png"),
    "compare": ("compare", "seed.log", "--write", "{}"),
    "audit": ("audit", "--gallery", "-o", "{}"),
    "new": ("new", "tiny", "-o", "{}"),
    "wrap": ("wrap", "packed/train_gpt.py", "-o", "{}"),
    "report": ("report", "packed", "-o", "{}.html"),
    "record": ("record", "seed.log", "--script", "packed/train_gpt.py", "-o", "{}"),
}
WRITES_NOTHING = {"verify", "doctor"}  # of doctor --gpu see test_interrupts.py, as of the processes of all of them
RESUMED = ("train", "demo")  # an interrupted run keeps what it has: test_train.py, test_interrupts.py
FILES = ("decode", "unpack", "encode", "calibrate", "compare", "audit")  # what they write is one file
FOLDERS = ("data", "pack", "inspect", "record")


@pytest.fixture(scope="module")
def made(checkpoint, data, tmp_path_factory):  # noqa: F811
    """Folder with what the commands need."""
    folder = tmp_path_factory.mktemp("made")
    shutil.copytree(checkpoint.parent, folder / "run")
    shutil.copytree(data, folder / "data")
    (folder / "data" / "tiny_train_000000.bin").write_bytes(shard_bytes(np.arange(3000) % 300))
    story = "The {} wizards of {} boxed the {} lazy dogs, and nobody of them all knew why.\n\n"
    (folder / "text.txt").write_text("".join(story.format(i, i * 7 % 31, i * i) * 30 for i in range(60)))
    (folder / "seed.log").write_text("seed:1\nfinal_int8_zlib_roundtrip_exact val_loss:2.1 val_bpb:1.25000000\n")
    assert main(["pack", str(checkpoint), "--recipe", "pr162", "-o", str(folder / "packed")]) == 0
    return folder


@pytest.fixture
def here(made, tmp_path, monkeypatch):
    """A copy of that folder, and the current directory."""
    shutil.copytree(made, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def tree(folder):
    return {path: path.is_file() and path.read_bytes() for path in folder.rglob("*")}


def refused(capsys, command, place):
    """The exit code and the one sentence of a command that cannot write to `place`; nothing may change."""
    code = main([part.format(place) for part in COMMANDS[command]])
    out, err = capsys.readouterr()
    sentences = [line for line in err.splitlines() if not line.startswith("note: ")]
    assert len(sentences) == 1, err
    assert sentences[0].startswith("Error: ")
    assert out == ""
    return code, sentences[0]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("place", ["seed.log/x", "/proc/x"])
def test_a_place_that_cannot_be_written_is_one_sentence(here, capsys, monkeypatch, command, place):
    def long_work(*_, **__):
        pytest.fail("the output was not checked before long work")

    monkeypatch.setattr("trainer.calibration.calibrate", long_work)
    monkeypatch.setattr("packager.submission.plan_submission", long_work)
    monkeypatch.setattr("codec.model_file.encode_checkpoint", long_work)
    monkeypatch.setattr("codec.model_file.decode_checkpoint", long_work)
    monkeypatch.setattr("trainer.run.step.Stepper.build", long_work)
    monkeypatch.setattr("verify.audit.gallery.audit_all", long_work)
    before = tree(here)
    code, sentence = refused(capsys, command, place)
    assert code == 2
    assert place in sentence
    assert "cannot be written (" in sentence
    assert "choose another place" in sentence
    assert tree(here) == before


@pytest.mark.parametrize("command", FILES)
def test_a_folder_is_no_place_for_a_file(here, capsys, command):
    (here / "out").mkdir()
    code, sentence = refused(capsys, command, "out")
    assert (code, "out: cannot be written (Is a directory)" in sentence) == (2, True)
    assert list((here / "out").iterdir()) == []


@pytest.mark.parametrize("command", FOLDERS)
def test_a_link_is_written_through(here, capsys, command):
    (here / "disk").mkdir()
    (here / "link").symlink_to("disk/out")
    for _ in range(1 if command == "inspect" else 2):  # --unwrap replaces nothing
        assert main([part.format("link") for part in COMMANDS[command]]) == 0
    assert (here / "link").is_symlink()
    assert [path.name for path in (here / "disk").iterdir()] == ["out"]
    assert len(list((here / "disk" / "out").iterdir())) > 2


@pytest.mark.parametrize(
    ("command", "files"),
    [
        # A record of someone else, and a data folder of another tool.
        ("pack", ["README.md", "submission.json", "train.log", "train_gpt.py", "requirements.txt"]),
        ("pack", ["README.md", "submission.json", "train_gpt.py", "train_seed42.log", "model.bin", "ledger.json"]),
        ("data", ["data.json"]),
        ("data", ["data.json", "tokenizer.model", "text_train_000000.bin", "notes.txt"]),
    ],
)
def test_files_of_others_are_never_replaced(here, capsys, command, files):
    (here / "out").mkdir()
    for name in files:
        (here / "out" / name).write_text("{}")
    before = tree(here)
    code, sentence = refused(capsys, command, "out")
    assert (code, "out: exists and is not an earlier output of this command" in sentence) == (2, True)
    assert tree(here) == before


def test_whatever_else_the_system_refuses_is_one_sentence(here, capsys, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied", "some/file")

    monkeypatch.setattr("packager.submission.plan_submission", refuse)
    assert main([*COMMANDS["pack"][:-2], "--dry-run", "--json"]) == 3
    out, err = capsys.readouterr()
    assert err == "Error: some/file: the operating system says: Permission denied\n"
    assert json.loads(out)["error"]["where"] == "some/file"


def test_every_command_is_in_the_table():
    assert COMMANDS.keys() | WRITES_NOTHING == EVERY.keys()
    assert not COMMANDS.keys() & WRITES_NOTHING


@pytest.mark.parametrize("command", EVERY)
def test_every_command_prints_json(command):
    assert any("--json" in option.opts for option in root.get_command(None, command).params)


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in RESUMED])
def test_ctrl_c_at_the_last_moment_leaves_nothing_half_written(here, capsys, monkeypatch, command):
    """When all the work is done and the output is to take its name."""
    reached = []

    def interrupted(source, target, *_, **__):
        reached.append(str(target))
        raise KeyboardInterrupt

    before = tree(here)
    monkeypatch.setattr("os.replace", interrupted)
    monkeypatch.setattr("os.rename", interrupted)
    one = [find_exhibit("sliding")]  # all of them take a minute
    monkeypatch.setattr("verify.audit.gallery.audit_all", lambda progress: audit_all(one))
    code = main([part.format("out") for part in COMMANDS[command]])
    assert (code, capsys.readouterr().err.splitlines()[-1]) == (130, "Error: interrupted")
    assert any("out" in target for target in reached)
    assert tree(here) == before


def test_sigterm_ends_a_command_like_ctrl_c(here, capsys, monkeypatch):
    handler = signal.getsignal(signal.SIGTERM)
    seen = []

    def terminated(*_):
        seen.extend(path.name for path in here.iterdir() if TEMPORARY in path.name)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("packager.submission.plan_submission", terminated)
    before = tree(here)
    assert main([part.format("out") for part in COMMANDS["pack"]]) == 130
    assert capsys.readouterr().err.strip() == "Error: interrupted"
    assert len(seen) == 1
    assert tree(here) == before
    assert signal.getsignal(signal.SIGTERM) is handler
