"""metrics.jsonl, and the experiment trackers with stand-ins for their packages."""

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from codec.errors import EnvironmentLacks, UsageError
from trainer.run.trackers import TRACKERS, JsonLines, find_tracker


def test_lines_are_json_objects_and_a_resumed_run_cuts_them(tmp_path):
    path = tmp_path / "metrics.jsonl"
    metrics = JsonLines(path)
    metrics.record(1, {"train_loss": 2.5})
    kept = metrics.bytes
    metrics.record(2, {"train_loss": 2.25, "lr": 0.5})
    metrics.close()
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"step": 1, "train_loss": 2.5},
        {"step": 2, "train_loss": 2.25, "lr": 0.5},
    ]
    again = JsonLines(path, keep_bytes=kept)
    again.record(2, {"train_loss": 3.0})
    again.close()
    assert [json.loads(line)["train_loss"] for line in path.read_text().splitlines()] == [2.5, 3.0]


class Recorder(ModuleType):
    """A module whose every function and method writes down how it was called."""

    def __init__(self, name):
        super().__init__(name)
        self.calls = []

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*arguments, **named):
            self.calls.append((name, arguments, named))
            return self

        return call


@pytest.fixture(params=sorted(TRACKERS))
def package(request, monkeypatch):
    """(tracker's name, a stand-in for its package)."""
    module = Recorder(request.param)
    monkeypatch.setitem(sys.modules, TRACKERS[request.param][0], module)
    return request.param, module


def test_every_number_arrives_once(package, tmp_path):
    name, module = package
    tracker = find_tracker(name)(tmp_path / "run", {"seed": 7}, 40)
    assert module.calls, "nothing was opened"
    assert "seed" in str(module.calls)
    module.calls.clear()
    tracker.record(50, {"train_loss": 2.5, "lr": 0.5})
    said = str(module.calls)
    assert said.count("2.5") == said.count("'lr'") == 1
    assert "50" in said
    module.calls.clear()
    tracker.close()
    assert len(module.calls) == 1


def test_tensorboard_hides_what_a_killed_run_wrote_after_its_state(monkeypatch, tmp_path):
    module = Recorder("tensorboard")
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    find_tracker("tensorboard")(tmp_path, {}, 40)
    assert module.calls[0] == ("SummaryWriter", (str(tmp_path / "tensorboard"),), {"purge_step": 41})


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_hosted_runs_are_named_after_their_folder(monkeypatch, tmp_path, name):
    module = Recorder(name)
    monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.chdir(tmp_path)
    find_tracker(name)(Path("."), {"seed": 1}, 0)
    opened = module.calls[0][2]
    assert opened["name"] == tmp_path.name
    assert opened["config"]["seed"] == 1


def test_a_missing_package_is_named(monkeypatch):
    for name, (path, _) in TRACKERS.items():
        monkeypatch.setitem(sys.modules, path, None)  # what Python has for a module that cannot be imported
        with pytest.raises(EnvironmentLacks, match=f"needs the package {name}.*pip install {name}"):
            find_tracker(name)
    with pytest.raises(UsageError, match="there is no tracker `mlflow`; trackers: tensorboard, wandb, trackio"):
        find_tracker("mlflow")
