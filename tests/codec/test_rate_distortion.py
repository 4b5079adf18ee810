"""One knob for a model: what it predicts, where the bits go, and what it does with whatever a checkpoint holds."""

import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from codec import Recipe, Rule, encode, ledger, load_recipe, quantize_checkpoint
from codec.allocation.damage import added_nats
from codec.decoder import QuantizedTensor, decode, octaves, unpack
from codec.errors import InputError, UsageError
from codec.quantization.quantizers import JointQuantizer
from codec.quantization.rate_distortion.quantizer import RateDistortion
from codec.quantization.recipe import parse_recipe, rounding_notes
from codec.quantization.recipe_files import recipe_toml
from codec.storage.calibration_file import Layers
from tests.codec.toy_model import WEIGHTS, moments, toy_model

ROOT = Path(__file__).resolve().parents[2]
FAST = {"states": 8, "restart": 64}


def recipe(**parameters):
    return Recipe(name="toy", about="", coder="zstd-22", rules=(Rule.of(treatment="rate-distortion", **parameters),))


def treat(tensors, layers, **parameters):
    return quantize_checkpoint(tensors, recipe(**FAST | parameters), layers)


def nats(tensors, treated, layers):
    costs = {name: added_nats(name, tensors[name], treated[name], layers) for name in tensors if name != "ids"}
    return {name: cost for name, cost in costs.items() if cost is not None}


def digest(treated):
    return hashlib.sha256(encode(treated, {})).hexdigest()


def test_nats_are_what_it_adds_at_fine_steps():
    tensors, layers = toy_model()
    for states, low, high in ((1, 0.8, 1.05), (8, 0.9, 1.3), (64, 0.9, 1.25)):
        treated = treat(tensors, layers, nats=1e-4, states=states, restart=1024)
        assert low < sum(nats(tensors, treated, layers).values()) / 1e-4 < high


def test_a_quarter_of_the_nats_is_a_bit_per_weight():
    tensors, layers = toy_model()
    sizes = [len(encode(treat(tensors, layers, nats=each), {})) for each in (1e-4, 0.25e-4)]
    assert 8 * (sizes[1] - sizes[0]) / WEIGHTS == pytest.approx(1, abs=0.12)  # tables of more levels are longer


def test_gptq_is_what_moves_weights_from_their_nearest_levels():
    tensors, layers = toy_model()
    for gptq in (False, True):
        own = treat({"q": tensors["q"]}, layers, nats=1e-3, states=1, rate_weight=0.0, gptq=gptq)["q"]
        steps = own.scales[0] * np.multiply.outer(octaves(own.row_steps).astype(float), octaves(own.column_steps))
        nearest = np.abs(own.dequantize() - tensors["q"]) <= 1.001 * steps  # levels of one state are even
        assert nearest.all() != gptq


def test_exponents_of_0_make_all_steps_alike():
    tensors, layers = toy_model()
    for row, column in ((0.0, 1.0), (1.0, 0.0)):
        own = treat({"q": tensors["q"]}, layers, row_noise=1e9, row_exponent=row, column_exponent=column)["q"]
        assert (np.ptp(own.row_steps) == 0) == (row == 0)
        assert (np.ptp(own.column_steps) == 0) == (column == 0)


def test_coarsened_by_an_octave_is_four_times_the_nats():
    quantizer = RateDistortion(nats=0.01, **FAST)
    assert isinstance(quantizer, JointQuantizer)
    assert quantizer.coarsened(1) == replace(quantizer, nats=0.04)
    tensors, layers = toy_model()
    costs = [
        sum(nats(tensors, treat(tensors, layers, nats=each.nats), layers).values())
        for each in (RateDistortion(nats=1e-5), RateDistortion(nats=1e-5).coarsened(1))
    ]
    assert costs[1] / costs[0] == pytest.approx(4, rel=0.1)


