"""`pgolf pack` and `pgolf inspect` as a user runs them, and the packed script run alone."""

import hashlib
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch

from codec import decode, ledger, read_meta
from codec.storage.checkpoint import write_checkpoint
from codec.storage.token_shards import open_shard
from tests.packager.conftest import checkpoint, data, recipe  # noqa: F401
from trainer import find_preset
from trainer.model.gpt import GPT, GPTConfig
from verify.scoring.score import total
from verify.scoring.sliding import Sliding
from verify.scoring.token_bytes import TokenBytes

LINE = re.compile(
    r"final_sliding_window_exact val_loss:(\d+\.\d{8}) val_bpb:(\d+\.\d{8}) tokens:(\d+) bytes:(\d+) "
    r"seq_len:\d+ stride:\d+ eval_time:\d+ms\n"
)


@pytest.fixture(scope="module")
def packed(pgolf_process, checkpoint, tmp_path_factory):  # noqa: F811
    """(submission folder, what --json said)."""
    folder = tmp_path_factory.mktemp("packed") / "submission"
    done = pgolf_process("pack", checkpoint, "--recipe", "pr162", "-o", folder, "--json")
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


def isolated(*arguments, cwd, **options):
    """`python -I ARGUMENTS`, on one thread and no GPU."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-I", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, **options)


def evaluate(folder, *arguments, cwd):
    return isolated(folder / "train_gpt.py", *arguments, cwd=cwd)


FORKS = """
import json, os, runpy, sys
import torch
for script, *arguments in json.load(sys.stdin):
    (out, said), (err, complained) = os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        os.dup2(said, 1)
        os.dup2(complained, 2)
        sys.argv = [script, *arguments]
        runpy.run_path(script, run_name="__main__")
        sys.exit()
    os.close(said)
    os.close(complained)
    words = [open(pipe).read() for pipe in (out, err)]
    print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), *words]), flush=True)
