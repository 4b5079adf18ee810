"""torchao's weight-only integers on the CPU, as peers of bench_minilm.py: what they store and what they compute with.

torchao keeps the levels of `int4` and `int3` in one byte each where the CPU has no packed kernel.  They are counted
here as packed: so many bits for each level as its type has, and the scales in the type that they have.  The zero points
of symmetric integers are all 0 and count nothing.
"""

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any

import numpy as np

from benchmarks.compared.schemes import Packed
from codec.errors import EnvironmentLacks

Config = Callable[[], Any]


def torchao_schemes() -> dict[str, tuple[int, Config]]:
    """By name: (bits of a level, what makes the configuration)."""
    return {
        "torchao int4, groups of 32": (4, lambda: _grouped("int4", 32)),
        "torchao int4, groups of 32, HQQ": (4, lambda: _grouped("int4", 32, hqq=True)),
        "torchao int4, groups of 128": (4, lambda: _grouped("int4", 128)),
        "torchao int3, groups of 64, HQQ": (3, lambda: _grouped("int3", 64, hqq=True)),
        "torchao int8, a scale per row": (8, _int8),
    }


def torchao_packed(tensors: Mapping[str, np.ndarray], bits: int, config: Config) -> Packed:
    """Every matrix as the weight of an `nn.Linear` under `quantize_`.

    Raises: EnvironmentLacks where torchao is not installed.
    """
    if not find_spec("torchao"):
        raise EnvironmentLacks("the package torchao is missing", hint="pip install torchao==0.18.0")
    import torch
    from torch import nn
    from torchao.quantization import quantize_

    weights, size = {}, 0
    for name, array in tensors.items():
        layer = nn.Linear(array.shape[1], array.shape[0], bias=False)
        with torch.no_grad():
            layer.weight.copy_(torch.tensor(array))
        holder = nn.Sequential(layer)
        quantize_(holder, config())
        stored: Any = holder[0].weight
        low, high = int(stored.qdata.min()), int(stored.qdata.max())
        assert -(1 << bits - 1) <= low <= high < 1 << bits - 1, (name, low, high)
        assert not stored.zero_point.any(), name
        size += -(-array.size * bits // 8) + stored.scale.numel() * stored.scale.element_size()
        weights[name] = stored.dequantize().detach().float().numpy()
    return Packed(weights=weights, bytes=size)


def _int8() -> Any:
    from torchao.quantization import Int8WeightOnlyConfig

    return Int8WeightOnlyConfig()


def _grouped(dtype: str, group: int, hqq: bool = False) -> Any:
    """bfloat16 scales, as torchao stores them for a bfloat16 model: half of what float32 ones cost."""
    import torch
    from torchao.quantization import IntxWeightOnlyConfig
    from torchao.quantization.granularity import PerGroup
    from torchao.quantization.quantize_.workflows.intx.intx_choose_qparams_algorithm import IntxChooseQParamsAlgorithm

    algorithm = IntxChooseQParamsAlgorithm.HQQ_SCALE_ONLY if hqq else IntxChooseQParamsAlgorithm.AFFINE
    return IntxWeightOnlyConfig(
        weight_dtype=getattr(torch, dtype),
        granularity=PerGroup(group),
        scale_dtype=torch.bfloat16,
        intx_choose_qparams_algorithm=algorithm,
    )
