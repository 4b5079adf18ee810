"""Made-up tokens and models: what a check of speed and numbers needs in place of data."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from trainer.model.config import GPTConfig


def tokens(count: int, vocab_size: int, seed: int = 0) -> "np.ndarray":
    """uint16 (count,): the id of rank r is drawn with a weight of 1/(r + 1), as words are, so that a loss can fall."""
    import numpy as np

    weights = 1 / np.arange(1, vocab_size + 1)
    edges = np.cumsum(weights / weights.sum())
    drawn = np.searchsorted(edges, np.random.default_rng(seed).random(count))
    return np.minimum(drawn, vocab_size - 1).astype(np.uint16)


def write_shard(folder: Path, count: int, vocab_size: int) -> None:
    """A training shard of such tokens, as `trainer.data.loader` finds it."""
    from codec.storage.atomic_files import write_bytes
    from codec.storage.token_shards import shard_bytes

    write_bytes(folder / "made_up_train_000000.bin", shard_bytes(tokens(count, vocab_size)))


def weights(config: "GPTConfig", seed: int = 0) -> "dict[str, np.ndarray]":
    """A checkpoint's tensors, float32, none of them zero: starting weights and noise of std 0.02."""
    import torch

    from trainer.model.gpt import GPT
    from trainer.model.init import initialize

    model = GPT(config)
    initialize(model, seed)
    generator = torch.Generator().manual_seed(seed)
    noisy = {
        name: tensor + 0.02 * torch.randn(tensor.shape, generator=generator)
        for name, tensor in model.state_dict().items()
    }
    return {name: tensor.numpy() for name, tensor in noisy.items()}