"""


def evaluate_each(commands, cwd):
    """The same for each (folder, *arguments) -> [(exit code, standard output, errors)], in forks of one process.

    It has imported torch, which takes each packed script 2 CPU seconds.
    """
    scripts = [[str(folder / "train_gpt.py"), *map(str, arguments)] for folder, *arguments in commands]
    done = isolated("-c", FORKS, cwd=cwd, input=json.dumps(scripts))
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_json_describes_the_folder(packed):
    folder, said = packed
    sizes = {"artifact_bytes", "code_bytes", "total_bytes", "cap_bytes"}
    assert said.keys() == {"submission", "recipe", "trains", "sha256", *sizes}
    assert said["trains"] is False  # its checkpoint does not say how it was trained
    assert said["artifact_bytes"] == (folder / "model.bin").stat().st_size
    assert said["code_bytes"] == (folder / "train_gpt.py").stat().st_size
    assert said["total_bytes"] == said["artifact_bytes"] + said["code_bytes"]
    assert (said["submission"], said["recipe"], said["cap_bytes"]) == (str(folder), "pr162", 16_000_000)
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        for part in (path.name.encode(), path.read_bytes()):
            digest.update(len(part).to_bytes(8, "little") + part)
    assert said["sha256"] == digest.hexdigest()


@pytest.mark.slow
def test_hash_seed_threads_and_folder_do_not_matter(pgolf_process, checkpoint, recipe, tmp_path, monkeypatch):  # noqa: F811
    """The recipe quantizes the matrices, so levels are fitted and coded too."""
    said = []
    for seed, threads in (("0", "1"), ("4711", "2")):
        monkeypatch.setenv("PYTHONHASHSEED", seed)
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        (tmp_path / seed).mkdir()
        done = pgolf_process("pack", checkpoint, "--recipe", recipe, "-o", "here", "--json", cwd=tmp_path / seed)
        said.append(json.loads(done.stdout))
    assert ledger((tmp_path / "0" / "here" / "model.bin").read_bytes()).level_bytes > 50_000
    assert said[0] == said[1]


def test_the_reference_script_fits_its_budget(packed):
    assert packed[1]["code_bytes"] < 16_000  # 15,994 with seven systems and the trellis; published ones have 8 to 64 kB


def test_the_packed_script_scores_as_verify_does(packed, data, tmp_path):  # noqa: F811
    folder, _ = packed
    options = ("--stride", 5, "--batch", 3, "--limit-tokens", 100)
    done = evaluate(folder, "--eval", "--data", data, *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    blob = (folder / "model.bin").read_bytes()
    torch.set_num_threads(1)
    model = GPT(GPTConfig.from_dict(read_meta(blob)["config"])).eval()
    model.load_state_dict({name: torch.tensor(array) for name, array in decode(blob).items()})
    tokens = np.asarray(open_shard(data / "tiny_val_000000.bin"))[:101]
    token_bytes = TokenBytes.from_tokenizer(data / "tiny.model").of(tokens)
    scorer = Sliding(model=model, vocab_size=model.config.vocab_size, length=32, stride=5)
    score = total(scorer, tokens, token_bytes, batch=3)
    partial, line = done.stdout.splitlines(keepends=True)
    assert re.fullmatch(r"PARTIAL SCORE: the first 100 of \d+ targets\n", partial)
    assert LINE.fullmatch(line).groups() == (
        f"{score.loss:.8f}",
        f"{score.bpb:.8f}",
        str(score.tokens),
        str(score.bytes),
    )
    assert score.tokens == 100


def test_the_packed_script_refuses_in_one_line(packed, data, tmp_path):  # noqa: F811
    folder, _ = packed
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "train_gpt.py").write_bytes((folder / "train_gpt.py").read_bytes())
    (broken / "model.bin").write_bytes((folder / "model.bin").read_bytes()[:-7])
    other = tmp_path / "other.model"
    other.write_bytes((data / "tiny.model").read_bytes() + b"\x12\x00")  # an empty field: same pieces, other file
    cases = [
        (broken, (), 3, "model.bin: has "),
        (folder, ("--stride", 64), 2, "stride 64 with windows of 32 tokens"),
        (folder, ("--stride", 0), 2, "stride 0 with windows of 32 tokens"),
        (folder, ("--device", "cuda"), 4, "no CUDA device is available"),
        (folder, ("--stride", 8, "--tokenizer", other), 3, "not the tokenizer"),
    ]
    commands = [(where, "--eval", "--data", data, *arguments) for where, arguments, _, _ in cases]
    for (_, _, code, message), done in zip(cases, evaluate_each(commands, tmp_path), strict=True):
        returned, out, err = done
        assert (returned, out) == (code, ""), err
        assert err.startswith("Error: "), err
        assert message in err
        assert err.count("\n") == 1


def test_the_default_stride_fits_short_windows(packed, data, tmp_path):  # noqa: F811
    commands = [(packed[0], "--eval", "--data", data, *stride) for stride in ((), ("--stride", 32))]
    said = [LINE.fullmatch(out).groups() for _, out, _ in evaluate_each(commands, tmp_path)]
    assert said[0] == said[1]


def test_dry_run_and_cap(pgolf, packed, checkpoint, tmp_path):  # noqa: F811
    plan = pgolf("pack", checkpoint, "--recipe", "pr162", "--dry-run", "--json", cwd=tmp_path)
    assert json.loads(plan.stdout) == {**packed[1], "submission": None}
    over = pgolf("pack", checkpoint, "--recipe", "pr162", "-o", "out", "--cap", 20_000, cwd=tmp_path)
    assert over.returncode == 1
    assert f"{packed[1]['total_bytes'] - 20_000:,} over the cap of 20,000" in over.stderr
    assert "tok_emb.weight" in over.stderr
    assert "Traceback" not in over.stderr
    assert not list(tmp_path.iterdir())


def test_wrong_inputs_get_one_line(pgolf, checkpoint, tmp_path):  # noqa: F811
    (tmp_path / "empty").touch()
    (tmp_path / "text").write_text("hello")
    for arguments, code, message in [
        (("pack", "missing", "--recipe", "pr162", "-o", "out"), 3, "missing: no such file"),
        (("pack", "empty", "--recipe", "pr162", "-o", "out"), 3, "empty: is empty"),
        (("pack", "text", "--recipe", "pr162", "-o", "out"), 3, "text: is not a safetensors or llama2.c checkpoint"),
        (("pack", checkpoint, "--recipe", "pr16", "-o", "out"), 2, "did you mean"),
        (("pack", checkpoint, "--recipe", "pr162"), 2, "'--output'"),
        (("inspect", "missing"), 3, "missing: no such file"),
        (("inspect", "empty"), 3, "empty: is empty"),
    ]:
        done = pgolf(*arguments, cwd=tmp_path)
        assert done.returncode == code, (arguments, done.stderr)
        assert message in done.stderr
        assert done.stderr.startswith("Error: ")
        assert done.stderr.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"empty", "text"}


def test_inspect_and_unwrap(pgolf, pgolf_process, packed, tmp_path):
    folder, said = packed
    done = pgolf_process("inspect", folder, "--unwrap", tmp_path / "sources", "--json")
    found = json.loads(done.stdout)
    assert found["code"]["bytes"] == said["code_bytes"]
    assert found["artifact"]["artifact_bytes"] == said["artifact_bytes"]
    written = {
        str(path.relative_to(tmp_path / "sources")): path.stat().st_size
        for path in (tmp_path / "sources").rglob("*.py")
    }
    assert {"codec/decoder.py", "verify/scoring/sliding.py", "train_gpt.py"} <= written.keys()
    assert sorted(written.values()) == sorted(module["bytes"] for module in found["code"]["modules"])
    # The unwrapped sources are the program: they run as a plain tree.
    plain = subprocess.run(
        [sys.executable, str(tmp_path / "sources" / "train_gpt.py"), "--help"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "--limit-tokens" in plain.stdout
    table = pgolf("inspect", folder / "model.bin").stdout
    assert "tok_emb.weight" in table
    kinds = re.search(r"^bytes of the tensors: (.*)$", table, re.MULTILINE)[1]
    parts = [int(number.replace(",", "")) for number in re.findall(r"[a-z]+ ([\d,]+)", kinds)]
    rows = found["artifact"]["tensors"]
    assert sum(parts) == pytest.approx(sum(row["bytes"] for row in rows), abs=len(parts))
    again = pgolf("inspect", folder / "train_gpt.py", "--unwrap", tmp_path / "sources")
    assert again.returncode == 2
    nothing = pgolf("inspect", folder / "model.bin", "--unwrap", tmp_path / "no")
    assert nothing.returncode == 2
    assert "nothing to unwrap" in nothing.stderr


def test_inspect_names_a_damaged_file(pgolf, packed, tmp_path):
    folder, _ = packed
    for name in ("model.bin", "train_gpt.py"):
        damaged = bytearray((folder / name).read_bytes())
        damaged[len(damaged) // 2] ^= 4
        (tmp_path / name).write_bytes(damaged)
        done = pgolf("inspect", name, cwd=tmp_path)
        assert done.returncode == 3
        assert done.stderr.startswith(f"Error: {name}: ")
        assert done.stderr.count("\n") == 1


def test_the_script_trains_what_a_preset_says(pgolf, tmp_path):
    """Of a checkpoint that does not say how it was trained; the preset must be of its model."""
    model = GPT(find_preset("tiny").model)
    arrays = {name: value.numpy() for name, value in model.state_dict().items()}
    write_checkpoint(tmp_path / "tiny.safetensors", arrays, {"config": model.config.to_dict()})
    pack = ("pack", "tiny.safetensors", "--recipe", "pr162-small", "--dry-run", "--json")
    said = [json.loads(pgolf(*pack, *more, cwd=tmp_path).stdout) for more in ((), ("--preset", "tiny"))]
    assert [each["trains"] for each in said] == [False, True]
    assert said[1]["code_bytes"] > 4 * said[0]["code_bytes"]
    other = pgolf(*pack, "--preset", "cpu-demo", cwd=tmp_path)
    assert other.returncode == 2
    assert "preset cpu-demo is not of this checkpoint's model; name the preset that it was trained by" in other.stderr
    for more in (("--eval-only", "--preset", "tiny"), ("--write-recipe", "r.toml"), ("--margin", 3)):
        assert pgolf(*pack, *more, cwd=tmp_path).returncode == 2
