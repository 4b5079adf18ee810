"""Several processes train one model: the real torchrun command on two CPU ranks, against one process."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing

import trainer.compute.ranks
from codec.errors import EnvironmentLacks, UsageError
from codec.storage.checkpoint import read_checkpoint
from tests.conftest import ROOT
from tests.trainer.runs import TINY, metrics, weights
from trainer.compute.ranks import RankLost, Ranks
from trainer.data.dataset import build_dataset
from trainer.run.loop import train

STEPS = 120


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    random = np.random.default_rng(0)
    words = ["".join(random.choice(list("abcdefghijklmnop"), 4)) for _ in range(20)]
    folder = tmp_path_factory.mktemp("data") / "data"
    build_dataset([" ".join(random.choice(words, 60)) for _ in range(200)], folder, vocab_size=300, val_fraction=0.1)
    return folder


@pytest.fixture(scope="module")
def command(data):
    """What follows `python -m pgolf`, without the output folder."""
    options = ("--steps", STEPS, "--seed", 1, "--threads", 1, "--device", "cpu", "--limit-tokens", 300, "--json")
    return [str(part) for part in ("train", "tiny", "--data", data, *options, "-o")]


@pytest.fixture(scope="module")
def alone(pgolf, command, tmp_path_factory):
    """Folder of the same run in one process."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    done = pgolf(*command, folder)
    assert done.returncode == 0, done.stderr
    return folder


def torchrun(*arguments, ranks=2, program=("-m", "pgolf")):
    """torchrun on a free port, started but not waited for."""
    launcher = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc_per_node={ranks}",
        *program,
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([*launcher, *map(str, arguments)], env=environment, **pipes)


def until_saved(process, folder):
    deadline = time.monotonic() + 120
    while not (folder / "state.safetensors").exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.005)


def process_of_rank(launcher, rank):
    """Process id of torchrun's child of that rank."""
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    (found,) = [pid for pid in children if f"RANK={rank}" in Path(f"/proc/{pid}/environ").read_text().split("\0")]
    return int(found)


def said(errors):
    """The lines that pgolf wrote; torchrun adds its own report."""
    return [line for line in errors.splitlines() if line.startswith(("Error: ", "Traceback")) or "stopped;" in line]


def losses(folder):
    return [row.get("train_loss", row.get("val_loss")) for row in metrics(folder)]


def test_two_ranks_follow_one(command, alone, tmp_path):
    process = torchrun(*command, tmp_path / "run")
    output, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    assert errors == ""
    assert json.loads(output)["steps"] == STEPS
    assert " world_size:2 grad_accum_steps:1 " in (tmp_path / "run" / "train.log").read_text()
    assert len(losses(tmp_path / "run")) == STEPS // 10 + 1
    assert losses(tmp_path / "run") == pytest.approx(losses(alone), abs=1e-3)
    ours, theirs = weights(tmp_path / "run"), weights(alone)
    difference = np.concatenate([(ours[name] - theirs[name]).ravel() for name in theirs])
    assert np.abs(difference).mean() < 1e-3 * np.abs(np.concatenate([w.ravel() for w in theirs.values()])).mean()


@pytest.mark.slow
def test_a_killed_rank_ends_the_run_and_one_process_goes_on(pgolf, command, alone, tmp_path):
    process = torchrun(*command, tmp_path)
    until_saved(process, tmp_path)
    os.kill(process_of_rank(process, 1), signal.SIGKILL)
    output, errors = process.communicate(timeout=120)
    assert process.returncode != 0
    assert json.loads(output)["error"]["kind"] == "RankLost"
    (error,) = [line for line in said(errors) if line.startswith("Error")]
    assert error.startswith("Error: another process of this run ended or does not answer (")
    assert error.endswith("started again (`pgolf train` with --resume) it goes on from its last saved state")
    assert not (tmp_path / "checkpoint.safetensors").exists()
    assert read_checkpoint(tmp_path / "state.safetensors")[1]["step"] % 10 == 0
    done = pgolf(*command, tmp_path, "--resume")
    assert done.returncode == 0, done.stderr
    assert losses(tmp_path) == pytest.approx(losses(alone), abs=1e-3)
    log = (tmp_path / "train.log").read_text()
    assert log.index(" world_size:2 ") < log.index("resumed_step:") < log.index(" world_size:1 ")


@pytest.mark.slow
def test_one_of_those_left_speaks_of_a_killed_rank(command, tmp_path):
    process = torchrun(*command, tmp_path, ranks=4)
    until_saved(process, tmp_path)
    os.kill(process_of_rank(process, 1), signal.SIGKILL)
    output, errors = process.communicate(timeout=120)
    assert json.loads(output)["error"]["kind"] == "RankLost"  # a second object would be no JSON
    (error,) = [line for line in said(errors) if line.startswith("Error")]
    assert error.startswith("Error: another process of this run ended or does not answer (")


