"""Loads scripts of the challenge's seed family, which offer classes instead of `load`, and their quantized blobs.

Such a script has a class `Hyperparameters`, filled from the environment when it is imported, a class `GPT`, and
functions that undo its own quantization.  Here it runs in float32 with exact attention and nothing compiled, on any
machine; its own evaluation runs in bfloat16 with a fused kernel, so scores differ in the fourth or fifth digit, and by
more where the script would have rounded the table of its rotary embedding to bfloat16.

Source: facts about pull requests 162, 339, 1176 and 1716 of openai/parameter-golf.
"""

import inspect
import io
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from codec.errors import InputError
from codec.storage.decompress import ZIP, undo

MAX_BLOB = 1 << 30  # bytes that a blob may expand to; full-size ones have 40 million
LENGTHS = ("eval_seq_len", "train_seq_len")  # settings that say how long the windows are, best first
DROPPED = {"mtp_num_heads": 0, "mtp_loss_weight": 0.0}  # heads that predict further tokens are not exported
HINT = "offer `load(artifact_path, device)` that returns a module with `.logits(ids)`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """model: offers `.logits(ids)`.  length: of its windows, in tokens, if the script says.  notes: how it was made."""

    model: Any
    length: int | None = None
    notes: tuple[str, ...] = field(default=())


class SeedModel(torch.nn.Module):
    """A script's GPT behind `.logits(ids)`; with `.hidden(ids)` and `.head(hidden)` where the script has both."""

    def __init__(self, gpt: torch.nn.Module) -> None:
        super().__init__()
        self.gpt = gpt
        if hasattr(gpt, "forward_hidden") and hasattr(gpt, "compute_logits"):
            self.hidden, self.head = gpt.forward_hidden, gpt.compute_logits

    def logits(self, ids: Tensor) -> Tensor:
        """int64 (B, T) -> (B, T, V)."""
        return cast(Tensor, cast(Any, self.gpt).forward_logits(ids))


def install_stubs() -> None:
    """Replace, in this process, what such scripts need and a checking machine lacks or must not trust.

    torch.compile becomes the identity, `flash_attn_interface` exact attention, and torch.load opens weights only.
    """
    load = torch.load

    def weights_only(*args: Any, **kwargs: Any) -> Any:
        return load(*args, **{**kwargs, "weights_only": True})

    def same(model: Any = None, *args: Any, **kwargs: Any) -> Any:
        return model if model is not None else lambda function: function

    kernels = ModuleType("flash_attn_interface")
    kernels.flash_attn_func = attention  # type: ignore[attr-defined]
    sys.modules["flash_attn_interface"] = kernels
    torch.compile = same
    torch.load = weights_only


def attention(q: Tensor, k: Tensor, v: Tensor, softmax_scale: float | None = None, causal: bool = False) -> Tensor:
    """Exact softmax attention in the layout of flash_attn_func: q (B, T, H, K), k and v (B, T, G, K) -> (B, T, H, K).

    Query head h reads key and value head h // (H / G).
    """
    heads = q.shape[2] // k.shape[2]
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    if heads > 1:
        k, v = k.repeat_interleave(heads, 1), v.repeat_interleave(heads, 1)
    out = scaled_dot_product_attention(q, k.to(q.dtype), v.to(q.dtype), is_causal=causal, scale=softmax_scale)
    return out.transpose(1, 2)


def load(module: ModuleType, artifact: Path, device: str) -> Loaded:
    """Build a script's model from its class and settings, and fill it from its blob by its own functions.

    Raises: InputError when the script is of another family, or its blob and its settings do not fit together.
    """
    if not (
        isinstance(getattr(module, "Hyperparameters", None), type) and isinstance(getattr(module, "GPT", None), type)
    ):
        raise InputError("offers neither `load(artifact_path, device)` nor the classes of the seed family", hint=HINT)
    settings = module.Hyperparameters()
    torch.nn.Module.bfloat16 = lambda self: self  # type: ignore[method-assign] # all stays float32
    if callable(getattr(module, "deserialize", None)):
        settings.quantized_model_path = str(artifact)
        model, notes = module.deserialize(settings, torch.device(device)), ["loaded by its own `deserialize`"]
    else:
        model, notes = _build(module.GPT, settings)
        _fill(model, module, settings, artifact)
    if not callable(getattr(model, "forward_logits", None)):
        raise InputError("`GPT` offers no `forward_logits(ids)`", hint=HINT)
    if hasattr(model, "looping_active"):
        model.looping_active = bool(getattr(settings, "num_loops", True))
        notes.append(f"looping_active set to {model.looping_active}")
    lengths = [getattr(settings, name, None) for name in LENGTHS]
    length = next((value for value in lengths if isinstance(value, int) and value > 0), None)
    return Loaded(model=SeedModel(model.float().to(device).eval()), length=length, notes=tuple(notes))


