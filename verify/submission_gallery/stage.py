"""What cheating folders are played on: a small text with its tokenizer, and an honest submission to change."""

import io
import json
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import sentencepiece

from codec import decoder, errors
from codec.encoder import encode
from codec.storage.token_shards import shard_bytes
from verify.sandbox.launch import Settings
from verify.scoring.heldout import HeldOut
from verify.scoring.token_bytes import BOS

LENGTH = 32  # tokens of a window
SETTINGS = Settings(length=LENGTH, stride=16, batch=4, threads=1)
TRAINED, HELD_OUT, SPARE = 400, 160, 160  # documents: for the model, for the score, and others of the same kind
VOCAB = 128
SMOOTHING = 0.1  # of the counts; about the best for a table of this size
NOUNS = (
    *("cat", "dog", "mat", "cake", "tea", "café", "owl", "bird", "fox", "hill", "lamp"),
    *("door", "road", "ship", "king", "wolf", "tree", "song", "stone", "river"),
)
VERBS = ["sat", "ran", "ate", "saw", "took", "left", "found", "kept", "made", "lost", "sang", "met"]
PLACES = ["on", "under", "near", "behind", "above", "beside"]
LINKS = ("and", "—", "then", "but", "while")

SCRIPT = '''\
"""An honest submission: a table of what follows what."""

import torch
from codec.decoder import decode


class Bigram(torch.nn.Module):
    def __init__(self, table):
        super().__init__()
        self.table = torch.nn.Parameter(torch.tensor(table))

    def logits(self, ids):
        return self.table[ids]


def load(artifact_path, device="cpu"):
    with open(artifact_path, "rb") as file:
        return Bigram(decode(file.read())["table"]).to(device)
'''


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """data: folder with the held-out shard and the tokenizer.  spare: documents of the same kind, one JSON per line.

    table: float32 (V, V), the honest model.  heldout: the text as `verify` reads it.
    """

    data: Path
    spare: Path
    table: np.ndarray
    heldout: HeldOut

    def write(self, folder: Path, script: str = SCRIPT, tensors: dict[str, np.ndarray] | None = None) -> None:
        """Write the honest submission, or one around another script or other tensors; the decoder lies beside it."""
        (folder / "codec").mkdir(parents=True, exist_ok=True)
        (folder / "codec" / "__init__.py").write_bytes(b"")
        for module in (decoder, errors):
            source = Path(str(module.__file__))
            shutil.copyfile(source, folder / "codec" / source.name)
        (folder / "train_gpt.py").write_text(script)
        meta = {"config": {"seq_len": SETTINGS.length}, "tokenizer_sha256": self.heldout.tokenizer_sha256}
        (folder / "model.bin").write_bytes(encode({"table": self.table} if tensors is None else tensors, meta))


def build_stage(folder: Path) -> Stage:
    """Write the text and tokenizer below folder, and count the honest model from other documents of the kind."""
    documents = _documents()
    trained, rest = documents[:TRAINED], documents[TRAINED:]
    data, spare = folder / "data", folder / "spare.jsonl"
    data.mkdir()
    tokenizer = data / "stage.model"
    tokenizer.write_bytes(_tokenizer(trained))
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer))
    shard = data / "stage_val_000000.bin"
    shard.write_bytes(shard_bytes(np.array(_ids(pieces, rest[:HELD_OUT]))))
    spare.write_text("".join(json.dumps({"text": text}) + "\n" for text in rest[HELD_OUT:]))
    ids = np.array(_ids(pieces, trained))
    counts = np.full((pieces.vocab_size(),) * 2, SMOOTHING)
    np.add.at(counts, (ids[:-1], ids[1:]), 1)
    table = np.log(counts / counts.sum(1, keepdims=True)).astype(np.float32)
    return Stage(data=data, spare=spare, table=table, heldout=HeldOut.read([shard], tokenizer))


@cache
def _documents() -> tuple[str, ...]:
    """Sentences of a tiny grammar, two to six a document; the same ones everywhere."""
    rng = np.random.default_rng(13)

    def clause() -> str:
        noun, verb, place, other = (str(rng.choice(words)) for words in (NOUNS, VERBS, PLACES, NOUNS))
        return f"the {noun} {verb} {place} the {other}"

    def document() -> str:
        return f" {rng.choice(LINKS)} ".join(clause() for _ in range(rng.integers(2, 7)))

    return tuple(document() for _ in range(TRAINED + HELD_OUT + SPARE))


def _ids(pieces: sentencepiece.SentencePieceProcessor, documents: tuple[str, ...]) -> list[int]:
    return [i for text in documents for i in (BOS, *pieces.encode(text))]


@cache
def _tokenizer(documents: tuple[str, ...]) -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(documents),
        model_writer=model,
        vocab_size=VOCAB + 256,
        model_type="bpe",
        byte_fallback=True,
        add_dummy_prefix=False,
        normalization_rule_name="nmt_nfkc",
        character_coverage=1.0,
        minloglevel=3,
        pad_id=0,
        bos_id=BOS,
        eos_id=2,
        unk_id=3,
        num_threads=1,
        required_chars="\u2581",
        hard_vocab_limit=False,
    )
    return model.getvalue()
