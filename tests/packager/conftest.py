"""A small trained-looking checkpoint and the data to evaluate it on, made once."""

import hashlib
import io
import json

import numpy as np
import pytest
import torch

from codec.storage.checkpoint import write_checkpoint
from codec.storage.token_shards import shard_bytes

TEXT = "The quick brown fox jumps over the lazy dog; 12 boxing wizards think quickly about nothing at all.\n"


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """Folder with a tokenizer of 300 pieces and a validation shard of about 600 tokens."""
    from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

    folder, model = tmp_path_factory.mktemp("data"), io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter([TEXT] * 20),
        model_writer=model,
        model_type="bpe",
        vocab_size=300,
        byte_fallback=True,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    (folder / "tiny.model").write_bytes(model.getvalue())
    ids = SentencePieceProcessor(model_proto=model.getvalue()).encode([TEXT + "ünïcode"] * 15, add_bos=True)
    (folder / "tiny_val_000000.bin").write_bytes(shard_bytes(np.concatenate(ids)))
    return folder


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory, data):
    """An untrained model with every part of the architecture, and a log beside it."""
    from trainer.model.gpt import GPT, GPTConfig

    torch.manual_seed(0)
    model = GPT(
        GPTConfig(
            vocab_size=320,
            seq_len=32,
            layers=2,
            dim=64,
            heads=4,
            kv_heads=2,
            mlp_hidden=128,
            bigram_buckets=32,
            bigram_dim=16,
            smear="vector",
        )
    )
    path = tmp_path_factory.mktemp("run") / "checkpoint.safetensors"
    tokenizer = hashlib.sha256((data / "tiny.model").read_bytes()).hexdigest()
    write_checkpoint(
        path,
        {name: value.numpy() for name, value in model.state_dict().items()},
        {
            "config": model.config.to_dict(),
            "tokenizer_sha256": tokenizer,
            "preset": "tiny",
            "steps": 3,
            "tokens": 96,
            "train_seconds": 1.5,
            "seed": 7,
        },
    )
    (path.parent / "train.log").write_text("step:3/3 train_loss:5.7\n")
    return path


@pytest.fixture
def recipe(tmp_path):
    """A recipe file that gives the small test matrices 6 bits, as large ones get."""
    path = tmp_path / "six.toml"
    rules = [{"max_weights": 500, "treatment": "float16"}, {"treatment": "int6"}]
    path.write_text(
        'name = "six"\nabout = "test"\ncoder = "zstd-22"\nversion = 1\n'
        + "".join(
            "[[rules]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in rule.items()) for rule in rules
        )
    )
    return path
