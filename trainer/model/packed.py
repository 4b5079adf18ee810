"""The model of an artifact."""

from pathlib import Path

import torch

from codec.decoder import decode, read_meta
from codec.errors import CodecError, InputError, PgolfError
from trainer.model.config import GPTConfig
from trainer.model.gpt import GPT


def load(artifact_path: str | Path, device: str | torch.device = "cpu") -> GPT:
    """Ready to score: a module with `.logits(ids)` -> float32 (B, T, V).  Submissions offer this under this name.

    Raises: InputError for a file that cannot be read; CodecError for one that is no artifact, or not of this model.
    """
    try:
        blob = Path(artifact_path).read_bytes()
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", where=str(artifact_path)) from None
    try:
        model = GPT(GPTConfig.from_dict(read_meta(blob)["config"]))
        model.load_state_dict({name: torch.tensor(array) for name, array in decode(blob).items()})
    except PgolfError as error:
        error.where = error.where or str(artifact_path)
        raise
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CodecError(
            f"does not hold the tensors of the model it describes ({error})", where=str(artifact_path)
        ) from None
    return model.to(device).eval()
