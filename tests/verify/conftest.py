"""A small tokenizer, a held-out shard and a bigram submission whose exact score is known."""

import io
import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import sentencepiece

from codec.encoder import encode
from codec.storage.token_shards import shard_bytes
from packager.script.bundle import bundle
from packager.script.wrapper import wrap
from verify.scoring.heldout import HeldOut

DOCUMENTS = ["the cat sat on the mat", "a naïve café — 3 cats", "the dog and the cat ran", "tea 茶 and cake"]

BIGRAM = """
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
"""


@cache
def wrapped(script: str) -> bytes:
    """The script as one file with the modules it imports."""
    parts = bundle(script, "train_gpt.py")
    return wrap(parts.main, parts.modules)


def train_tokenizer(path: Path, documents=tuple(DOCUMENTS[:3] * 5), **options) -> Path:
    model = io.BytesIO()
    settings = {
        "vocab_size": 300,
        "model_type": "bpe",
        "byte_fallback": True,
        "add_dummy_prefix": False,
        "normalization_rule_name": "nmt_nfkc",
        "character_coverage": 1.0,
        "minloglevel": 3,
        "pad_id": 0,
        "bos_id": 1,
        "eos_id": 2,
        "unk_id": 3,
        "num_threads": 1,
        "required_chars": "\u2581",
        "hard_vocab_limit": False,
    }
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(documents), model_writer=model, **settings | options
    )
    path.write_bytes(model.getvalue())
    return path


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    """A data folder; the last document has characters that only byte pieces can spell."""
    folder = tmp_path_factory.mktemp("data")
    tokenizer = train_tokenizer(folder / "small.model")
    model = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer))
    tokens = [i for text in DOCUMENTS * 4 for i in [1, *model.encode(text)]]
    (folder / "text_val_000000.bin").write_bytes(shard_bytes(np.array(tokens)))
    return folder


@pytest.fixture(scope="session")
def heldout(data) -> HeldOut:
    return HeldOut.read([data / "text_val_000000.bin"], data / "small.model")


@pytest.fixture(scope="session")
def table(heldout) -> np.ndarray:
    """Bigram logits."""
    return np.random.default_rng(5).normal(0, 3, (300, 300)).astype(np.float32)


@pytest.fixture(scope="session")
def bigram_nats(heldout, table) -> float:
    """The exact score: float64 log-softmax of the table, summed over all targets."""
    logits = table.astype(np.float64)
    log_partition = np.log(np.exp(logits).sum(1))
    previous, target = heldout.tokens[:-1].astype(int), heldout.tokens[1:].astype(int)
    return float((log_partition[previous] - logits[previous, target]).sum())


@pytest.fixture
def write_submission(tmp_path, table, heldout):
    """Write a submission folder around a script; `carried` packs the modules it imports."""

    def write(script: str = BIGRAM, *, carried: bool = True, tensors=None, meta=None, claims=None) -> Path:
        folder = tmp_path / "submission"
        folder.mkdir(exist_ok=True)
        (folder / "train_gpt.py").write_bytes(wrapped(script) if carried else script.encode())
        meta = {"config": {"seq_len": 16}, "tokenizer_sha256": heldout.tokenizer_sha256} if meta is None else meta
        (folder / "model.bin").write_bytes(encode({"table": table} if tensors is None else tensors, meta))
        if claims is not None:
            (folder / "submission.json").write_text(json.dumps(claims))
        return folder

    return write
