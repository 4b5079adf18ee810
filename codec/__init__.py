"""Weights <-> bytes: quantizers, recipes, an rANS entropy coder, the artifact container.  numpy only.

    >>> import numpy as np
    >>> import codec
    >>> weights = np.array([[0.31, -0.62, 0.1], [1.0, 0.5, -0.25]], np.float32)
    >>> six = codec.Rule.of(treatment="int6").apply(weights)
    >>> six.levels
    array([[ 15, -31,   5],
           [ 31,  16,  -8]], dtype=int8)
    >>> six.scales
    array([0.02   , 0.03226], dtype=float16)

An artifact holds any number of tensors, quantized or plain, and one JSON object:

    >>> blob = codec.encode({"w": six, "bias": np.zeros(3, np.float32)}, {"recipe": "six"})
    >>> len(blob)
    295
    >>> codec.decode(blob)["w"]
    array([[ 0.3000641 , -0.62013245,  0.10002136],
           [ 0.9999695 ,  0.5161133 , -0.25805664]], dtype=float32)

The ledger says what each tensor costs.  So small an artifact is mostly header and tables:

    >>> costs = codec.ledger(blob)
    >>> [(row.name, row.stored_as, round(row.bytes, 2)) for row in costs.rows]
    [('bias', 'float32', 0.0), ('w', 'int6', 5.94)]
    >>> round(costs.header_bytes, 2), costs.table_bytes
    (87.56, 199)
"""

from typing import TYPE_CHECKING

from codec.lazy import lazy

if TYPE_CHECKING:
    from codec.allocation.fit import fit_recipe
    from codec.allocation.plan import FittedRecipe
    from codec.budget import PARAMETER_GOLF, Budget
    from codec.decoder import QuantizedTensor, decode, read_meta, unpack
    from codec.encoder import encode
    from codec.errors import CodecError, EnvironmentLacks, InputError, LimitError, PgolfError, UsageError
    from codec.measurement.byte_ledger import ByteLedger, ledger
    from codec.measurement.measurement import Measurement, measure
    from codec.model_file import DecodedModel, EncodedModel, decode_checkpoint, encode_checkpoint
    from codec.quantization.recipe import Recipe, Rule, quantize_checkpoint
    from codec.quantization.recipe_files import load_recipe, recipe_names, recipe_toml
    from codec.storage.checkpoint import read_checkpoint, write_checkpoint
else:
    __getattr__, __dir__ = lazy(
        __name__,
        {
            "codec.allocation.fit": ("fit_recipe",),
            "codec.allocation.plan": ("FittedRecipe",),
            "codec.budget": ("PARAMETER_GOLF", "Budget"),
            "codec.decoder": ("QuantizedTensor", "decode", "read_meta", "unpack"),
            "codec.encoder": ("encode",),
            "codec.errors": (
                "CodecError",
                "EnvironmentLacks",
                "InputError",
                "LimitError",
                "PgolfError",
                "UsageError",
            ),
            "codec.measurement.byte_ledger": ("ByteLedger", "ledger"),
            "codec.measurement.measurement": ("Measurement", "measure"),
            "codec.model_file": ("DecodedModel", "EncodedModel", "decode_checkpoint", "encode_checkpoint"),
            "codec.quantization.recipe": ("Recipe", "Rule", "quantize_checkpoint"),
            "codec.quantization.recipe_files": ("load_recipe", "recipe_names", "recipe_toml"),
            "codec.storage.checkpoint": ("read_checkpoint", "write_checkpoint"),
        },
    )

__all__ = [
    "PARAMETER_GOLF",
    "Budget",
    "ByteLedger",
    "CodecError",
    "DecodedModel",
    "EncodedModel",
    "EnvironmentLacks",
    "FittedRecipe",
    "InputError",
    "LimitError",
    "Measurement",
    "PgolfError",
    "QuantizedTensor",
    "Recipe",
    "Rule",
    "UsageError",
    "decode",
    "decode_checkpoint",
    "encode",
    "encode_checkpoint",
    "fit_recipe",
    "ledger",
    "load_recipe",
    "measure",
    "quantize_checkpoint",
    "read_checkpoint",
    "read_meta",
    "recipe_names",
    "recipe_toml",
    "unpack",
    "write_checkpoint",
]
