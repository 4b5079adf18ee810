"""`pgolf new`: one file that trains, packs, loads again and scores, run as the challenge runs it."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

from codec import decode, read_meta
from codec.storage.checkpoint import read_checkpoint
from tests.conftest import ROOT
from tests.packager.conftest import TEXT
from trainer import find_preset
from trainer.presets.preset import Preset

SCORE = re.compile(
    r"^(final_\w+_exact) val_loss:(\S+) val_bpb:(\S+) tokens:(\d+) bytes:(\d+) seq_len:\d+ stride:\d+ eval_time:\d+ms$",
    re.M,
)
PYTHON = (sys.executable, "-I")
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Training and validation shards, and a tokenizer of about 300 pieces."""
    from trainer import build_dataset

    folder = tmp_path_factory.mktemp("new") / "data"
    build_dataset(
        (f"{number}: {TEXT}" * 4 for number in range(60)), folder, vocab_size=320, or_fewer=True, val_fraction=0.1
    )
    return folder


@pytest.fixture(scope="module")
def made(pgolf, tmp_path_factory):
    """(folder, what --json said) of `pgolf new tiny`."""
    folder = tmp_path_factory.mktemp("made") / "mine"
    done = pgolf("new", "tiny", "-o", folder, "--json")
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


def place(script, data, folder):
    """A folder that holds the script, the shards and the tokenizer, and nothing else."""
    folder.mkdir()
    shutil.copy(script, folder / "train_gpt.py")
    for path in data.iterdir():
        if path.suffix in (".bin", ".model"):
            shutil.copy(path, folder)
    return folder


