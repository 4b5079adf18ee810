"""Silent damage: what a recipe rounds to zero is named, in measure and pack."""

import json

import numpy as np
import pytest

from codec import load_recipe
from codec.measurement import measurement
from codec.measurement.losses import loss_notes, losses
from codec.quantization.recipe import quantize_checkpoint
from codec.storage.checkpoint import write_checkpoint

RNG = np.random.default_rng(3)
NAME = "blocks.0.mlp.fc.weight"


def matrix(spread, rows=300):
    return (spread * RNG.standard_normal((rows, 300))).astype(np.float32)


def noted(tensors, recipe):
    treated = quantize_checkpoint(tensors, load_recipe(recipe))
    return losses(tensors, treated), loss_notes(losses(tensors, treated))


@pytest.mark.parametrize("recipe", ["pr339", "pr1176"])
def test_a_matrix_of_small_weights_is_gone(recipe):
    """Its floor keeps a step from being as small as these weights."""
    found, notes = noted({NAME: matrix(1e-5), "blocks.1.mlp.fc.weight": matrix(1.0)}, recipe)
    assert notes == (f"rounded to zero: all of `{NAME}` (SNR 0.0 dB)",)
    assert found[NAME].gone
    assert found["blocks.1.mlp.fc.weight"].snr_db > 20


def test_rows_that_are_gone_are_counted():
    weights = matrix(1.0)
    weights[[3, 8, 9]] *= 1e-6
    weights[5] = 0
    found, notes = noted({NAME: weights}, "pr1176")
    assert notes == (f"rounded to zero: 3 of 300 rows of `{NAME}` (SNR {found[NAME].snr_db:.1f} dB)",)


def test_float16_loses_small_vectors():
    """But one small weight among others is what rounding is."""
    _, notes = noted({"gain": np.array([1e-9, 1e-9], np.float32), "scale": np.array([1, 1e-9], np.float32)}, "pr162")
    assert notes == ("rounded to zero: all of `gain` (SNR 0.0 dB)",)


def test_zeros_and_good_matrices_are_no_damage():
    found, notes = noted({NAME: matrix(0.1), "zeros": np.zeros((300, 300), np.float32)}, "pr162")
    assert (found["zeros"].snr_db, notes) == (np.inf, ())


def test_the_worst_are_named_first():
    tensors = {f"blocks.{i}.attn.proj.weight": matrix(1e-6 * (i + 1)) for i in range(6)}
    _, notes = noted(tensors, "pr1176")
    assert len(notes) == 1
    assert notes[0].count("SNR") == 4
    assert notes[0].endswith("and of 2 more tensors")


def test_faint_signal_is_told():
    """An error of 4/5 of each weight is 16/25 of the energy: 1.94 dB.  Of 2/3 it is 4/9, less than half."""
    weights = matrix(1.0)
    assert loss_notes(losses({"a": weights}, {"a": weights / 5})) == (
        "the error is more than half of the weights: `a` (SNR 1.9 dB)",
    )
    found = losses({"a": weights}, {"a": weights / 3})
    assert (round(found["a"].snr_db, 2), loss_notes(found)) == (3.52, ())


def test_a_lost_matrix_shows_in_every_total_but_the_energy(pgolf, tmp_path):
    """The large matrix hides the small one in a ratio of energies."""
    write_checkpoint(tmp_path / "c.safetensors", {NAME: matrix(1e-5), "blocks.1.mlp.fc.weight": matrix(1.0)}, {})
    done = pgolf("measure", tmp_path / "c.safetensors", "--recipe", "pr1176", "--json")
    found = json.loads(done.stdout)["recipes"][0]
    assert found["snr_db"] > 20
    assert (found["worst_tensor"], round(found["worst_snr_db"], 6)) == (NAME, 0)
    assert found["mean_snr_db"] == pytest.approx(found["snr_db"] / 2, abs=0.1)
    assert f"note: recipe pr1176: rounded to zero: all of `{NAME}` (SNR 0.0 dB)" in done.stderr
    table = pgolf("measure", tmp_path / "c.safetensors", "--recipe", "pr1176").stdout
    assert "SNR dB: all / mean / worst" in table
    assert " / 0.0 " in table


@pytest.mark.slow
def test_a_slow_coder_gets_a_sample_of_a_large_checkpoint(monkeypatch):
    tensors = {f"blocks.{i}.mlp.fc.weight": matrix(0.1, rows=2000) for i in range(3)}
    recipe = load_recipe("pr1176")
    whole = measurement.measure(tensors, recipe)
    monkeypatch.setattr(measurement, "LARGE", 10**6)
    monkeypatch.setattr(measurement, "SAMPLE", 1 << 17)
    sampled = measurement.measure(tensors, recipe)
    asked = measurement.measure(tensors, recipe, ["lzma-9e"])
    assert (whole.sampled, sampled.sampled, asked.sampled) == ((), ("lzma-9e",), ())
    assert whole.peer_bytes == asked.peer_bytes
    assert sampled.peer_bytes["lzma-9e"] == pytest.approx(whole.peer_bytes["lzma-9e"], rel=0.05)
    assert sampled.peer_bytes != whole.peer_bytes
    assert "lzma-9e compressed a sample of" in sampled.notes[-1]


def test_progress_goes_up_to_the_end():
    told = []
    tensors = {NAME: matrix(0.1), "b": matrix(0.1)}
    measurement.measure(tensors, load_recipe("pr162"), progress=lambda done, note: told.append((done, note)))
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1] == (measurement.STAGES, "")
    assert {"encode", "decode", "zstd-22"} <= {note for _, note in told}
