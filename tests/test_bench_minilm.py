"""benchmarks/bench_minilm.py on a tiny encoder: as many bytes means it, and its tables say what its rows say."""

import json
from importlib.util import find_spec

import numpy as np
import pytest

from benchmarks.bench_minilm import EQUAL, SHORT, Race, Rows, tables
from benchmarks.compared import torchao_peer
from benchmarks.compared.torchao_peer import torchao_packed, torchao_schemes
from benchmarks.models.subjects import SentenceEncoder
from codec.errors import EnvironmentLacks
from tests.test_minilm import subject  # noqa: F401


def test_best_gets_as_many_bytes_or_few_less(subject, tmp_path):  # noqa: F811
    rows = Rows(tmp_path / "rows.json")
    known = {0: subject.calibrate(sequences=64)}
    race = Race(subject=SentenceEncoder(name="tiny", encoder=subject, calibrations=known), add=rows.add)
    limit = race.weights * 7 // 8
    race.run(EQUAL, "torchao int8", lambda: race.best(limit))
    (row,) = json.loads((tmp_path / "rows.json").read_text())["results"]
    assert limit * (1 - SHORT) <= row["bytes"] <= limit
    assert row["bits"] == pytest.approx(8 * row["bytes"] / race.weights, rel=1e-5)
    assert row["decibels"] < -20


def test_the_tables_pair_a_peer_with_best_at_its_bytes():
    common = {"weights": 100, "bits": 3.0, "one_minus_cosine": 0.5}
    rows = [
        {"scheme": "nncodec", "aim": 3.0, "bytes": 40, "decibels": -8.5, **common},
        {"scheme": EQUAL, "aim": "nncodec 3", "bytes": 39, "decibels": -13.25, **common},
        {"scheme": "torchao int8", "aim": "", "bytes": 100, "decibels": -29.0, **common},
        {"scheme": "pr162", "aim": 3.0, "bytes": 41, "decibels": -6.5, **common},
    ]
    text = "\n".join(tables(rows))
    assert "| nncodec | 40 | 3.000 | -8.50 | -13.25 |" in text
    assert "| torchao int8 | 100 | 3.000 | -29.00 | |" in text
    assert "| pr162 | 41 | 3.000 | -6.50 | 0.50000 |" in text


def test_a_missing_torchao_is_one_sentence(monkeypatch):
    monkeypatch.setattr(torchao_peer, "find_spec", lambda name: None)
    with pytest.raises(EnvironmentLacks, match="the package torchao is missing"):
        torchao_packed({"w": np.ones((4, 4), np.float32)}, 8, lambda: None)


@pytest.mark.skipif(not find_spec("torchao"), reason="needs torchao")
@pytest.mark.filterwarnings("default")
def test_torchaos_bytes_are_its_levels_and_scales():
    tensors = {"w": np.random.default_rng(0).standard_normal((64, 256)).astype(np.float32)}
    sizes = {name: torchao_packed(tensors, *each).bytes for name, each in torchao_schemes().items()}
    assert sizes["torchao int8, a scale per row"] == 64 * 256 + 64 * 4
    assert sizes["torchao int4, groups of 32"] == 64 * 256 // 2 + 64 * 8 * 2
