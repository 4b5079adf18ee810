"""Evaluate a packed model: decode `model.bin` beside this script and score it on a validation shard."""

import argparse
import hashlib
import sys
from pathlib import Path

import torch

from codec.decoder import read_meta
from codec.errors import EnvironmentLacks, InputError, PgolfError
from codec.storage.token_shards import find_shards, find_tokenizer
from trainer.model.packed import load
from verify.scoring.sliding import Sliding
from verify.scoring.validation import Validation, score_line


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
    tokenizer = Path(options.tokenizer or find_tokenizer(options.data))
    trained_with = read_meta(artifact.read_bytes()).get("tokenizer_sha256")
    if trained_with and hashlib.sha256(tokenizer.read_bytes()).hexdigest() != trained_with:
        raise InputError(
            f"is not the tokenizer the model was trained with (sha256 {trained_with[:12]}...)",
            where=str(tokenizer),
            hint="pass the one its data was made with",
        )
    shards = [options.val] if options.val else find_shards(options.data, "val")
    validation = Validation.read(shards, tokenizer, options.limit_tokens)
    length = model.config.seq_len
    stride = min(64, length) if options.stride is None else options.stride
    scorer = Sliding(
        model=model,
        vocab_size=model.config.vocab_size,
        length=length,
        stride=stride,
        device=options.device,
    )
    if partial := validation.partial:
        print(partial)
    print(score_line("final_sliding_window_exact", validation.score(scorer, batch=options.batch), length, stride))


if __name__ == "__main__":
    try:
        main()
    except PgolfError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