def start(launcher, *arguments, cwd, **options):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [*launcher, "train_gpt.py", *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def run(launcher, *arguments, cwd):
    process = start(launcher, *arguments, cwd=cwd)
    out, err = process.communicate(timeout=200)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def losses(folder):
    return re.findall(r"^step:(\d+)/\d+ train_loss:(\S+)", (folder / "train.log").read_text(), re.M)


@pytest.fixture(scope="module")
def finished(made, data, tmp_path_factory):
    """(folder of a run by plain `python -I train_gpt.py`, what it printed)."""
    folder = place(made[0] / "train_gpt.py", data, tmp_path_factory.mktemp("finished") / "run")
    done = run(PYTHON, "--score", "sliding", "--score", "ttt", "--score", "slot", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_it_writes_the_file_and_its_source(made):
    folder, said = made
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files == {
        "train_gpt.py",
        "requirements.txt",
        "source/train_gpt.py",
        "source/preset.toml",
        "source/recipe.toml",
    }
    assert said["code_bytes"] == (folder / "train_gpt.py").stat().st_size
    assert {"trainer.run.loop", "codec.encoder", "verify.scoring.ttt"} <= set(said["modules"])
    assert Preset.parsed((folder / "source" / "preset.toml").read_text()) == find_preset("tiny")


@pytest.mark.slow
def test_dense_is_smaller(pgolf, made, tmp_path):
    done = pgolf("new", "tiny", "--form", "dense", "-o", tmp_path / "dense", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["code_bytes"] < 0.95 * made[1]["code_bytes"]


def test_settings_and_recipe_are_chosen(pgolf, tmp_path):
    done = pgolf("new", "pr1716", "-o", "a", "--set", "mlp_hidden=1792", "--set", "reserve_seconds=0", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "note: recipe pr1716 calibrates after the last step, for which preset pr1716 keeps no time" in done.stderr
    preset = Preset.parsed((tmp_path / "a/source/preset.toml").read_text())
    assert (preset.model.mlp_hidden, preset.train.reserve_seconds) == (1792, 0.0)
    assert 'name = "pr1716"' in (tmp_path / "a/source/recipe.toml").read_text()
    for arguments, words in (
        (("new", "tin", "-o", "b"), "did you mean `tiny`?"),
        (("new", "tiny", "-o", "b", "--recipe", "pr16"), "did you mean"),
        (("new", "tiny", "-o", "b", "--set", "dim=-1"), "a whole number of at least 0"),
        (("new", "tiny", "-o", "."), "choose another"),
        (
            ("new", "tiny", "-o", "b", "--recipe", "pr339", "--set", "qat_below=0.1", "--set", "qat_recipe=pr162"),
            "preset tiny trains through recipe pr162, the script would pack by pr339",
        ),
    ):
        done = pgolf(*arguments, cwd=tmp_path)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert words in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"a"}
    assert pgolf("new", "tiny", "-o", "a", cwd=tmp_path).returncode == 2  # what was edited there is not lost


def test_a_plain_process_trains_packs_and_scores(finished):
    folder, said = finished
    log = (folder / "train.log").read_text()
    assert said == log
    artifact, script = (folder / "model.bin").stat().st_size, (folder / "train_gpt.py").stat().st_size
    for line in (
        f"Serialized model PGA1: {artifact} bytes",
        f"Code size: {script} bytes",
        f"Total submission size PGA1: {artifact + script} bytes",
    ):
        assert f"\n{line}\n" in log
    assert [label for label, *_ in SCORE.findall(log)] == [
        "final_sliding_window_exact",
        "final_score_first_ttt_exact",
        "final_context_slot_exact",
    ]


def test_the_artifact_is_what_pack_makes(finished, pgolf, tmp_path):
    folder, _ = finished
    done = pgolf("pack", folder / "checkpoint.safetensors", "--recipe", "pr162-small", "-o", tmp_path / "packed")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "packed/model.bin").read_bytes() == (folder / "model.bin").read_bytes()
    sources = [tmp_path / name for name in ("ours", "theirs")]
    for source, place in zip(sources, (folder, tmp_path / "packed"), strict=True):
        assert pgolf("inspect", place / "train_gpt.py", "--unwrap", source).returncode == 0
    ours, theirs = (
        {path.relative_to(source).as_posix(): path.read_text() for path in source.rglob("*.py")} for source in sources
    )
    # The vocabulary is the tokenizer's, which the preset did not know.
    assert {name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)} == {"train_gpt.py"}
    assert "left out" in done.stderr  # the log, which states the size of the other script


@pytest.mark.slow
def test_its_scores_are_those_of_verify(finished, pgolf, data, tmp_path):
    folder, said = finished
    shutil.copytree(folder, tmp_path / "sub", ignore=shutil.ignore_patterns("*.bin.*", "text_*", "*.model", "*.jsonl"))
    extra = [part for name in ("checkpoint.safetensors", "state.safetensors") for part in ("--extra", name)]
    done = pgolf("verify", tmp_path / "sub", "--data", data, "--score", "ttt", "--score", "slot", *extra, "--json")
    report = json.loads(done.stdout)
    assert [each["level"] for each in report["findings"] if each["rule"].startswith("triage.")] == ["pass"]
    verified = report["scores"]
    found = SCORE.findall(said)
    assert [float(bpb) for _, _, bpb, _, _ in found] == pytest.approx([each["bpb"] for each in verified], abs=5e-7)
    assert [(int(tokens), int(size)) for *_, tokens, size in found] == [(e["tokens"], e["bytes"]) for e in verified]


def test_compare_reads_its_log(finished, pgolf):
    done = pgolf("compare", finished[0] / "train.log", "--json")
    [found] = json.loads(done.stdout)["runs"]
    log = (finished[0] / "train.log").read_text()
    assert (found["seed"], found["label"]) == (0, "final_score_first_ttt_exact")
    assert found["code_bytes"] == (finished[0] / "train_gpt.py").stat().st_size
    assert found["model_bytes"] == (finished[0] / "model.bin").stat().st_size
    assert found["total_bytes"] == found["code_bytes"] + found["model_bytes"]
    assert all(found[name] is not None for name in ("loss", "train_seconds", "eval_seconds"))
    assert [each["label"] for each in found["refused"]] == ["final_context_slot_exact"]
    for fact in ("val_tokens:", "eval_seq_len:32", "eval_stride:32", "recipe:pr162-small", "phase_times train:"):
        assert f"\n{fact}" in log


@pytest.mark.slow
def test_started_again_it_ends_alike(finished, tmp_path):
    folder, said = finished
    shutil.copytree(folder, tmp_path / "again")
    before = (tmp_path / "again/model.bin").read_bytes()
    (tmp_path / "again/model.bin").unlink()
    done = run(PYTHON, "--seed", 0, "--stride", 32, cwd=tmp_path / "again")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "again/model.bin").read_bytes() == before
    log = (tmp_path / "again/train.log").read_text()
    assert log.count("source sha256:") == 2  # by which program it went on
    assert log.count("Total submission size") == log.count("final_sliding_window_exact") == 1
    assert SCORE.findall(done.stdout)[0][:3] == SCORE.findall(said)[0][:3]
    other = run(PYTHON, "--stride", 8, cwd=tmp_path / "again")
    assert " seq_len:32 stride:8 " in other.stdout.splitlines()[-1]
    assert SCORE.findall(other.stdout)[0][2] != SCORE.findall(said)[0][2]


def test_an_artifact_is_scored_and_a_checkpoint_packed_without_training(finished, data, tmp_path):
    folder, said = finished
    (tmp_path / "sub").mkdir()
    for name in ("train_gpt.py", "model.bin"):
        shutil.copy(folder / name, tmp_path / "sub")
    (tmp_path / "sub").chmod(0o555)
    done = run(PYTHON, "--eval", "--data", data, cwd=tmp_path / "sub")
    (tmp_path / "sub").chmod(0o755)
    assert (done.returncode, SCORE.findall(done.stdout)) == (0, SCORE.findall(said)[:1]), done.stderr
    assert {path.name for path in (tmp_path / "sub").iterdir()} == {"train_gpt.py", "model.bin"}
    (tmp_path / "sub/model.bin").unlink()
    done = run(PYTHON, "--eval", "--limit-tokens", 50, "--data", data, "--output", folder, cwd=tmp_path / "sub")
    assert done.stdout.startswith("PARTIAL SCORE: the first 50 of ")
    done = run(PYTHON, "--pack", folder / "checkpoint.safetensors", "--data", data, cwd=tmp_path / "sub")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "sub/model.bin").read_bytes() == (folder / "model.bin").read_bytes()


