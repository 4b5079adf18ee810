"""benchmarks/bench_rd.py on a tiny model: what its rows hold, that its bound and its tables are right."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks import report_rd
from benchmarks.bench_rd import bench
from benchmarks.compared.gaussian_bound import component_variances, gap, ideal_gap, least_distortion
from benchmarks.compared.schemes import equal_rates, lmmse, multiplied, scalar, schemes, watersic, without_model
from benchmarks.models.subjects import language_model
from codec.encoder import encode
from codec.entropy.models import ENTROPY_MODELS
from codec.errors import InputError
from codec.measurement.byte_ledger import ledger
from codec.storage.checkpoint import write_checkpoint
from codec.storage.token_shards import shard_bytes
from tests.conftest import ROOT
from trainer.model.gpt import GPT, GPTConfig

SPREADS = (0.05, 0.2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint of a small model, shards of random text, a tokenizer."""
    from trainer.data.tokenizer import train_tokenizer

    path, random = tmp_path_factory.mktemp("bench_rd"), np.random.default_rng(0)
    words = ["".join(random.choice(list("abcdefghij"), 4)) for _ in range(200)]
    documents = [" ".join(random.choice(words, 40)) for _ in range(50)]
    (path / "words.model").write_bytes(train_tokenizer(documents, 300, or_fewer=True))
    for split in ("train", "val"):
        (path / f"text_{split}_000000.bin").write_bytes(shard_bytes(random.integers(300, size=5000)))
    model = GPT(GPTConfig(vocab_size=300, seq_len=32, layers=2, dim=32, heads=2, kv_heads=2, mlp_hidden=96))
    tensors = {}
    for name, value in model.state_dict().items():
        spread = random.uniform(*SPREADS, (len(value), 1)) if value.ndim == 2 else 0.1
        tensors[name] = (spread * random.standard_normal(value.shape)).astype(np.float32)
    write_checkpoint(path / "checkpoint.safetensors", tensors, {"config": model.config.to_dict()})
    return path


@pytest.fixture(scope="module")
def subject(folder):
    return language_model("tiny", folder / "checkpoint.safetensors", folder, targets=256)


def test_a_model_scores_nothing_against_itself_and_loses_by_noise(subject):
    own = subject.score(subject.tensors)
    assert own == {"loss": 0, "bpb": 0, "kl": pytest.approx(0, abs=1e-12)}
    noisy = {name: array + 0.05 for name, array in subject.tensors.items() if array.ndim == 2}
    assert subject.score(noisy)["kl"] > 1e-4
    assert subject.score({})["kl"] == pytest.approx(0, abs=1e-12)  # and is what it was


def test_every_row_gets_the_same_bits_under_equal_rates(subject):
    layers = subject.calibrate()
    part = {name: subject.tensors[name] for name in multiplied(layers, subject.tensors)}
    treated = scalar().coarsened(-2).quantize_all(part, equal_rates(layers, part))
    rates = [row.entropy_bits / row.weights for row in ledger(encode(treated, {})).rows]
    assert max(rates) - min(rates) < 0.1
    spread = [np.log2(tensor.levels.std(1)) for tensor in treated.values()]
    assert np.ptp(np.concatenate(spread)) < 0.8  # of rows whose spreads differ by 2 octaves


def test_lmmse_only_lowers_the_weighted_error(subject):
    layers = subject.calibrate()
    packed = schemes(whole=False)["watersic"](subject.tensors, layers, 2.0)
    plain = watersic().coarsened(2.0).quantize_all(subject.tensors, equal_rates(layers, subject.tensors))
    for name in multiplied(layers, subject.tensors):
        known = layers.hessians[name].astype(np.float64)
        errors = [each - subject.tensors[name] for each in (plain[name].dequantize(), packed.weights[name])]
        before, after = (np.einsum("ij,jk,ik->", each, known, each) for each in errors)
        assert after <= before * (1 + 1e-6)
    again = lmmse(subject.tensors, subject.tensors, layers)
    assert all(np.allclose(again[name], subject.tensors[name], rtol=1e-5) for name in again)