def test_every_matrix_loses_as_much_per_weight():
    """The condition of the optimum, where steps are fine: no tensor would rather have another's bits."""
    tensors, layers = toy_model()
    costs = nats(tensors, treat(tensors, layers, nats=1e-5, row_noise=1e9, token_noise=1e9), layers)
    per_weight = [costs[name] / tensors[name].size for name in ("up", "down", "q", "k", "emb", "table")]
    assert max(per_weight) < 1.25 * min(per_weight)


def test_what_matters_less_gets_fewer_bits():
    tensors, layers = toy_model()
    layers.sensitivities["q"][:] = layers.sensitivities["k"]
    layers.hessians["q"][:] = layers.hessians["k"]
    tensors["q"][:] = tensors["k"][::-1]
    layers.sensitivities["q"] /= 256  # four octaves
    costs = {
        row.name: 8 * row.bytes / 2304
        for row in ledger(encode(treat(tensors, layers, nats=1e-5, row_noise=1.0), {})).rows
    }
    assert costs["k"] - costs["q"] == pytest.approx(4, abs=0.3)


def test_what_does_not_matter_costs_nearly_nothing():
    """As much as its rows' noise asks for; without that, nothing."""
    tensors, layers = toy_model()
    layers.sensitivities["q"] *= 1e-9
    rows = {row.name: row.bytes for row in ledger(encode(treat(tensors, layers, nats=1e-4), {})).rows}
    assert 0.5 < 8 * rows["q"] / 2304 < 1.6
    treated = treat(tensors, layers, nats=1e-4, row_noise=1e9)
    assert not treated["q"].levels.any()
    rows = {row.name: row.bytes for row in ledger(encode(treated, {})).rows}
    assert rows["q"] < 100  # the steps of its rows and columns


def test_noise_of_no_row_drowns_it():
    tensors, layers = toy_model()
    for name in ("q", "table"):
        tensors[name] *= 2.0 ** np.random.default_rng(1).uniform(-4, 4, (len(tensors[name]), 1)).astype(np.float32)
    layers.sensitivities["q"] *= 1e-6
    layers.frequencies["table"][::2] = 0
    treated = treat(tensors, layers, nats=0.05, row_noise=0.25)
    for name, weights, most in (
        ("q", layers.hessians["q"].astype(np.float64), 0.25),
        ("table", layers.gradients["table"].astype(np.float64), 0.08),
    ):
        error = treated[name].dequantize() - tensors[name].astype(np.float64)
        signal, noise = (np.einsum("ij,jk,ik->i", each, weights, each) for each in (tensors[name], error))
        assert (noise < 3 * most * signal).all()  # of single rows: chance and the rate's part come on top
        assert noise.sum() < 1.6 * most * signal.sum()


@pytest.mark.parametrize("calibrated", [True, False])
def test_outliers_are_not_clipped(calibrated):
    tensors, layers = toy_model()
    random = np.random.default_rng(1)
    for name in ("up", "q", "table", "gain"):
        flat = tensors[name].reshape(-1)
        flat[random.choice(flat.size, 5, replace=False)] *= 1e4
    treated = treat(tensors, layers if calibrated else None, nats=1e-3, gptq=False, states=8)
    for name in ("up", "down", "q", "k", "emb", "table", "gain"):
        if not isinstance(treated[name], QuantizedTensor):
            assert np.abs(treated[name] - tensors[name]).max() <= 2**-11 * np.abs(tensors[name]).max()
            continue
        levels, scales, columns, rows, _ = treated[name]
        steps = scales[0] * np.multiply.outer(octaves(rows).astype(float), octaves(columns)).reshape(levels.shape)
        error = np.abs(treated[name].dequantize().astype(float) - tensors[name])
        assert (error <= 6 * steps).all()  # the trellis and the rate may choose the second nearest
        assert np.mean(error <= 2 * steps) > 0.97
    encode(treated, {})  # which refuses levels beyond the format's


