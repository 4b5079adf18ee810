"""`pgolf verify`: reload a submission in a fresh process, count its bytes, score it again."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from codec.errors import UsageError
from pgolf.console import json_option, print_json, print_table, progress

if TYPE_CHECKING:
    from verify import HeldOut, Settings, Verdict

_file = click.Path(path_type=Path)
_positive = click.IntRange(min=1)


@click.command()
@click.argument("submission", type=_file)
@click.option("--data", type=_file, help="Folder with *_val_*.bin and one *.model.")
@click.option("--val", type=_file, help="Score this shard instead of the folder's *_val_*.bin.")
@click.option("--tokenizer", type=_file, help="SentencePiece model instead of the folder's.")
@click.option("--checkpoint", type=_file, help="Float weights it was packed from: gives float bpb and penalty.")
@click.option("--stride", type=_positive, default=64, show_default=True, help="Targets scored per window.")
@click.option("--seq-len", type=_positive, help="Window length in tokens; default: the model's own.")
@click.option("--limit-tokens", type=_positive, help="Score only the first N targets: a partial score.")
@click.option("--batch", type=_positive, default=16, show_default=True, help="Windows per forward pass.")
@click.option("--threads", type=_positive, help="CPU threads of the scoring process; default: torch's choice.")
@click.option("--device", default="cpu", show_default=True, help="Where the model runs: cpu, cuda.")
@click.option(
    "--time-limit",
    type=click.FloatRange(min=0, min_open=True),
    default=3600.0,
    show_default=True,
    help="Seconds each scoring process may take.",
)
@click.option("--cap", type=_positive, default=16_000_000, show_default=True, help="Bytes of code + artifact.")
@json_option
def verify(
    submission: Path,
    data: Path | None,
    val: Path | None,
    tokenizer: Path | None,
    checkpoint: Path | None,
    stride: int,
    seq_len: int | None,
    limit_tokens: int | None,
    batch: int,
    threads: int | None,
    device: str,
    time_limit: float,
    cap: int,
    as_json: bool,
) -> int:
    """Judge the folder SUBMISSION: bytes, reload, bits per byte.

    The script's code runs with your rights, in a process of its own that is not a sandbox: verify only
    submissions whose code you would run.  Exit code 1 when the verdict is fail.

    \b
    Example:
      pgolf verify out/demo/submission --data out/demo/data
      pgolf verify SUB --data DIR --limit-tokens 20000 --checkpoint run/model.safetensors --json
    """
    from verify import HeldOut, Settings, Submission, examine, window_length

    subject = Submission.open(submission)
    settings = Settings(
        length=seq_len or window_length(subject),
        stride=stride,
        batch=batch,
        threads=threads,
        device=device,
        time_limit=time_limit,
    )
    heldout = HeldOut.read(*_heldout_files(data, val, tokenizer), limit_tokens)
    verdict = examine(subject, heldout, settings, checkpoint=checkpoint, cap=cap, bar=progress)
    if as_json:
        print_json({**verdict.to_dict(), **_how(heldout, settings), "submission": str(submission)})
    else:
        _print(verdict, heldout)
    return verdict.exit_code


def _heldout_files(data: Path | None, val: Path | None, tokenizer: Path | None) -> tuple[list[Path], Path]:
    from codec.shards import find_shards, find_tokenizer

    if data is None and (val is None or tokenizer is None):
        raise UsageError("--data is missing", hint="pass --data DIR, or both --val and --tokenizer")
    return [val] if val else find_shards(data, "val"), tokenizer or find_tokenizer(data)


def _how(heldout: "HeldOut", settings: "Settings") -> dict[str, Any]:
    return {
        "partial": heldout.partial,
        "targets": heldout.targets,
        "shard_targets": heldout.shard_targets,
        "seq_len": settings.length,
        "stride": settings.stride,
    }


def _print(verdict: "Verdict", heldout: "HeldOut") -> None:
    for finding in verdict.findings:
        click.echo(f"{finding.level:<8} {finding.rule:<19} {finding.message}")
    click.echo()
    print_table(
        [(name.replace("_", " "), f"{value:,}") for name, value in verdict.bytes.to_dict().items()], ("bytes", "")
    )
    click.echo()
    score = verdict.scores[0]
    rows = [
        ("targets", f"{score.tokens:,}"),
        ("text bytes", f"{score.bytes:,}"),
        ("windows", f"{score.windows:,}"),
        ("seconds", f"{score.seconds:.1f}"),
        ("loss (nats per token)", f"{score.loss:.8f}"),
        ("bpb", f"{score.bpb:.8f}"),
    ]
    if verdict.float_bpb is not None:
        rows += [("float bpb", f"{verdict.float_bpb:.8f}"), ("penalty", f"{verdict.penalty:+.8f}")]
    print_table(rows, (f"score ({score.scorer})", ""))
    click.echo()
    if heldout.partial:
        click.echo(f"PARTIAL SCORE: the first {heldout.targets:,} of {heldout.shard_targets:,} targets")
    click.echo(f"verdict: {verdict.verdict}")
