"""What decides a run: its data, and everything else as plain JSON."""

import hashlib
from pathlib import Path
from typing import Any

from codec.storage.atomic_files import read_bytes
from codec.storage.token_shards import find_tokenizer
from trainer.compute.ranks import Ranks
from trainer.data.loader import Loader
from trainer.presets.preset import Preset


def open_data(
    preset: Preset, data_dir: str | Path, tokenizer: str | Path | None, seed: int, ranks: Ranks
) -> tuple[Loader, dict[str, Any]]:
    """The loader, and the identity of the run: plain JSON that a resumed one must have as well.

    Raises: InputError or UsageError for data that this run cannot use.
    """
    loader = Loader(
        data_dir,
        kind=preset.train.loader,
        seq_len=preset.train.seq_len,
        sequences=preset.train.sequences,
        vocab_size=preset.model.vocab_size,
        seed=seed,
        ranks=ranks,
    )
    loader.batch(0)  # ids of another tokenizer: find out before anything is written
    return loader, {
        "preset": preset.name,
        "model": preset.model.to_dict(),
        "train": preset.train.to_dict(),
        "seed": seed,
        "data": loader.fingerprint(),
        "tokenizer_sha256": hashlib.sha256(read_bytes(tokenizer or find_tokenizer(data_dir))).hexdigest(),
    }
