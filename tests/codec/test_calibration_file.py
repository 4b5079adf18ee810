"""Calibration files that do not belong to the checkpoint, and what a recipe does with and without them."""

import numpy as np
import pytest

from codec import load_recipe, quantize_checkpoint
from codec.errors import InputError
from codec.measurement.measurement import measure
from codec.quantization.recipe import Recipe, Rule, rounding_notes
from codec.storage.calibration_file import (
    CHECKPOINT,
    FISHER,
    FREQUENCY,
    GRADIENT,
    HESSIAN,
    SENSITIVITY,
    Layers,
    read_layers,
    sha256,
)
from codec.storage.checkpoint import write_checkpoint

NAME = "blocks.0.mlp.fc.weight"
RECIPE = Recipe(
    name="mine",
    about="",
    coder="zstd-22",
    rules=(Rule.of(names=["*.mlp.*"], treatment="int4", step="std", k=6.0, gptq=True), Rule(treatment="float16")),
)


@pytest.fixture
def tensors():
    random = np.random.default_rng(0)
    return {NAME: random.normal(size=(24, 16)).astype(np.float32), "gain": np.ones(16, np.float32)}


@pytest.fixture
def hessian():
    inputs = np.random.default_rng(1).normal(size=(300, 16)) @ np.random.default_rng(2).normal(size=(16, 16))
    return (inputs.T @ inputs).astype(np.float32)


@pytest.fixture
def checkpoint(tmp_path, tensors):
    write_checkpoint(tmp_path / "model.safetensors", tensors, {})
    return tmp_path / "model.safetensors"


def write(path, hessians, **metadata):
    write_checkpoint(path, {HESSIAN + name: array for name, array in hessians.items()}, metadata)
    return path


def of(hessians):
    return Layers(hessians=hessians, sensitivities={}, batch_tokens=None)


def test_a_file_of_this_checkpoint_is_read(tmp_path, checkpoint, tensors, hessian):
    path = write(tmp_path / "calibration", {NAME: hessian}, **{CHECKPOINT: sha256(checkpoint)})
    found = read_layers(path, checkpoint, tensors).hessians
    assert found.keys() == {NAME}
    assert np.array_equal(found[NAME], hessian)


def test_what_does_not_belong_is_refused(tmp_path, checkpoint, tensors, hessian):
    own, other, holes = {CHECKPOINT: sha256(checkpoint)}, {CHECKPOINT: "0" * 64}, hessian.copy()
    holes[3, 3] = np.nan
    for hessians, metadata, message in [
        ({NAME: hessian}, {}, "is not a calibration file"),
        ({NAME: hessian}, other, "was made from a checkpoint of sha256 000000000000, .* has "),
        ({NAME: hessian[:9, :9]}, own, r"`blocks\.0\.mlp\.fc\.weight` is float32 \(9, 9\), the tensor is \(24, 16\)"),
        ({NAME: hessian[:, :9]}, own, r"float32 \(16, 9\)"),
        ({NAME: hessian.astype(np.int32)}, own, "is int32"),
        ({NAME: hessian, "other": hessian}, own, r"`other` is float32 \(16, 16\), the tensor is missing"),
        ({NAME: holes}, own, "not finite"),
    ]:
        path = write(tmp_path / "calibration", hessians, **metadata)
        with pytest.raises(InputError, match=message):
            read_layers(path, checkpoint, tensors)
    with pytest.raises(InputError, match="is not a calibration file"):
        read_layers(checkpoint, checkpoint, tensors)


@pytest.mark.parametrize(
    ("notes", "tokens"),
    [
        ({"tokens": 640, "sequences": 10, "batch": 4}, 640 / 3),
        ({"tokens": 640, "sequences": 10}, None),
        ({"tokens": 640, "sequences": 10, "batch": 0}, None),
        ({"tokens": "640", "sequences": 10, "batch": 4}, None),
    ],
)
def test_sensitivities_and_the_tokens_that_a_hessian_sums(tmp_path, checkpoint, tensors, hessian, notes, tokens):
    rows = np.arange(24, dtype=np.float32)
    path = tmp_path / "calibration"
    arrays = {HESSIAN + NAME: hessian, SENSITIVITY + NAME: rows}
    write_checkpoint(path, arrays, {CHECKPOINT: sha256(checkpoint), **notes})
    layers = read_layers(path, checkpoint, tensors)
    assert np.array_equal(layers.hessians[NAME], hessian)
    assert np.array_equal(layers.sensitivities[NAME], rows)
    assert layers.batch_tokens == tokens
    for bad in (rows[:-1], -rows, rows.astype(np.int32), np.where(rows > 3, np.nan, rows)):
        write_checkpoint(path, arrays | {SENSITIVITY + NAME: bad}, {CHECKPOINT: sha256(checkpoint)})
        with pytest.raises(InputError, match=r"the sensitivity of `blocks\.0\.mlp\.fc\.weight` (is|holds) "):
            read_layers(path, checkpoint, tensors)


def test_a_missing_layer_is_named(tensors):
    with pytest.raises(InputError, match=r"tensor `blocks\.0\.mlp\.fc\.weight`: has no Hessian.* 1 of 1 are missing"):
        quantize_checkpoint(tensors, RECIPE, of({}))
    assert quantize_checkpoint(tensors, load_recipe("pr162"), of({})).keys() == tensors.keys()