def test_the_finest_steps_end_where_the_format_does():
    tensors, layers = toy_model()
    for name in ("up", "gain"):
        tensors[name].reshape(-1)[3] *= 1e4
    values = decode(encode(treat(tensors, layers, nats=1e-30), {}))
    for name in ("up", "down", "table", "gain"):
        largest = np.abs(tensors[name]).max()
        assert np.abs(values[name] - tensors[name]).max() < largest / 5_000


def test_the_order_of_tensors_changes_nothing():
    tensors, layers = toy_model()
    backwards = {name: tensors[name] for name in reversed(tensors)}
    other = Layers(
        hessians=dict(reversed(layers.hessians.items())),
        sensitivities=layers.sensitivities,
        gradients=layers.gradients,
        frequencies=layers.frequencies,
        fishers=dict(reversed(layers.fishers.items())),
        batch_tokens=layers.batch_tokens,
    )
    assert digest(treat(tensors, layers)) == digest(treat(backwards, other))


def test_the_number_of_threads_changes_nothing():
    program = (
        "import numpy as np; from tests.codec.test_rate_distortion import digest, treat, wide_model\n"
        "print(digest(treat(*wide_model())))"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env={"OMP_NUM_THREADS": count, "OPENBLAS_NUM_THREADS": count, "PATH": ""},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for count in ("1", "2")
    }
    assert len(found) == 1


def wide_model():
    """Large enough that products and inverses are shared between threads."""
    random = np.random.default_rng(9)
    layers = Layers(
        hessians={"w": moments(384, random, 1000)},
        sensitivities={"w": random.exponential(size=256).astype(np.float32)},
        batch_tokens=1000.0,
    )
    return {"w": random.normal(size=(256, 384)).astype(np.float32)}, layers


def test_an_artifact_gives_the_levels_and_values_back():
    tensors, layers = toy_model()
    treated = treat(tensors, layers)
    blob = encode(treated, {})
    back, values = unpack(blob)[1], decode(blob)
    for name, each in treated.items():
        if isinstance(each, QuantizedTensor):
            assert np.array_equal(back[name].levels, each.levels)
            assert np.array_equal(values[name], each.dequantize())
        else:
            assert np.array_equal(values[name], each)
        assert values[name].shape == tensors[name].shape


def test_small_tensors_scalars_and_integers():
    tensors, layers = toy_model()
    treated = treat(tensors, layers, nats=1e-4)
    assert treated["ids"] is tensors["ids"]
    assert treated["scale"].dtype == treated["empty"].dtype == np.float16
    assert treated["scale"] == 1.5
    assert treated["empty"].shape == (0, 4)
    for name in ("gain", "skip"):
        assert isinstance(treated[name], QuantizedTensor)
        assert treated[name].levels.shape == tensors[name].shape
        cost = added_nats(name, tensors[name], treated[name], layers)
        assert cost == pytest.approx(1e-4 * tensors[name].size / (WEIGHTS + 113), rel=0.6)
    blind = treat(tensors, None)
    for name in ("gain", "skip", "scale"):
        assert blind[name].dtype == np.float16
    large = {"gain": np.full(4, 1e6, np.float32)}
    assert treat(large, None)["gain"].dtype == np.float32
    assert np.array_equal(treat(large, None)["gain"], large["gain"])


def test_small_tensors_that_hardly_matter_keep_their_values_about():
    """The bound on noise holds for them too: second order is as blind there."""
    tensors, layers = toy_model()
    for name in ("gain", "skip"):
        layers.fishers[name] *= 1e-12
    treated = treat(tensors, layers, nats=0.01)
    for name in ("gain", "skip"):
        error = np.square(treated[name].dequantize() - tensors[name]).sum()
        assert 0.002 < error / np.square(tensors[name]).sum() < 0.06


