"""`pgolf data`: text -> tokenizer and token shards."""

from typing import Any

import click

from codec.errors import UsageError
from pgolf.console import json_option, print_json, print_table, progress
from pgolf.options import VOCAB_SIZE


@click.command()
@click.argument("text", nargs=-1)
@click.option("--output", "-o", required=True, metavar="DIR", help="Folder to write; an earlier one is replaced.")
@click.option(
    "--vocab-size",
    type=click.IntRange(min=1),
    metavar="N",
    help=f"Pieces of the tokenizer to train.  [default: {VOCAB_SIZE}]",
)
@click.option("--tokenizer", metavar="FILE", help="Use this SentencePiece model instead of training one.")
@click.option(
    "--val-fraction",
    type=float,
    metavar="F",
    help="Share of documents to hold out, chosen by a hash of their text.  [default: 0.02]",
)
@click.option(
    "--val",
    multiple=True,
    metavar="FILE",
    help="Hold out these documents instead, and drop them from training; may be repeated.",
)
@click.option("--embedded", is_flag=True, help="Use the text of Python's own standard library instead of files.")
@json_option
def data(
    text: tuple[str, ...],
    output: str,
    vocab_size: int | None,
    tokenizer: str | None,
    val_fraction: float | None,
    val: tuple[str, ...],
    embedded: bool,
    as_json: bool,
) -> None:
    """Turn text into a tokenizer and token shards, some documents held out.

    TEXT is UTF-8: files named .jsonl or .json hold one object with a "text" field per line; any other file is
    plain text whose documents are separated by <|endoftext|> or, without that mark, groups of paragraphs of
    about 2000 characters. Equal documents are used once.

    \b
    Examples:
      pgolf data books.txt pages.jsonl --vocab-size 1024 -o data
      pgolf data train.jsonl --val heldout.jsonl --tokenizer fineweb_1024_bpe.model -o data
      pgolf data --embedded -o data
    """
    if embedded == bool(text):
        raise UsageError(
            "text files and --embedded were both given" if text else "no text was given",
            hint="name text files or pass --embedded",
        )
    _exclude("--vocab-size", vocab_size, "--tokenizer", tokenizer)
    _exclude("--val-fraction", val_fraction, "--val", val)

    from trainer.data.dataset import build_dataset
    from trainer.data.documents import read_documents
    from trainer.data.stdlib_text import stdlib_documents

    documents = stdlib_documents(progress) if embedded else read_documents(text)
    with progress("encoding", 100) as report:
        summary = build_dataset(
            documents,
            output,
            vocab_size=vocab_size or VOCAB_SIZE,
            tokenizer=tokenizer,
            val_fraction=0.02 if val_fraction is None else val_fraction,
            heldout=read_documents(val) if val else None,
            progress=report,
        ).to_dict()
    if as_json:
        print_json({"data": output, **summary})
        return
    _print(output, summary)


def _exclude(name: str, value: object, other_name: str, other: object) -> None:
    if value is not None and other:
        raise UsageError(f"{name} and {other_name} exclude each other", hint=f"drop {name}")


def _print(output: str, summary: dict[str, Any]) -> None:
    headers = ("split", "documents", "tokens", "bytes", "bytes/token")
    print_table(
        [
            (
                name,
                f"{split['documents']:,}",
                f"{split['tokens']:,}",
                f"{split['bytes']:,}",
                f"{split['bytes'] / split['tokens']:.3f}",
            )
            for name, split in (("train", summary["train"]), ("val", summary["val"]))
        ],
        headers,
    )
    click.echo(
        f"{output}: vocabulary {summary['vocab_size']}, "
        f"tokenizer sha256 {summary['tokenizer_sha256'][:16]}, "
        f"dropped {summary['duplicates_dropped']} duplicates, "
        f"{summary['heldout_dropped_from_train']} training documents that are held out"
    )
