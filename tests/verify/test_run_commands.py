"""What a script's source tells of how it is started."""

from dataclasses import replace

import pytest

from codec.errors import InputError
from packager.script.wrapper import wrap
from tests.verify.test_source_layers import xz
from verify.claims.log_reader import read_log
from verify.record_folder.run_commands import run_commands

FLAGS = """
import argparse, os
parser = argparse.ArgumentParser()
parser.add_argument("--eval", action="store_true"{})
parser.add_argument("--data", required=True)
parser.add_argument("-s", "--seed", type=int)
"""
VARIABLES = """
import os
from os import environ, getenv
seed = int({})
"""


@pytest.fixture
def commands(tmp_path):
    def of(source, *, worlds=("8",), environment=None):
        path = tmp_path / "run.log"
        path.write_text("final_int6_ttt_exact val_loss:1.90000000 val_bpb:1.10000000\n")
        logs = [replace(read_log(path), settings={"world_size": world} if world else {}) for world in worlds]
        data = source if isinstance(source, bytes) else source.encode()
        found = run_commands({"train_gpt.py": data}, logs, 42, environment or {})
        return found.train, found.evaluate

    return of


def test_a_script_that_trains_and_scores(commands):
    assert commands(FLAGS.format("")) == (
        "torchrun --standalone --nproc_per_node=8 train_gpt.py --seed 42 --data DATA",
        "python train_gpt.py --eval --data DATA",
    )


@pytest.mark.parametrize("required", [", required=True", ", required=1", ", required=not 0"])
def test_a_script_that_only_scores_is_not_said_to_train(commands, required):
    assert commands(FLAGS.format(required)) == ("", "python train_gpt.py --eval --data DATA")


@pytest.mark.parametrize(
    "read",
    ['os.environ.get("SEED", 1)', 'os.environ["SEED"]', 'environ["SEED"]', 'os.getenv("SEED")', 'getenv("SEED")'],
)
def test_a_script_of_the_field_takes_its_seed_from_the_environment(commands, read):
    assert commands(VARIABLES.format(read)) == ("SEED=42 torchrun --standalone --nproc_per_node=8 train_gpt.py", "")


@pytest.mark.parametrize("read", ['settings["SEED"]', 'settings.get("SEED")', 'os.environ.get("OTHER")'])
def test_another_seed_is_not_taken_for_it(commands, read):
    assert commands(VARIABLES.format(read))[0].startswith("torchrun ")


def test_what_is_packed_inside_is_read(commands):
    evaluate = "python train_gpt.py --eval --data DATA"
    assert commands(xz(FLAGS.format(", required=True") + "print(1)\n" * 20)) == ("", evaluate)
    module = "parser.add_argument('--other')\nimport os\nx = os.environ.get('SEED')\n"  # carried, it takes no options
    assert commands(wrap(FLAGS.format(", required=True"), {"mine.tools": module})) == ("", evaluate)


@pytest.mark.parametrize(("worlds", "count"), [(("2",), 2), (("8", "8"), 8), (("1", "2"), 8), (("",), 8), (("x",), 8)])
def test_as_many_processes_as_the_logs_state(commands, worlds, count):
    assert (
        commands("import torch\n", worlds=worlds)[0] == f"torchrun --standalone --nproc_per_node={count} train_gpt.py"
    )


def test_settings_of_the_runs_are_assigned(commands):
    train, _ = commands("import torch\n", environment={"DEPTH": "3", "PLACE": "a b; rm -rf /"})
    assert train.startswith("DEPTH=3 PLACE='a b; rm -rf /' torchrun ")


def test_a_script_for_a_later_python_is_still_started(commands):
    assert commands("import torch\ntype X = int\nx = f'{'a'}'\n")[0].startswith("torchrun ")


def test_no_text_is_no_script(commands):
    with pytest.raises(InputError, match="is not Python source"):
        commands(b"\xff\xfe")
