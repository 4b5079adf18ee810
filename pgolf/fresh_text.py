"""A second text of the held-out one's kind, for `pgolf verify --fresh`."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from verify import HeldOut


def read_fresh(file: Path, tokenizer: Path, limit: int | None = None) -> "HeldOut":
    """A token shard (.bin), or documents as `pgolf data` reads them, in the tokenizer's ids.

    limit: targets at most.  Raises: InputError for what is neither, or ids that are not the tokenizer's.
    """
    from trainer.data.dataset import write_fresh
    from trainer.data.documents import read_documents
    from verify import HeldOut

    if file.suffix == ".bin":
        return HeldOut.read([file], tokenizer, limit)
    with TemporaryDirectory(prefix="pgolf-fresh-") as folder:
        return HeldOut.read([write_fresh(read_documents([file]), tokenizer, Path(folder))], tokenizer, limit)