SLOW_SAVING = """
import sys, time
import trainer.run.loop
from pgolf.__main__ import main

def slow(path, state, position, identity, save=trainer.run.loop.save_state):
    print("saving step", position.step, file=sys.stderr, flush=True)
    time.sleep(1.5)
    save(path, state, position, identity)

trainer.run.loop.save_state = slow
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_signal_to_one_rank_does_not_lose_the_step_it_meets(command, tmp_path):
    """torchrun ends all processes as soon as one has ended, also while the first one saves."""
    (tmp_path / "program.py").write_text(SLOW_SAVING)
    process = torchrun(*command, tmp_path / "run", program=[tmp_path / "program.py"])
    until_saved(process, tmp_path / "run")
    os.kill(process_of_rank(process, 0), signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    saving = [int(line.split()[2]) for line in errors.splitlines() if line.startswith("saving step ")]
    assert read_checkpoint(tmp_path / "run" / "state.safetensors")[1]["step"] == saving[-1] < STEPS
    assert [line for line in said(errors) if not line.startswith("Traceback")] == [  # torchrun's own
        f"{tmp_path / 'run'}: stopped; add --resume to the same command to go on",
        "Error: interrupted",
    ]


@pytest.mark.slow
def test_a_signal_stops_all_ranks_at_one_step(command, alone, tmp_path):
    process = torchrun(*command, tmp_path)
    until_saved(process, tmp_path)
    process.terminate()
    _, errors = process.communicate(timeout=120)
    assert process.returncode != 0
    assert [line for line in said(errors) if "stopped;" in line] == [
        f"{tmp_path}: stopped; add --resume to the same command to go on"
    ]
    assert not (tmp_path / "checkpoint.safetensors").exists()
    again = torchrun(*command, tmp_path, "--resume")
    _, errors = again.communicate(timeout=240)
    assert again.returncode == 0, errors
    assert losses(tmp_path) == pytest.approx(losses(alone), abs=1e-3)


LATE = """
import os, sys, time
rank, seconds = sys.argv[1:3]
time.sleep(float(seconds) if os.environ["RANK"] == rank else 0)
from pgolf.__main__ import main
sys.exit(main(sys.argv[3:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("rank", "seconds"), [(1, 0), (1, 0.3), (1, 1), (1, 30), (0, 3)])
def test_what_all_ranks_find_is_said_once(command, alone, tmp_path, rank, seconds):
    """Wherever the others are when the first has said it and torchrun ends them, and when they have to wait for it."""
    (tmp_path / "program.py").write_text(LATE)
    process = torchrun(rank, seconds, *command, alone, program=[tmp_path / "program.py"])
    _, errors = process.communicate(timeout=120)
    assert process.returncode != 0
    assert [line for line in said(errors) if line.startswith("Error")] == [
        f"Error: {alone}: holds a finished run; choose another folder"
    ]


def test_ranks_must_divide_a_step(data, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(UsageError, match="a step has 8 sequences, 3 processes cannot share them equally"):
        train(TINY, data, tmp_path / "run", evaluate=lambda model: (0.0, 0.0))
    assert not (tmp_path / "run").exists()


def test_what_torchrun_says_is_read(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert Ranks.launched() == Ranks(rank=0, world=1, local=0)
    for name, value in (("RANK", "11"), ("WORLD_SIZE", "16"), ("LOCAL_RANK", "3")):
        monkeypatch.setenv(name, value)
    assert Ranks.launched() == Ranks(rank=11, world=16, local=3)
    assert not Ranks.launched().first
    for name, value, words in (
        ("WORLD_SIZE", "abc", "WORLD_SIZE is `abc` in the environment, not a number; start with torchrun, or unset it"),
        ("LOCAL_RANK", "-1", "LOCAL_RANK is `-1`"),
        ("WORLD_SIZE", "11", "the environment says RANK 11, but WORLD_SIZE 11"),
        ("WORLD_SIZE", "", "the environment says RANK 11, but WORLD_SIZE 0"),
    ):
        with monkeypatch.context() as changed:
            changed.setenv(name, value)
            with pytest.raises(UsageError, match=words):
                Ranks.launched()


def test_processes_that_cannot_find_each_other_are_told(monkeypatch):
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with (
        pytest.raises(EnvironmentLacks, match=r"WORLD_SIZE says 2 processes.*start them with torchrun"),
        Ranks(rank=0, world=2).joined(torch.device("cpu")),
    ):
        pass


def test_alone_every_message_is_the_identity():
    ranks, tensor = Ranks(), torch.ones(2)
    ranks.average([tensor])
    ranks.barrier()
    with ranks.long_timeout_group() as broadcast:
        assert broadcast([2.5]) == [2.5]
    assert ranks.gather(tensor) is tensor
    assert (ranks.broadcast([1.5]), ranks.any_true(True), ranks.any_true(False)) == ([1.5], True, False)
    with ranks.joined(torch.device("cpu")):
        assert not dist.is_initialized()


def talk(rank, port):
    """What each of two processes says and must hear; then one of them stands still."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    trainer.compute.ranks.TIMEOUT = trainer.compute.ranks.timedelta(seconds=4)
    ranks = Ranks.launched()
    with ranks.joined(torch.device("cpu")):
        mine = [torch.full((2, 3), float(rank)), torch.tensor(4.0 * rank, dtype=torch.bfloat16)]
        ranks.average(mine)
        assert torch.equal(mine[0], torch.full((2, 3), 0.5))
        assert (mine[1].item(), mine[1].dtype) == (2.0, torch.bfloat16)
        gathered = ranks.gather(torch.full((2, 1), rank))
        assert gathered.flatten().tolist() == [0, 0, 1, 1]
        assert ranks.broadcast([0.1 + rank, 1e300]) == [0.1, 1e300]
        assert ranks.any_true(rank == 1)
        assert not ranks.any_true(False)
        with ranks.long_timeout_group() as broadcast:  # longer than the patience for a step
            time.sleep(0 if rank else 6)
            assert broadcast([float(rank)]) == [0.0]
        if rank == 1:
            time.sleep(8)
        else:
            with pytest.raises(RankLost, match="ended or does not answer"):
                ranks.any_true(True)
        os._exit(0)  # leaving in order would wait for the other


@pytest.mark.slow
def test_what_processes_hear():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    multiprocessing.spawn(talk, (port,), nprocs=2)