@pytest.mark.parametrize("shape", [(2049,), (2, 1030), (3000, 1), (7, 11, 40)])
@pytest.mark.parametrize("calibrated", [True, False])
def test_tensors_of_other_shapes(shape, calibrated):
    random = np.random.default_rng(0)
    tensors = {"w": random.normal(size=shape).astype(np.float64), "rest": random.normal(size=(64, 64))}
    known = {"w": random.exponential(size=shape)} if calibrated else {}
    layers = Layers(hessians={}, sensitivities={}, fishers=known, batch_tokens=1.0)
    with np.errstate(all="raise", under="ignore"):
        treated = treat(tensors, layers, nats=1e-3)
    values = decode(encode(treated, {}))["w"]
    assert values.shape == shape
    assert np.square(values - tensors["w"]).mean() < 0.2


def test_zeros_and_what_nothing_depends_on_are_harmless():
    tensors, layers = toy_model()
    tensors["q"][:] = 0
    tensors["up"][3:9] = 0
    tensors["gain"][:] = 0
    layers.sensitivities["k"][:] = 0
    layers.fishers["skip"][:] = 0
    layers.frequencies["table"][:] = 0
    for known in (layers, None):
        with np.errstate(all="raise", under="ignore"):
            treated = treat(tensors, known, row_noise=0.25)
            values = decode(encode(treated, {}))
        assert not values["q"].any()
        assert np.abs(values["up"][3:9]).max() < 0.02 * tensors["up"].std()  # a trellis may have to take an odd level
        assert not values["gain"].any()
        seen = layers.hessians["k"].astype(np.float64)  # an error where no input is may be large
        for name, weights in (("k", seen), ("table", np.eye(32)), ("skip", np.eye(2))):
            error, signal = ((each.reshape(-1, len(weights))) for each in (values[name] - tensors[name], tensors[name]))
            noise = np.einsum("ij,jk,ik", error, weights, error)
            assert noise < 0.5 * np.einsum("ij,jk,ik", signal, weights, signal)


@pytest.mark.parametrize("name", ["q", "table", "gain", "scale"])
@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_what_is_not_finite_is_named(name, value):
    tensors, layers = toy_model()
    tensors[name].reshape(-1)[0] = value
    for known in (layers, None):
        size = tensors[name].size
        with pytest.raises(InputError, match=f"^tensor `{name}`: 1 of {size} weights are not finite; go back to"):
            treat(tensors, known)


def test_moments_that_do_not_fit_are_named():
    tensors, layers = toy_model()
    layers.hessians["q"] = moments(40, np.random.default_rng(0))
    with pytest.raises(InputError, match=r"^tensor `q`: has 48 columns, its Hessian is"):
        treat(tensors, layers)
    layers.hessians["q"] = np.full((48, 48), np.nan, np.float32)
    with pytest.raises(InputError, match=r"^tensor `q`: its Hessian is not finite"):
        treat(tensors, layers)
    layers.hessians["q"] = -np.eye(48, dtype=np.float32)
    with pytest.raises(InputError, match=r"^tensor `q`: its Hessian is not positive definite"):
        treat(tensors, layers)


def test_without_calibration_the_trellis_runs_and_the_notes_say_what_is_guessed():
    tensors, _ = toy_model()
    treated = treat(tensors, None, nats=0.005)
    for name in ("up", "down", "q", "k", "emb", "table"):
        assert isinstance(treated[name], QuantizedTensor)
        assert treated[name].trellis.if_odd
        error = np.square(treated[name].dequantize() - tensors[name]).sum() / np.square(tensors[name]).sum()
        assert error == pytest.approx(2 * 0.005, rel=0.3)  # of every tensor: noise over signal is twice the nats
    (note,) = rounding_notes(recipe(), tensors)
    assert note.startswith("recipe toy has no calibration: it still runs its trellis, but guesses")
    assert note.endswith("make one with `pgolf calibrate`")
    assert rounding_notes(recipe(), {name: each for name, each in tensors.items() if name == "ids"}) == ()