def test_what_it_cannot_do_is_one_sentence(made, finished, data, tmp_path):
    shutil.copy(made[0] / "train_gpt.py", tmp_path)
    other = tmp_path / "other.model"
    [tokenizer] = data.glob("*.model")
    other.write_bytes(tokenizer.read_bytes() + b"\x12\x00")  # an empty field: same pieces, other file
    shutil.copy(finished[0] / "model.bin", tmp_path)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/train_gpt.py").write_text("print('mine')\n")
    for arguments, code, words in (
        (("--data", data, "--output", "elsewhere"), 2, "elsewhere/train_gpt.py: is another script than the one that"),
        ((), 3, "no *_train_*.bin in data, data/datasets/*, .; name the folder of the shards: --data DIR"),
        (("--eval", "--data", data, "--tokenizer", other), 3, "is not the tokenizer the model was trained with"),
        (("--eval", "--data", data, "--output", "nowhere"), 3, "nowhere/model.bin: no such file"),
    ):
        done = run(PYTHON, *arguments, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (code, ""), done.stderr
        assert done.stderr.startswith("Error: ")
        assert words in done.stderr
        assert done.stderr.count("\n") == 1


def test_the_source_runs_as_it_is(made, data, tmp_path):
    """Edited in place, with the toolkit installed, before it is wrapped."""
    shutil.copytree(made[0] / "source", tmp_path / "source")
    preset = tmp_path / "source/preset.toml"
    preset.write_text(preset.read_text().replace("steps = 40", "steps = 2").replace('name = "tiny"', 'name = "mine"'))
    recipe = tmp_path / "source/recipe.toml"
    recipe.write_text('version = 1\nname = "eight"\nabout = ""\ncoder = "zstd-22"\n[[rules]]\ntreatment = "int8"\n')
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(tmp_path / "source/train_gpt.py"), "--data", str(data), "--output", "out"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out/train_gpt.py").read_bytes() == (tmp_path / "source/train_gpt.py").read_bytes()
    assert read_meta((tmp_path / "out/model.bin").read_bytes())["recipe"] == "eight"
    notes = read_checkpoint(tmp_path / "out/checkpoint.safetensors")[1]
    assert (notes["preset"], notes["steps"]) == ("mine", 2)


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["tiny", "cpu-demo"])
def test_two_processes_share_everything(pgolf, data, tmp_path, preset):
    """In an empty folder with script, shards and tokenizer; Hessians included, for a recipe that wants them."""
    recipe = tmp_path / "gptq.toml"
    recipe.write_text(
        'version = 1\nname = "mine"\nabout = ""\ncoder = "zstd-22"\n[[rules]]\nmax_weights = 500\n'
        'treatment = "float16"\n[[rules]]\nnames = ["*embed*"]\ntreatment = "int8"\n'
        '[[rules]]\ntreatment = "int6"\nstep = "std"\nk = 12.85\ngptq = true\n'
    )
    shorter = ("--set", "steps=12") if preset == "cpu-demo" else ()
    assert pgolf("new", preset, "--recipe", recipe, *shorter, "-o", tmp_path / "new").returncode == 0
    folder = place(tmp_path / "new/train_gpt.py", data, tmp_path / "run")
    done = run(TORCHRUN, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout == (folder / "train.log").read_text()
    assert "\nphase_times calibrate:" in done.stdout
    assert " world_size:2 " in done.stdout
    packed = pgolf(
        *("pack", folder / "checkpoint.safetensors", "--recipe", recipe, "--eval-only"),
        *("--hessians", folder / "calibration.safetensors", "-o", tmp_path / "packed"),
    )
    assert packed.returncode == 0, packed.stderr
    assert (tmp_path / "packed/model.bin").read_bytes() == (folder / "model.bin").read_bytes()
    report = json.loads(pgolf("verify", tmp_path / "packed", "--data", data, "--json").stdout)
    assert float(SCORE.findall(done.stdout)[-1][2]) == pytest.approx(report["scores"][0]["bpb"], abs=5e-7)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [PYTHON, TORCHRUN])
def test_killed_in_the_middle_it_goes_on(pgolf, data, tmp_path, launcher):
    assert pgolf("new", "tiny", "--set", "steps=60", "-o", tmp_path / "new").returncode == 0
    folders = [place(tmp_path / "new/train_gpt.py", data, tmp_path / name) for name in ("whole", "killed")]
    whole = run(launcher, cwd=folders[0])
    assert whole.returncode == 0, whole.stderr
    process = start(launcher, cwd=folders[1], start_new_session=True)
    deadline = time.monotonic() + 60
    while not (folders[1] / "state.safetensors").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    assert not (folders[1] / "model.bin").exists()
    done = run(launcher, cwd=folders[1])
    assert done.returncode == 0, done.stderr
    assert "resumed_step:" in (folders[1] / "train.log").read_text()
    assert losses(folders[1]) == losses(folders[0])
    assert (folders[1] / "model.bin").read_bytes() == (folders[0] / "model.bin").read_bytes()
    assert decode((folders[1] / "model.bin").read_bytes()).keys()
