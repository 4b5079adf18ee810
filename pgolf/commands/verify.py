"""`pgolf verify`: reload a submission in a fresh process, count its bytes, score it again."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from codec.errors import EnvironmentLacks, UsageError
from pgolf.console import echo, json_option, print_json, print_table, progress
from pgolf.data_origin import check_origin
from pgolf.options import SCORES, adaptation, adaptation_options, cap_option
from pgolf.tables import outcome, print_findings

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    from verify import HeldOut, Settings, Submission, Verdict
    from verify.scoring.adaptation import ScorerName

STRIDE = 64  # targets, the challenge's choice
SHOWN = 4  # findings of one rule in the table
WORDS = ("judged", "why")  # of the byte count, printed as a sentence
_file = click.Path(path_type=Path)
_positive = click.IntRange(min=1)
_limit = click.FloatRange(min=0, min_open=True)


@click.command()
@click.argument("submission", type=_file)
@click.option("--data", type=_file, help="Folder with *_val_*.bin and one *.model.")
@click.option("--val", type=_file, help="Score this shard instead of the folder's *_val_*.bin.")
@click.option("--tokenizer", type=_file, help="SentencePiece model instead of the folder's.")
@click.option(
    "--checkpoint",
    type=_file,
    help="What it was packed from, in any form that `pgolf pack` reads: gives float bpb and penalty.",
)
@click.option(
    "--fresh", type=_file, help="Other documents of the same kind, text or a shard: is the scored text known?"
)
@click.option("--score", "scores", type=SCORES, multiple=True, help="Score so too, after sliding; repeat.")
@adaptation_options
@click.option(
    "--proof",
    type=click.FloatRange(min=0),
    default=5.0,
    show_default=True,
    metavar="PERCENT",
    help="Of the run's forwards to spend on other text behind scored windows, which shows foresight.",
)
@click.option(
    "--strict", type=_positive, metavar="N", help="Score N targets from their prefixes alone too: slow, exact."
)
@click.option("--stride", type=_positive, help=f"Targets scored per window.  [default: {STRIDE}, if they fit]")
@click.option("--seq-len", type=_positive, help="Window length in tokens; default: the model's own.")
@click.option("--limit-tokens", type=_positive, help="Score only the first N targets: a partial score.")
@click.option("--batch", type=_positive, default=16, show_default=True, help="Windows per forward pass.")
@click.option("--threads", type=_positive, help="CPU threads of the scoring process; default: torch's choice.")
@click.option(
    "--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True, help="Where the model runs."
)
@click.option("--time-limit", type=_limit, default=3600.0, show_default=True, help="Seconds of each scoring process.")
@click.option("--memory-limit", type=_limit, default=16.0, show_default=True, help="Gigabytes of that process.")
@cap_option
@click.option("--artifact", type=_file, help="The weights, when the folder has none or several.")
@click.option("--env", "environment", multiple=True, metavar="NAME=VALUE", help="Setting of the script's run; repeat.")
@click.option("--extra", multiple=True, metavar="FILE", help="Code file that may lie in the folder uncounted; repeat.")
@json_option
def verify(
    submission: Path,
    data: Path | None,
    val: Path | None,
    tokenizer: Path | None,
    checkpoint: Path | None,
    fresh: Path | None,
    scores: tuple["ScorerName", ...],
    proof: float,
    strict: int | None,
    stride: int | None,
    seq_len: int | None,
    limit_tokens: int | None,
    batch: int,
    threads: int | None,
    device: str,
    time_limit: float,
    memory_limit: float,
    cap: int,
    artifact: Path | None,
    environment: tuple[str, ...],
    extra: tuple[str, ...],
    as_json: bool,
    **adapting: Any,
) -> int:
    """Judge the folder SUBMISSION: bytes, sources, reload, bits per byte.

    Wrapped sources are unpacked and scanned without running them.  Then the script loads its artifact in a sandboxed
    process without network, other programs or files beyond its own, and is asked for logits; the score is added up
    here.  Scripts without `load(artifact_path, device)` are tried as members of the challenge's seed family, with the
    settings of the run command in their README or log, or those of --env.  Exit code 1 when the verdict is fail.
    Of a folder without artifact only what does not run is judged: exit code 3, unless that fails already.

    The sliding score decides.  --score ttt trains a copy of the model on each chunk of the text once it is scored;
    --score slot fits a shift of the hidden states to the context of each window.  Each starts from the artifact's
    weights, in a process of its own.

    Scored windows are asked for again by a second process, with another text behind a cut: what a model read ahead it
    cannot repeat.  The finding score.prefix says which leak would have been seen, and how surely; --proof 20 looks at
    four times as many.  --strict sends nothing behind a target at all.

    \b
    Example:
      pgolf verify out/demo/submission --data out/demo/data
      pgolf verify SUB --data DIR --limit-tokens 20000 --checkpoint run/model.safetensors --json
      pgolf verify SUB --data DIR --proof 20 --strict 500
      pgolf verify SUB --data DIR --fresh other.jsonl
      pgolf verify SUB --data DIR --score ttt --ttt-chunk 4096 --score slot
      pgolf verify RECORD --data DIR --artifact final_model.int6.ptz --env NUM_LAYERS=11
    """
    from pgolf.checkpoints import guess_warning
    from pgolf.fresh_text import read_fresh
    from verify import HeldOut, Settings, Submission, examine, window_length
    from verify.foresight.probe import Proof
    from verify.run_rules import evaluation

    _check_device(device)
    subject = Submission.open(submission, artifact=artifact, tolerated=frozenset(extra), bare=True)
    if not subject.blob:
        return _bare(subject, cap, as_json)
    length = seq_len or (None if subject.foreign else window_length(subject))
    settings = Settings(
        length=length,
        stride=stride or min(STRIDE, length or STRIDE),
        batch=batch,
        threads=threads,
        device=device,
        time_limit=time_limit,
        memory_limit=int(memory_limit * 1e9),
        environment=_environment(environment),
        adaptation=adaptation(**adapting),
    )
    shards, model = _heldout_files(data, val, tokenizer)
    heldout = HeldOut.read(shards, model, limit_tokens)
    check_origin(shards, heldout.tokenizer_sha256)
    verdict = examine(
        subject,
        heldout,
        settings,
        scores=scores,
        checkpoint=checkpoint,
        read=_read,
        fresh=read_fresh(fresh, model, limit_tokens) if fresh else None,
        cap=cap,
        proof=Proof(share=proof / 100, strict=strict or 0),
        bar=progress,
    )
    guessed = subject.meta.get("guessed")
    if isinstance(guessed, dict) and guessed:
        echo(f"{guess_warning(guessed)}: every score here is that of the guess", err=True)
    if as_json:
        how = {"seq_len": verdict.length, "stride": settings.stride, **_adapted(verdict, heldout, settings)}
        how["eval"] = evaluation(verdict.scores[0], verdict.length, settings.stride)  # as submission.json states it
        print_json(
            {**verdict.to_dict(), **_scored(heldout), **how, "guessed": guessed or {}, "submission": str(submission)}
        )
    else:
        _print(verdict, heldout)
    return verdict.exit_code


def _read(checkpoint: str | Path) -> tuple["Mapping[str, np.ndarray]", "Mapping[str, Any]"]:
    """Whatever `pgolf pack` takes."""
    from pgolf.checkpoints import read_weights

    imported = read_weights(Path(checkpoint))
    return imported.tensors, imported.metadata


def _bare(subject: "Submission", cap: int, as_json: bool) -> int:
    """What a folder without artifact shows; 1 when that fails already.

    Raises: InputError when not, for what runs could not be judged.
    """
    from codec.errors import InputError
    from verify.pipeline import examine_bare

    verdict = examine_bare(subject, cap)
    if as_json:
        print_json({**verdict.to_dict(), "submission": str(subject.folder)})
    else:
        print_findings(verdict.findings, most=SHOWN)
        click.echo()
        for line in outcome(verdict):
            click.echo(line)
        click.echo(f"verdict: {verdict.verdict}")
    if verdict.exit_code or as_json:
        return verdict.exit_code or InputError.exit_code
    raise InputError(
        "is not there, nor any *.ptz: what does not run was judged, the rest is unknown",
        where=str(subject.artifact),
        hint="copy the weights there or pass --artifact FILE",
    )


def _check_device(device: str) -> None:
    """Raises: EnvironmentLacks, rather than the script in its own words."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise EnvironmentLacks("no CUDA device is available to torch", hint="use --device cpu")