def _build(cls: type, settings: Any) -> tuple[Any, list[str]]:
    """The class called with the settings it names, or with the settings themselves when it takes one thing."""
    parameters = {
        name: parameter
        for name, parameter in inspect.signature(cls).parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    chosen, left, lacking = dict[str, Any](), list[str](), list[str]()
    for name, parameter in parameters.items():
        # A switch is `dtg` for the class and `dtg_enabled` among the settings.
        source = next((each for each in (name, f"{name}_enabled") if hasattr(settings, each)), None)
        if name in DROPPED or source:
            chosen[name] = DROPPED[name] if name in DROPPED else getattr(settings, source or name)
        else:
            (lacking if parameter.default is parameter.empty else left).append(name)
    if lacking and len(parameters) == 1:
        return cls(settings), ["GPT built from Hyperparameters"]
    if lacking:
        raise InputError(f"`GPT` needs {_listed(lacking)}, which `Hyperparameters` does not have", hint=HINT)
    notes = [f"GPT built from {len(chosen)} of the Hyperparameters"]
    if left:
        notes.append(f"left at the class's own default: {_listed(left)}")
    return cls(**chosen), notes


def _fill(model: Any, module: ModuleType, settings: Any, artifact: Path) -> None:
    """The blob's levels and scales -> weights by the script's functions, into the model; every key must fit."""
    dequantize = getattr(module, "dequantize_mixed_int6", None)
    if not callable(dequantize):
        raise InputError("offers neither `deserialize` nor `dequantize_mixed_int6`", hint=HINT)
    blob = _opened(artifact)
    template = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    rebank = getattr(module, "_rebank_state_dict", None)
    try:
        if callable(rebank):  # stored matrix by matrix, held in banks: the blob's own names are the template
            names = {name: _like(blob["w"], name) for name in blob["m"]}
            state = rebank(dequantize(blob["w"], blob["m"], names), settings.num_layers, template)
        else:
            state = dequantize(blob["w"], blob["m"], template)
        model.load_state_dict(state, strict=True)
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            f"does not fit the model its settings describe ({type(error).__name__}: {str(error)[:300]})",
            where=artifact.name,
            hint="pass the settings of the run with --env NAME=VALUE",
        ) from None


def _opened(artifact: Path) -> dict[str, Any]:
    """{"w": tensors, "m": labels} of a blob."""
    data = _expanded(artifact.read_bytes())
    try:
        blob = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # a hostile pickle makes torch fail in every way Python knows
        reason = f"{type(error).__name__}: {str(error)[:200]}"
        raise InputError(f"holds no plain tensors ({reason})", where=artifact.name) from None
    if not isinstance(blob, dict) or not {"w", "m"} <= blob.keys():
        keys = _listed([str(key) for key in blob]) if isinstance(blob, dict) else type(blob).__name__
        raise InputError(f"holds {keys}, need the tensors `w` and the labels `m`", where=artifact.name)
    return blob


def _like(stored: dict[str, Tensor], name: str) -> Tensor:
    """A float32 tensor of the shape that a name has once it is dequantized."""
    tensor = next((stored[key] for key in (name, f"{name}.q", f"{name}.q_pt") if key in stored), torch.empty(0))
    return torch.zeros(tensor.shape)


def _expanded(data: bytes) -> bytes:
    """The torch.save file inside a blob: bare, or behind zstd, xz, lzma, zlib or brotli."""
    if data.startswith(ZIP):
        return data
    try:
        return undo(data, MAX_BLOB)[1]
    except InputError as error:
        raise InputError(f"the blob cannot be decompressed: {error.message}", hint="copy it again") from None


def _listed(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
