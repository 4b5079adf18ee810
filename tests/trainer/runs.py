"""Short training runs and what they leave behind."""

import json
import math

import torch

from codec.storage.checkpoint import read_checkpoint
from trainer.presets.catalog import PRESETS
from trainer.run.loop import train

TINY = PRESETS["tiny"]


def evaluate(model):
    ids = torch.arange(64).view(2, 32)
    loss = model(ids, ids).item()
    return loss, loss / math.log(2)


def go(data, out, preset=TINY, **options):
    return train(preset, data, out, **{"evaluate": evaluate, "seed": 1, "threads": 1, "device": "cpu", **options})


def weights(folder):
    return read_checkpoint(folder / "checkpoint.safetensors")[0]


def assert_equal(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert ours[name].tobytes() == theirs[name].tobytes(), name


def metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
