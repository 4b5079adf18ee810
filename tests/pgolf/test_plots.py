"""The picture of `pgolf measure --plot`: its numbers add up, and equal input gives an equal file."""

import subprocess
import sys

import numpy as np
import pytest

from codec import QuantizedTensor
from codec.measurement.measurement import measure, measure_treated
from codec.quantization.recipe_files import load_recipe
from codec.storage.checkpoint import write_checkpoint
from pgolf.plots import BARS, PARTS, draw_plot, role, shares

PNG = b"\x89PNG\r\n\x1a\n"


def state(layers):
    random = np.random.default_rng(0)
    tensors = {f"blocks.{layer}.attn.c_q.weight": random.normal(size=(64, 48)) for layer in range(layers)}
    tensors |= {f"blocks.{layer}.attn_scale": np.full(48, layer + 1) / 2 for layer in range(layers)}
    tensors |= {f"kind_{number}.weight": random.normal(size=(60 + number, 40)) for number in range(BARS)}
    tensors |= {"zero": np.zeros((80, 80)), "counter": np.arange(3)}
    return {name: array.astype(np.float32) if array.dtype.kind == "f" else array for name, array in tensors.items()}


@pytest.fixture(scope="module")
def measurement():
    return measure(state(5), load_recipe("pr162-small"))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("blocks.3.attn.c_q.weight", "blocks.*.attn.c_q"),
        ("blocks.11.mlp.fc.weight", "blocks.*.mlp.fc"),
        ("tok_emb.weight", "tok_emb"),
        ("layer2.weight", "layer2"),
    ],
)
def test_role_is_the_name_without_its_layer(name, expected):
    assert role(name) == expected


def test_shares_add_up_to_the_file_and_the_small_ones_are_one_bar(measurement):
    entries = shares(measurement)
    assert sum(sum(parts) for _, parts in entries) == pytest.approx(measurement.ledger.artifact_bytes)
    names = [name for name, _ in entries]
    assert len(names) == BARS + 1
    assert "blocks.*.attn.c_q (5)" in names
    assert names[-2].endswith("smaller tensors")
    named = dict(entries)
    rows = [row for row in measurement.ledger.rows if "c_q" in row.name]
    assert named["blocks.*.attn.c_q (5)"][PARTS.index("scales")] == sum(row.scale_bytes for row in rows) > 0
    plain = sum(parts[PARTS.index("plain arrays")] for _, parts in entries)
    float_rows = [row for row in measurement.ledger.rows if row.stored_as in ("float16", "int64")]
    assert len(float_rows) == 6  # five attn_scale and the counter
    assert plain == pytest.approx(sum(row.bytes for row in float_rows))


def test_the_picture_is_the_same_twice(measurement, tmp_path):
    for name in ("one.png", "two.png"):
        draw_plot([measurement, measurement], "two recipes", tmp_path / name)
    image = (tmp_path / "one.png").read_bytes()
    assert image.startswith(PNG)
    assert image == (tmp_path / "two.png").read_bytes()


def test_more_kinds_of_levels_than_colours_can_be_drawn(tmp_path):
    tensors = {
        f"w{bits}.{step}": QuantizedTensor(
            np.arange(-(2 ** (bits - 1)), 2 ** (bits - 1), dtype=np.int8).reshape(2, -1),
            np.ones(2 if step else 1, np.float16 if step else np.float32),
        )
        for bits in range(2, 9)
        for step in (0, 1)
    }
    draw_plot([measure_treated(tensors, recipe="many")], "fourteen kinds", tmp_path / "kinds.png")
    assert (tmp_path / "kinds.png").read_bytes().startswith(PNG)


def test_a_checkpoint_without_levels_can_be_drawn(tmp_path):
    draw_plot([measure({"norm": np.ones(4, np.float32)}, load_recipe("pr162"))], "floats", tmp_path / "floats.png")
    assert (tmp_path / "floats.png").read_bytes().startswith(PNG)


def test_the_command_writes_it_beside_its_json(pgolf, tmp_path):
    write_checkpoint(tmp_path / "c.safetensors", state(1), {})
    arguments = ("measure", tmp_path / "c.safetensors", "--recipe", "pr162-small", "--json", "--plot")
    done = pgolf(*arguments, tmp_path / "c.png")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("{")
    assert (tmp_path / "c.png").read_bytes().startswith(PNG)
    refused = pgolf(*arguments, tmp_path / "c.pdf")
    assert refused.returncode == 2
    assert "PNG" in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_without_matplotlib_it_says_what_to_install(tmp_path):
    program = (
        "import sys, importlib.util as util; found = util.find_spec\n"
        "util.find_spec = lambda name, *rest: None if name == 'matplotlib' else found(name, *rest)\n"
        "from pgolf.__main__ import main; sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "measure", "nothing.safetensors", "--plot", str(tmp_path / "c.png")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 4
    assert "parameter-golf-kit[report]" in done.stderr
