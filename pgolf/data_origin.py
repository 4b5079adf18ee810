"""Which tokenizer made a shard, as far as the data.json of `pgolf data` beside it tells."""

import json
from collections.abc import Iterable
from pathlib import Path


def check_origin(shards: Iterable[Path], tokenizer_sha256: str) -> None:
    """Refuse shards that another tokenizer made.

    Raises: InputError naming the first.
    """
    from codec.errors import InputError

    for shard in shards:
        made_with = _stated(shard)
        if made_with not in (None, tokenizer_sha256):
            raise InputError(
                f"was made with the tokenizer of sha256 {made_with:.12}..., in use is {tokenizer_sha256:.12}...",
                where=str(shard),
                hint="use shards and tokenizer of one data folder",
            )


def _stated(shard: Path) -> str | None:
    """None where there is no such file, or one of another tool."""
    from trainer.data.dataset import SUMMARY

    try:
        stated = json.loads(shard.with_name(SUMMARY).read_bytes())["tokenizer_sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return stated if isinstance(stated, str) else None