def _heldout_files(data: Path | None, val: Path | None, tokenizer: Path | None) -> tuple[list[Path], Path]:
    from codec.storage.token_shards import find_shards, find_tokenizer

    if data is None:
        if val is None or tokenizer is None:
            raise UsageError("--data is missing", hint="pass --data DIR, or both --val and --tokenizer")
        return [val], tokenizer
    return [val] if val else find_shards(data, "val"), tokenizer or find_tokenizer(data)


def _environment(pairs: tuple[str, ...]) -> dict[str, str]:
    for pair in pairs:
        if not pair.partition("=")[0].isidentifier() or "=" not in pair:
            raise UsageError(f"--env {pair} is not NAME=VALUE")
    return dict(pair.split("=", 1) for pair in pairs)


def _scored(heldout: "HeldOut") -> dict[str, Any]:
    return {"partial": heldout.partial, "targets": heldout.targets, "shard_targets": heldout.shard_targets}


def _adapted(verdict: "Verdict", heldout: "HeldOut", settings: "Settings") -> dict[str, Any]:
    """How the scores after the first adapted."""
    if len(verdict.scores) == 1 or not verdict.length:
        return {}
    return {"adaptation": settings.adaptation.to_dict(heldout.targets, verdict.length)}


def _print(verdict: "Verdict", heldout: "HeldOut") -> None:
    print_findings(verdict.findings, most=SHOWN)
    click.echo()
    counted = verdict.bytes
    sizes = [(name.replace("_", " "), f"{value:,}") for name, value in counted.to_dict().items() if name not in WORDS]
    print_table(sizes, ("bytes", ""))
    click.echo(f"judged: {counted.judged.replace('_', ' ')} + artifact, {counted.why}")
    click.echo()
    _print_scores(verdict)
    click.echo()
    for line in outcome(verdict):
        click.echo(line)
    if heldout.partial:
        click.echo(f"PARTIAL SCORE: the first {heldout.targets:,} of {heldout.shard_targets:,} targets")
    click.echo(f"verdict: {verdict.verdict}")


def _print_scores(verdict: "Verdict") -> None:
    """One column per scorer; float weights were scored by the first."""
    scores, first = verdict.scores, verdict.scores[0]
    rows = [
        ("targets", *[f"{score.tokens:,}" for score in scores]),
        ("text bytes", *[f"{score.bytes:,}" for score in scores]),
        ("windows", *[f"{score.windows:,}" for score in scores]),
        ("seconds", *[f"{score.seconds:.1f}" for score in scores]),
        ("loss (nats per token)", *[f"{score.loss:.8f}" for score in scores]),
        ("bpb", *[f"{score.bpb:.8f}" for score in scores]),
    ]
    others = [""] * (len(scores) - 1)
    if others:
        rows.append(("gain over sliding, bpb", "", *[f"{first.bpb - score.bpb:+.8f}" for score in scores[1:]]))
    if verdict.float_bpb is not None:
        rows += [("float bpb", f"{verdict.float_bpb:.8f}", *others), ("penalty", f"{verdict.penalty:+.8f}", *others)]
    print_table(rows, ("score", *[score.scorer for score in scores]))
