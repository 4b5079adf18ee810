"""`pgolf measure`, `pack` and `inspect` on files that others made."""

import io
import json
import zlib

import numpy as np
import pytest
import torch

from codec import unpack


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Folder with model.pt, its int8 export model.ptz, and what the export holds: levels, scales."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("foreign")
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(150, 100, generator=generator)
    scales = (weights.abs().amax(1) / 127).half()
    levels = (weights / scales.float()[:, None]).round().clamp(-127, 127).to(torch.int8)
    torch.save({"module.blocks.0.mlp.fc.weight": weights, "module.gain": torch.ones(4)}, folder / "model.pt")
    buffer = io.BytesIO()
    content = {
        "__quant_format__": "int8_clean_per_row_v1",
        "quantized": {"blocks.0.mlp.fc.weight": levels},
        "scales": {"blocks.0.mlp.fc.weight": scales},
        "dtypes": {"blocks.0.mlp.fc.weight": "bfloat16"},
        "passthrough": {"gain": torch.ones(4)},
    }
    torch.save(content, buffer)
    (folder / "model.ptz").write_bytes(zlib.compress(buffer.getvalue(), 9))
    (folder / "mine.py").write_text("from codec.decoder import decode\nprint('my own script')\n")
    return folder, levels.numpy(), scales.numpy()


def test_measure_tells_stored_levels_from_new_ones(pgolf, files):
    folder, levels, _ = files
    done = pgolf("measure", folder / "model.ptz", "--recipe", "stored", "--recipe", "pr162-small", "--json")
    assert done.returncode == 0, done.stderr
    assert (
        done.stderr
        == "note: recipe `stored` leaves out the original's last rounding to bfloat16: `blocks.0.mlp.fc.weight`\n"
    )
    report = json.loads(done.stdout)
    assert report["weights"] == levels.size + 4
    stored, small = report["recipes"]
    assert (stored["recipe"], stored["snr_db"], small["recipe"]) == ("stored", None, "pr162-small")
    assert small["bytes"] < stored["bytes"] < 1.02 * stored["peer_bytes"]["zstd-22"]
    assert 25 < small["snr_db"] < 45
    counts = np.bincount(levels.ravel().astype(int) + 128)
    entropy = -(counts[counts > 0] / levels.size * np.log2(counts[counts > 0] / levels.size)).sum()
    rows = {row["name"]: row for row in report["tensors"] if row["recipe"] == "stored"}
    assert rows["blocks.0.mlp.fc.weight"]["entropy_bits_per_weight"] == pytest.approx(entropy)
    assert rows["blocks.0.mlp.fc.weight"]["snr_db"] is None
    floats = json.loads(pgolf("measure", folder / "model.pt", "--recipe", "pr162-small", "--json").stdout)
    assert {row["name"] for row in floats["tensors"]} == {"blocks.0.mlp.fc.weight", "gain"}


