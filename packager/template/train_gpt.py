"""Evaluate a packed model: decode `model.bin` beside this script and score it on a validation shard."""

import argparse
import hashlib
import sys
from pathlib import Path

import numpy as np
import torch

from codec.decoder import decode, read_meta
from codec.errors import CodecError, EnvironmentLacks, InputError, PgolfError, UsageError
from codec.storage.token_shards import find_shards, find_tokenizer, open_shard
from trainer.model.config import GPTConfig
from trainer.model.gpt import GPT
from verify.scoring.score import total
from verify.scoring.sliding import Sliding
from verify.scoring.token_bytes import TokenBytes


def load(artifact_path: str | Path, device: str = "cpu") -> GPT:
    """The model of an artifact, ready to score: a module with `.logits(ids)` -> float32 (B, T, V)."""
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


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Bits per byte of the packed model on a validation shard.")
    parser.add_argument("--eval", action="store_true", required=True, help="what this script does")
    parser.add_argument("--data", required=True, help="folder with *_val_*.bin and one *.model")
    parser.add_argument("--val", help="validation shard, instead of the folder's")
    parser.add_argument("--tokenizer", help="SentencePiece model, instead of the folder's")
    parser.add_argument("--stride", type=int, help="targets scored per window; 64 if that fits")
    parser.add_argument("--limit-tokens", type=int, help="score only the first N targets")
    parser.add_argument("--batch", type=int, default=16, help="windows per forward pass")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    if options.device == "cuda" and not torch.cuda.is_available():
        raise EnvironmentLacks("no CUDA device is available to torch", hint="use --device cpu")
    artifact = Path(__file__).with_name("model.bin")
    model = load(artifact, options.device)
    shards = [options.val] if options.val else find_shards(options.data, "val")
    tokens = np.concatenate([open_shard(shard) for shard in shards])
    if options.limit_tokens is not None:
        if options.limit_tokens < 1:
            raise UsageError(f"--limit-tokens is {options.limit_tokens}, at least 1 target must be scored")
        tokens = tokens[: options.limit_tokens + 1]
    tokenizer = Path(options.tokenizer or find_tokenizer(options.data))
    token_bytes = TokenBytes.from_tokenizer(tokenizer).of(tokens)
    trained_with = read_meta(artifact.read_bytes()).get("tokenizer_sha256")
    if trained_with and hashlib.sha256(tokenizer.read_bytes()).hexdigest() != trained_with:
        raise InputError(
            f"is not the tokenizer the model was trained with (sha256 {trained_with[:12]}...)",
            where=str(tokenizer),
            hint="pass the one its data was made with",
        )
    length = model.config.seq_len
    scorer = Sliding(
        model=model,
        vocab_size=model.config.vocab_size,
        length=length,
        stride=min(64, length) if options.stride is None else options.stride,
        device=options.device,
    )
    score = total(scorer, tokens, token_bytes, batch=options.batch)
    print(
        f"final_sliding_window_exact val_loss:{score.loss:.8f} val_bpb:{score.bpb:.8f} "
        f"tokens:{score.tokens} bytes:{score.bytes} eval_time:{1000 * score.seconds:.0f}ms"
    )


if __name__ == "__main__":
    try:
        main()
    except PgolfError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
