"""Weights <-> bytes: quantizers, recipes, an rANS entropy coder, the artifact container.  numpy only."""

from codec.decoder import QuantizedTensor, decode, read_meta, unpack
from codec.encoder import encode
from codec.errors import CodecError, PgolfError
from codec.measurement.byte_ledger import ByteLedger, ledger
from codec.quantization.recipe import Recipe, load_recipe, quantize_checkpoint

__all__ = [
    "ByteLedger",
    "CodecError",
    "PgolfError",
    "QuantizedTensor",
    "Recipe",
    "decode",
    "encode",
    "ledger",
    "load_recipe",
    "quantize_checkpoint",
    "read_meta",
    "unpack",
]