def test_the_bound_is_that_of_gaussian_components():
    assert least_distortion(np.full(10, 3.0), bits=20) == pytest.approx(30 / 16)  # 2 bits each: a 16th
    # Water at 1: the components of 4 and 1 get 1 and 0 bits, that of 1/4 none and stays as it is.
    assert least_distortion(np.array([4.0, 1.0, 0.25]), bits=1) == pytest.approx(2.25)
    weights = np.random.default_rng(0).standard_normal((64, 2000))
    step = 0.25
    rounded = np.rint(weights / step)
    counts = np.unique(rounded, return_counts=True)[1] / rounded.size
    bits = -(counts * np.log2(counts)).sum() * weights.size
    variances = component_variances(weights[:, :50], np.eye(50), np.ones(64))
    assert variances.sum() == pytest.approx(np.square(weights[:, :50]).sum(), rel=1e-6)
    found = gap(np.ones(weights.size), float(np.square(weights - step * rounded).sum()), bits)
    assert found == pytest.approx(1.53, abs=0.05)  # pi e / 6, what uniform steps cost


@pytest.mark.slow
def test_more_states_come_nearer_to_the_bound():
    uniform, few, many = (ideal_gap(states, 0.2)[1] for states in (1, 4, 16))
    assert uniform == pytest.approx(1.55, abs=0.03)
    assert 0.3 < many < few < 0.65


def test_the_report_reads_curves_and_finds_who_is_better():
    def row(scheme, bits, kl):
        about = {"kind": "point", "subject": "m", "scope": "part", "scheme": scheme, "seed": 0, "bytes": 1000 * bits}
        return about | {"bits": bits, "kl": kl, "bpb": kl, "loss": kl, "predicted": kl / 2}

    rows = [row("best", 2, 0.04), row("best", 4, 0.01), row("pr162", 3, 0.021), row("pr1716", 3, 0.019)]
    own = report_rd.points(rows, "m", "part", "best")
    assert report_rd.at(own, 3, "kl") == pytest.approx(0.02)
    assert report_rd.at(own, 5, "kl") is None
    assert report_rd.size_at(own, 0.02, "kl") == pytest.approx(3000)
    assert [each.split(" at")[0] for each in report_rd.violations(rows, ["m"])] == ["m, part, pr1716"] * 2
    assert report_rd.line(rows, "kl") == (pytest.approx(2), pytest.approx(0), 4)


@pytest.mark.slow
def test_rows_add_up_and_pictures_are_drawn(folder, tmp_path):
    pytest.importorskip("matplotlib")
    arguments = ["--weights", f"tiny={folder / 'checkpoint.safetensors'}", "--data", folder, "--targets", 256]
    arguments += [
        "--rate",
        4,
        "--rate",
        3,
        "--scheme",
        "best",
        "--scheme",
        "pr162",
        "--run",
        "curves",
        "--run",
        "files",
    ]
    output = tmp_path / "rd.json"
    done = CliRunner().invoke(bench, [*map(str, arguments), "--output", str(output)], catch_exceptions=False)
    assert done.exit_code == 0
    rows = json.loads(output.read_text())["results"]
    points = [row for row in rows if row["kind"] == "point"]
    assert {(row["scope"], row["scheme"]) for row in points} == {
        (scope, scheme) for scope in ("part", "file") for scheme in ("best", "pr162")
    }
    for row in points:
        assert row["bits"] == pytest.approx(8 * row["bytes"] / row["weights"], rel=1e-4)
        assert row["kl"] > 0
    arguments = [each for each in arguments if each != "files"][:-1]
    again = CliRunner().invoke(bench, [*map(str, arguments), "--output", str(output)], catch_exceptions=False)
    assert again.exit_code == 0
    assert len(json.loads(output.read_text())["results"]) == len(rows)  # replaced, not added
    shown = CliRunner().invoke(report_rd.report, [str(output), "--images", str(tmp_path)], catch_exceptions=False)
    assert shown.exit_code == 0
    assert "## tiny" in shown.output
    assert all((tmp_path / f"rd_{name}.png").stat().st_size > 10_000 for name in ("curves", "files", "prediction"))


def test_a_model_is_left_out_for_one_scheme_alone():
    seen = []

    def scheme(*_):
        seen.append(set(ENTROPY_MODELS))
        raise InputError("on purpose")

    before = set(ENTROPY_MODELS)
    with pytest.raises(InputError):
        without_model("settled classes", scheme)({}, None, 0.0)
    assert (seen, set(ENTROPY_MODELS)) == ([before - {"settled classes"}], before)


def test_committed_figures_are_read():
    path = ROOT / "benchmarks" / "results" / "bench_rd.json"
    done = CliRunner().invoke(report_rd.report, [str(path)], catch_exceptions=False)
    assert done.exit_code == 0
    assert "## cpu-bench: KL, nats" in done.output