def test_pack_carries_the_files_own_levels(pgolf, files, tmp_path):
    folder, levels, scales = files
    arguments = (
        "pack",
        folder / "model.ptz",
        "--recipe",
        "stored",
        "--script",
        folder / "mine.py",
        "-o",
        tmp_path / "out",
    )
    done = pgolf(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    assert "note: recipe `stored`" in done.stderr
    assert json.loads(done.stdout)["recipe"] == "stored"
    tensors = unpack((tmp_path / "out" / "model.bin").read_bytes())[1]
    assert np.array_equal(tensors["blocks.0.mlp.fc.weight"].levels, levels)
    assert np.array_equal(tensors["blocks.0.mlp.fc.weight"].scales, scales)
    assert json.loads((tmp_path / "out" / "submission.json").read_text())["recipe"] == "stored"


def test_inspect_names_format_and_tensors(pgolf, files):
    folder, levels, _ = files
    found = json.loads(pgolf("inspect", folder / "model.ptz", "--json").stdout)["checkpoint"]
    assert (found["kind"], found["weights"]) == ("int8_clean_per_row_v1 in zlib", levels.size + 4)
    assert {"name": "blocks.0.mlp.fc.weight", "dtype": "int8", "shape": [150, 100], "scales": "float16 x 150"} in found[
        "tensors"
    ]
    table = pgolf("inspect", folder / "model.pt").stdout
    assert "150 x 100" in table
    assert "15,004 weights, state dict" in table


def test_a_llama2c_checkpoint_is_measured_and_its_peers_are_larger(pgolf, shared):
    path = shared / "data/weights/stories260K/stories260K.bin"
    done = pgolf("measure", path, "--recipe", "pr162-small", "--peer", "brotli-11", "--json")
    assert done.returncode == 0, done.stderr
    assert "left out 4,096 values of rotary tables" in done.stderr
    report = json.loads(done.stdout)
    assert report["weights"] == 260_032
    (found,) = report["recipes"]
    assert found["bytes"] < min(found["peer_bytes"].values())
    assert set(found["peer_bytes"]) == {"zstd-22", "brotli-11"}
    assert {row["name"] for row in report["tensors"]} >= {"layers.4.attention.wq.weight", "tok_embeddings.weight"}


def test_rotated_levels_are_measured_but_never_packed(pgolf, files, tmp_path):
    folder, _, _ = files
    levels = np.random.default_rng(0).integers(-1, 2, 64 * 128)
    entry = {
        "type": "ternary_bitmask",
        "packed": np.packbits(levels != 0).tobytes() + np.packbits(levels[levels != 0] > 0).tobytes(),
        "scale": torch.full((64,), 0.25, dtype=torch.float16),
        "shape": [32, 256],
        "padded_cols": 256,
        "group_size": 128,
        "n_trits": levels.size,
        "orig_shape": [32, 256],
        "turbo": True,
    }
    torch.save({"proj.weight": entry}, tmp_path / "model.ternary.pt")
    done = pgolf("measure", tmp_path / "model.ternary.pt", "--recipe", "stored", "--recipe", "pr162-small", "--json")
    assert done.returncode == 0, done.stderr
    assert "note: levels of recipe `stored` are of rotated weights" in done.stderr
    report = json.loads(done.stdout)
    row = next(row for row in report["tensors"] if row["recipe"] == "stored")
    assert (row["treatment"], row["weights"]) == ("int2", 8192)
    assert row["entropy_bits_per_weight"] == pytest.approx(np.log2(3), abs=0.01)
    assert report["weights"] == 8192
    script = ("--script", folder / "mine.py", "--dry-run")
    refused = pgolf("pack", tmp_path / "model.ternary.pt", "--recipe", "stored", *script)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "recipe `stored` cannot be packed" in refused.stderr


def test_refusals_are_one_line(pgolf, files, tmp_path):
    folder, _, _ = files
    (tmp_path / "cut.ptz").write_bytes((folder / "model.ptz").read_bytes()[:-9])
    for arguments, code, words in [
        (("measure", folder / "model.pt", "--recipe", "stored"), 2, "choose another recipe"),
        (
            ("pack", folder / "model.pt", "--recipe", "stored", "--script", folder / "mine.py", "--dry-run"),
            2,
            "model.pt: recipe",
        ),
        (("pack", folder / "model.ptz", "--recipe", "stored", "--dry-run"), 3, "pass --script FILE"),
        (("measure", "cut.ptz"), 3, "cut.ptz: is damaged zlib data (it ends early)"),
        (("pack", "cut.ptz", "--recipe", "pr162", "--dry-run"), 3, "cut.ptz: is damaged zlib data"),
        (("inspect", "cut.ptz"), 3, "cut.ptz: is damaged zlib data"),
    ]:
        done = pgolf(*arguments, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (code, ""), (arguments, done.stderr)
        assert words in done.stderr
        assert done.stderr.startswith("Error: ")
        assert done.stderr.count("\n") == 1