def test_what_a_calibration_lacks_is_named():
    tensors, layers = toy_model()
    assert rounding_notes(recipe(), tensors, layers) == ()
    del layers.fishers["gain"]  # which then stays a float, nothing is guessed
    assert rounding_notes(recipe(), tensors, layers) == ()
    assert treat(tensors, layers)["gain"].dtype == np.float16
    del layers.hessians["up"], layers.sensitivities["q"]
    (note,) = rounding_notes(recipe(), tensors, layers)
    assert note == "2 of 6 matrices were not calibrated, their importance is a guess: `q`, `up`"
    assert isinstance(treat(tensors, layers)["up"], QuantizedTensor)
    (note,) = rounding_notes(recipe(), tensors, replace(layers, batch_tokens=None))
    assert note.startswith("6 of 6 matrices were not calibrated")
    assert note.endswith(", ...")


def test_a_recipe_says_its_parameters_and_reads_them_back():
    own = recipe(nats=0.02, states=16, restart=512, rate_weight=0.2, token_noise=0.1, gptq=False)
    again = parse_recipe(recipe_toml(own), "toy.toml")
    assert again == own
    assert again.rules[0].quantizer == RateDistortion(
        nats=0.02, states=16, restart=512, rate_weight=0.2, token_noise=0.1, gptq=False
    )
    best = load_recipe("best")
    assert parse_recipe(recipe_toml(best), "best.toml") == best
    assert isinstance(best.rules[-1].quantizer, RateDistortion)
    assert best.calibrates
    with pytest.raises(UsageError, match="treatment `rate-distortion` is for a whole checkpoint"):
        own.rules[0].apply(np.ones((2, 2)))


def test_rules_beside_it_are_kept():
    tensors, layers = toy_model()
    mixed = Recipe(
        name="mixed",
        about="",
        coder="zstd-22",
        rules=(
            Rule.of(names=["emb"], treatment="int6"),
            Rule.of(names=["q", "k"], treatment="rate-distortion", nats=0.001, **FAST),
            Rule.of(treatment="rate-distortion", nats=0.01, **FAST),
        ),
    )
    treated = quantize_checkpoint(tensors, mixed, layers)
    assert treated.keys() == tensors.keys()
    assert treated["emb"].trellis is None
    alone = RateDistortion(nats=0.001, **FAST).quantize_all({name: tensors[name] for name in "qk"}, layers)
    for name in "qk":
        assert np.array_equal(treated[name].levels, alone[name].levels)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"nats": 0.0}, "a loss of 0.0 nats; it is a positive number"),
        ({"nats": -1.0}, "a loss of -1.0 nats"),
        ({"nats": float("nan")}, "a loss of nan nats"),
        ({"nats": float("inf")}, "a loss of inf nats"),
        ({"states": 3}, "a trellis of 3 states"),
        ({"restart": 0}, "restart is at least 1"),
        ({"row_noise": 0.0}, "noises are above 0"),
        ({"token_noise": -1.0}, "noises are above 0"),
        ({"token_noise": float("nan")}, "noises are above 0"),
        ({"rate_weight": -0.1}, "rate_weight is not below 0"),
        ({"rate_weight": float("nan")}, "rate_weight is not below 0"),
        ({"row_exponent": float("inf")}, "exponent"),
        ({"column_exponent": float("nan")}, "exponent"),
    ],
)
def test_parameters_out_of_range_are_refused(bad, words):
    with pytest.raises(UsageError, match=words):
        RateDistortion(**bad)
    with pytest.raises(UsageError, match=words):
        recipe(**bad)


def test_progress_reaches_the_end_and_never_turns_back():
    tensors, layers = toy_model()
    seen = []
    quantize_checkpoint(tensors, recipe(**FAST), layers, lambda done, note: seen.append((done, note)))
    done = [each for each, _ in seen]
    assert done == sorted(done)
    assert done[-1] <= sum(each.size for each in tensors.values())
    assert done[-1] > 0.9 * WEIGHTS
    assert {note for _, note in seen} <= tensors.keys()
