"""Loads scripts of the challenge's seed family, which offer classes instead of `load`, and their quantized blobs.

Such a script has a class `Hyperparameters`, filled from the environment when it is imported, a class `GPT`, and
functions that undo its own quantization; so have the challenge's baseline and the scripts that grew from it.  Here it
runs in float32 with exact attention and nothing compiled, on any machine; its own evaluation runs in bfloat16 with a
fused kernel, so scores differ in the fourth or fifth digit, and by more where the script would have rounded the table
of its rotary embedding to bfloat16.

Source: facts about pull requests 162, 339, 1176 and 1716 of openai/parameter-golf, its baseline, and the record
2026-03-17_LoRA_TTT.
"""

import inspect
import io
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
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
# The functions that undo a script's own quantization -> keys of the blobs that they take.
DEQUANTIZE = {"dequantize_mixed_int6": {"w", "m"}, "dequantize_state_dict_int8": {"quantized", "scales", "passthrough"}}
NEED = {"m": "the tensors `w` and the labels `m`", "passthrough": "`quantized`, `scales` and `passthrough`"}
HINT = "offer `load(artifact_path, device)` that returns a module with `.logits(ids)`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """model: offers `.logits(ids)`.  length: of its windows, in tokens, if the script says.  notes: how it was made.

    again: loads it once more, as the artifact has it; None for the seed family, whose models are only asked.
    """

    model: Any
    again: Callable[[], Any] | None = None
    length: int | None = None
    notes: tuple[str, ...] = field(default=())


class SeedModel(torch.nn.Module):
    """A script's GPT behind `.logits(ids)`; with `.hidden(ids)` and `.head(hidden)` where the script has both.

    Where `forward(ids, targets)` gives a loss and nothing gives logits, they are what it hands to `cross_entropy`.
    """

    def __init__(self, gpt: torch.nn.Module) -> None:
        super().__init__()
        self.gpt, self.by_loss = gpt, not callable(getattr(gpt, "forward_logits", None))
        if hasattr(gpt, "forward_hidden") and hasattr(gpt, "compute_logits"):
            self.hidden, self.head = gpt.forward_hidden, gpt.compute_logits

    def logits(self, ids: Tensor) -> Tensor:
        """int64 (B, T) -> (B, T, V)."""
        return _handed_to_loss(self.gpt, ids) if self.by_loss else cast(Tensor, cast(Any, self.gpt).forward_logits(ids))


def _handed_to_loss(gpt: torch.nn.Module, ids: Tensor) -> Tensor:
    """The logits of the one loss that `forward` takes.  The targets it sees are the ids again: it learns nothing.

    Raises: ValueError when it takes none, several, or one of another shape.
    """
    loss, seen = torch.nn.functional.cross_entropy, list[Tensor]()

    def noted(logits: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        seen.append(logits)
        return loss(logits, *args, **kwargs)

    torch.nn.functional.cross_entropy = noted  # type: ignore[assignment]
    try:
        gpt(ids, ids)
    finally:
        torch.nn.functional.cross_entropy = loss
    shape = [*seen[0].shape] if len(seen) == 1 else []
    if len(shape) == 2 and shape[0] == ids.numel():
        return cast(Tensor, seen[0].unflatten(0, tuple(ids.shape)))
    if len(shape) == 3 and [shape[0], shape[2]] == [*ids.shape]:  # classes are its second side
        return seen[0].transpose(1, 2)
    raise ValueError(f"{len(seen)} calls of cross_entropy, shapes {[[*each.shape] for each in seen][:3]}")


def install_stubs() -> None:
    """Replace, in this process, what such scripts need and a checking machine lacks or must not trust.

    torch.compile becomes the identity, `flash_attn_interface` exact attention, and torch.load opens weights only.
    The attention of several documents in one row, `flash_attn_varlen_func`, is that of each by itself.
    """
    load = torch.load

    def weights_only(*args: Any, **kwargs: Any) -> Any:
        return load(*args, **{**kwargs, "weights_only": True})

    def same(model: Any = None, *args: Any, **kwargs: Any) -> Any:
        return model if model is not None else lambda function: function

    kernels = ModuleType("flash_attn_interface")
    kernels.flash_attn_func = attention  # type: ignore[attr-defined]
    kernels.flash_attn_varlen_func = attention_of_documents  # type: ignore[attr-defined]
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


def attention_of_documents(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    softmax_scale: float | None = None,
    causal: bool = False,
) -> Tensor:
    """The layout of flash_attn_varlen_func: q (N, H, K), k and v (N, G, K) of all documents, one after the other.

    cu_seqlens_q, cu_seqlens_k: where each begins, and the end of the last; empty ones are allowed.  max_seqlen_*: only
    a kernel needs them.
    Raises: ValueError for lengths that differ between queries and keys, as in a cache, or leave tokens out.
    """
    ends = cu_seqlens_q.tolist()
    if ends != cu_seqlens_k.tolist() or not ends or ends[0] != 0 or ends[-1] != len(q) or ends != sorted(ends):
        raise ValueError(f"documents of queries {ends[:9]} and keys {cu_seqlens_k.tolist()[:9]} in {len(q)} tokens")
    parts = [
        attention(q[None, start:end], k[None, start:end], v[None, start:end], softmax_scale, causal)[0]
        for start, end in pairwise(ends)
    ]
    return torch.cat(parts) if parts else q


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
    if hasattr(model, "looping_active"):
        model.looping_active = bool(getattr(settings, "num_loops", True))
        notes.append(f"looping_active set to {model.looping_active}")
    lengths = [getattr(settings, name, None) for name in LENGTHS]
    length = next((value for value in lengths if isinstance(value, int) and value > 0), None)
    seed = SeedModel(model.float().to(device).eval())
    if seed.by_loss:
        _check_loss(seed, device)
        notes.append("logits are what its `forward` hands to cross_entropy")
    return Loaded(model=seed, length=length, notes=tuple(notes))


def _check_loss(seed: SeedModel, device: str) -> None:
    try:
        with torch.no_grad():
            seed.logits(torch.zeros((1, 2), dtype=torch.int64, device=device))
    except Exception as error:  # foreign code
        raise InputError(
            "`GPT` offers no `forward_logits(ids)`, and `forward(ids, targets)` hands no logits to cross_entropy "
            f"({type(error).__name__}: {str(error)[:200]})",
            hint=HINT,
        ) from None


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
    known = {name: each for name in DEQUANTIZE if callable(each := getattr(module, name, None))}
    if not known:
        raise InputError(
            f"offers neither `deserialize` nor {' nor '.join(f'`{name}`' for name in DEQUANTIZE)}", hint=HINT
        )
    blob = _opened(artifact, [keys for name, keys in DEQUANTIZE.items() if name in known])
    dequantize = next(known[name] for name, keys in DEQUANTIZE.items() if name in known and keys <= blob.keys())
    template = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    rebank = getattr(module, "_rebank_state_dict", None)
    try:
        if "w" not in blob:
            state = dequantize(blob)
        elif callable(rebank):  # stored matrix by matrix, held in banks: the blob's own names are the template
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


def _opened(artifact: Path, forms: list[set[str]]) -> dict[str, Any]:
    """The content of a blob, which has the keys of one of the forms."""
    data = _expanded(artifact.read_bytes())
    try:
        blob = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # a hostile pickle makes torch fail in every way Python knows
        reason = f"{type(error).__name__}: {str(error)[:200]}"
        raise InputError(f"holds no plain tensors ({reason})", where=artifact.name) from None
    if not isinstance(blob, dict) or not any(keys <= blob.keys() for keys in forms):
        keys = _listed([str(key) for key in blob]) if isinstance(blob, dict) else type(blob).__name__
        need = " or ".join(NEED[min(keys)] for keys in forms)
        raise InputError(f"holds {keys}, need {need}", where=artifact.name)
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