def test_only_recipes_with_gptq_have_something_to_say(tensors):
    assert rounding_notes(load_recipe("pr162"), tensors) == ()
    assert rounding_notes(load_recipe("pr1716"), tensors) == ()  # below 65,536 weights everything is float16 there
    (note,) = rounding_notes(RECIPE, tensors)
    assert "wants GPTQ for 1 tensors" in note


def test_the_weighted_ratio_is_that_of_real_outputs(tensors):
    """Against outputs computed one input at a time, and GPTQ against rounding."""
    inputs = np.random.default_rng(1).normal(size=(300, 16)) @ np.random.default_rng(2).normal(size=(16, 16))
    layers = of({NAME: inputs.T @ inputs})
    rounded = measure(tensors, Recipe(name="r", about="", coder="zstd-22", rules=(_plain(),)), layers=layers)
    better = measure(tensors, RECIPE, layers=layers)
    assert better.hessian_snr_db > rounded.hessian_snr_db + 1
    levels = quantize_checkpoint(tensors, RECIPE, layers)[NAME].dequantize()
    outputs, error = inputs @ tensors[NAME].T, inputs @ (levels - tensors[NAME]).T
    assert better.tensor_hessian_snr_db[NAME] == pytest.approx(10 * np.log10((outputs**2).sum() / (error**2).sum()))
    assert better.to_dict()["hessian_snr_db"] == better.hessian_snr_db
    assert measure(tensors, RECIPE).hessian_snr_db is None


def _plain():
    return Rule.of(treatment="int4", step="std", k=6.0)


TABLE = "tok_emb.weight"


def test_what_is_known_of_tables_and_small_parameters(tmp_path, hessian):
    random = np.random.default_rng(3)
    tensors = {
        NAME: random.normal(size=(24, 16)).astype(np.float32),
        TABLE: random.normal(size=(9, 16)).astype(np.float32),
        "gain": np.ones(16, np.float32),
        "skip": np.ones((2, 3, 4), np.float32),
        "scale": np.float32(2.0).reshape(()),
    }
    write_checkpoint(tmp_path / "model", tensors, {})
    known = {
        HESSIAN + NAME: hessian,
        SENSITIVITY + NAME: np.arange(24, dtype=np.float32),
        HESSIAN + TABLE: 2 * hessian,
        SENSITIVITY + TABLE: np.arange(9, dtype=np.float32),
        GRADIENT + TABLE: 3 * hessian,
        FREQUENCY + TABLE: np.arange(9, dtype=np.float32) / 36,
        FISHER + "gain": random.random(16).astype(np.float32),
        FISHER + "skip": random.random((2, 3, 4)).astype(np.float32),
        FISHER + "scale": np.float32(0.5).reshape(()),
    }
    notes = {CHECKPOINT: sha256(tmp_path / "model"), "tokens": 80, "sequences": 4, "batch": 2}
    write_checkpoint(tmp_path / "calibration", known, notes)
    layers = read_layers(tmp_path / "calibration", tmp_path / "model", tensors)
    rows, moments = zip(*layers.terms(TABLE), strict=True)
    for found, wanted in zip(rows, (SENSITIVITY, FREQUENCY), strict=True):
        assert found.dtype == np.float64
        assert np.array_equal(found, known[wanted + TABLE])
    for found, wanted in zip(moments, (HESSIAN, GRADIENT), strict=True):
        assert found.dtype == np.float64
        assert np.array_equal(found, known[wanted + TABLE] / np.float64(40))  # tokens of a batch
    assert len(layers.terms(NAME)) == 1
    for name in ("gain", "skip", "scale"):
        assert layers.terms(name) == []
        assert np.array_equal(layers.fisher(name), known[FISHER + name] / np.float64(40))
    assert layers.fisher(NAME) is None
    write_checkpoint(tmp_path / "calibration", known, {CHECKPOINT: notes[CHECKPOINT]})
    blind = read_layers(tmp_path / "calibration", tmp_path / "model", tensors)
    assert blind.terms(TABLE) == []
    assert blind.fisher("gain") is None

    holes = np.full(16, np.nan, np.float32)
    for key, bad, message in [
        (GRADIENT + TABLE, hessian[:5], r"the gradient moment of `tok_emb\.weight` is float32 \(5, 16\)"),
        (GRADIENT + "gain", hessian, r"the gradient moment of `gain` is float32 \(16, 16\), the tensor is \(16,\)"),
        (GRADIENT + "skip", hessian, "the gradient moment of `skip` is"),
        (HESSIAN + "scale", np.ones((1, 1), np.float32), "the Hessian of `scale` is"),
        (FREQUENCY + TABLE, known[FREQUENCY + TABLE][:-1], r"the frequency of `tok_emb\.weight` is float32 \(8,\)"),
        (FREQUENCY + TABLE, -known[FREQUENCY + TABLE], "the frequency of .* holds values below 0"),
        (FISHER + "gain", np.ones((4, 4), np.float32), r"the Fisher moment of `gain` is float32 \(4, 4\)"),
        (FISHER + "gain", -np.ones(16, np.float32), "the Fisher moment of `gain` holds values below 0"),
        (FISHER + "gain", holes, "the Fisher moment of `gain` holds values that are not finite"),
        (FISHER + "gain", np.ones(16, np.int32), "the Fisher moment of `gain` is int32"),
        (
            FISHER + "other",
            np.ones(16, np.float32),
            "the Fisher moment of `other` is float32 .*, the tensor is missing",
        ),
    ]:
        write_checkpoint(tmp_path / "calibration", known | {key: bad}, notes)
        with pytest.raises(InputError, match=message):
            read_layers(tmp_path / "calibration", tmp_path / "model", tensors)
