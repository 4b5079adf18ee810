"""benchmarks/compared/peers.py: what NNCodec's points hold, where it is installed, and what is said where it is not."""

import sys
from importlib.util import find_spec

import numpy as np
import pytest

from benchmarks.compared import peers
from codec.errors import EnvironmentLacks


def test_a_missing_nncodec_is_one_sentence(monkeypatch):
    monkeypatch.setattr(peers, "find_spec", lambda name: None)
    with pytest.raises(EnvironmentLacks, match="the package nncodec is missing"):
        next(peers.nncodec_points({"w": np.ones((4, 4), np.float32)}))


@pytest.mark.skipif(not find_spec("nncodec"), reason="needs nncodec, which has no wheels")
@pytest.mark.filterwarnings("default")
def test_points_hold_what_their_bytes_decode_to():
    random = np.random.default_rng(0)
    tensors = {"w": random.standard_normal((64, 48)), "gain": np.array(1.5), "empty": np.zeros((0, 3))}
    points = list(peers.nncodec_points(tensors, (-8, -16)))
    assert [point.qp for point in points] == [-8, -16]
    for point in points:
        assert point.figures().keys() == {"qp", "bytes", "snr_db", "encode_seconds", "decode_seconds"}
        assert {name: array.shape for name, array in point.tensors.items()} == {
            "w": (64, 48),
            "gain": (),
            "empty": (0, 3),
        }
        noise = sum(float(np.square(point.tensors[name] - array).sum()) for name, array in tensors.items())
        signal = sum(float(np.square(array).sum()) for array in tensors.values())
        assert point.snr_db == pytest.approx(10 * np.log10(signal / noise), abs=1e-3)
    assert points[0].bytes < points[1].bytes
    assert points[0].snr_db < points[1].snr_db
    assert "torchvision" not in sys.modules or find_spec("torchvision")
