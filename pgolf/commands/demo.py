"""`pgolf demo`: the whole pipeline on text that is already on the machine."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pgolf.console import json_option, print_json, print_table, progress
from pgolf.evaluation import BATCH, STRIDE, TrainingBar, fit_vocabulary, sliding_evaluation
from pgolf.options import VOCAB_SIZE, seed_option, steps_option, threads_option
from pgolf.tables import outcome

if TYPE_CHECKING:
    from packager.submission import PackedSubmission
    from pgolf.report.subjects import Scored
    from trainer.data.dataset import DataSummary
    from trainer.run.loop import TrainResult
    from verify import HeldOut, Verdict

PRESET, RECIPE = "cpu-demo", "best"
COMPARED = ("pr162-small", "pr1716", RECIPE)
# Of the embedded text's 3 MB: 240 kB in 65 documents, enough that one module does not decide the score.
VAL_FRACTION = 0.1
PAGE = "report.html"
MEASURED_LOSSES, LOSS_TARGETS = 12, 16_384  # tensors and targets of the page's measured losses: 15 seconds


@click.command()
@click.option(
    "--output",
    "-o",
    default="out/demo",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Folder for data, run and submission; an earlier demo there is replaced.",
)
@click.option(
    "--text",
    multiple=True,
    metavar="FILE",
    help="Train on this text instead of the standard library's; may be repeated.",
)
@click.option("--val", multiple=True, metavar="FILE", help="With --text: hold out these documents.")
@steps_option
@seed_option
@threads_option
@click.option(
    "--limit-tokens",
    type=click.IntRange(min=1),
    default=131_072,
    show_default=True,
    metavar="N",
    help="Score at most the first N held-out targets.",
)
@json_option
def demo(
    output: Path,
    text: tuple[str, ...],
    val: tuple[str, ...],
    steps: int | None,
    seed: int,
    threads: int | None,
    limit_tokens: int,
    as_json: bool,
) -> int:
    """Text -> tokenizer and shards -> train -> calibrate -> pack -> verify, with a report; about five minutes on two
    cores.

    Without --text it trains on docstrings, comments and help topics of Python's own standard library, so nothing
    is downloaded.  OUTPUT gets data/, run/, submission/, which `pgolf verify` accepts again, and report.html.

    \b
    Examples:
      pgolf demo -o out/demo
      pgolf demo --text train.jsonl --val heldout.jsonl -o out/web
    """
    from codec.errors import UsageError

    if val and not text:
        raise UsageError("--val was given without --text", hint="name the training text too")
    _check(output)
    summary = _data(output / "data", text, val)
    result, heldout = _train(output, steps, seed, threads, limit_tokens)
    calibration = _calibrate(output, result)
    submission = _pack(output, result, calibration)
    scored = _verify(output, result, heldout, threads)
    verdict = scored.verdict
    report = _report(
        output, summary, result, submission, verdict, heldout, _recipes(result, submission, calibration, heldout)
    )
    _write_page(output, result, calibration, heldout, scored)
    if as_json:
        print_json(report)
    else:
        _print(report, verdict)
    return verdict.exit_code


def _check(output: Path) -> None:
    """Refuse to put a demo into a folder of something else; what a killed one left of its folders is no hindrance."""
    from codec.errors import UsageError
    from codec.storage.atomic_files import TEMPORARY

    known = {"data", "run", "submission", PAGE}
    if not output.exists():
        return
    if not output.is_dir() or {path.name for path in output.iterdir() if TEMPORARY not in path.name} - known:
        raise UsageError("exists and is not an earlier demo", where=str(output), hint="choose another folder")


def _data(folder: Path, text: tuple[str, ...], val: tuple[str, ...]) -> "DataSummary":
    from trainer.data.dataset import build_dataset
    from trainer.data.documents import read_documents
    from trainer.data.stdlib_text import stdlib_documents

    documents = read_documents(text) if text else stdlib_documents(progress)
    with progress("encoding", 100) as step:
        return build_dataset(
            documents,
            folder,
            vocab_size=VOCAB_SIZE,
            or_fewer=True,
            val_fraction=VAL_FRACTION,
            heldout=read_documents(val) if val else None,
            progress=step,
        )


def _train(
    output: Path, steps: int | None, seed: int, threads: int | None, limit: int
) -> tuple["TrainResult", "HeldOut"]:
    import shutil

    from codec.storage.token_shards import find_shards, find_tokenizer
    from trainer.presets.catalog import find_preset
    from trainer.run.loop import train
    from verify import HeldOut

    tokenizer = find_tokenizer(output / "data")
    preset = fit_vocabulary(find_preset(PRESET), tokenizer)
    heldout = HeldOut.read(find_shards(output / "data", "val"), tokenizer, limit)
    shutil.rmtree(output / "run", ignore_errors=True)  # data and submission are replaced as they are written
    with progress(f"train {PRESET}", steps or preset.train.steps, left=False) as report:
        bar = TrainingBar(report, heldout.targets)
        result = train(
            preset,
            output / "data",
            output / "run",
            seed=seed,
            steps=steps,
            threads=threads,
            evaluate=sliding_evaluation(heldout, preset.model.seq_len, progress=bar.validating),
            progress=bar.step,
        )
    return result, heldout


def _calibrate(output: Path, result: "TrainResult") -> Path:
    from pgolf.checkpoints import read_model
    from pgolf.commands.calibrate import DEFAULT_NAME, write_calibration

    path = output / "run" / DEFAULT_NAME
    write_calibration(result.checkpoint, read_model(result.checkpoint), path, str(output / "data"), device="cpu")
    return path


def _pack(output: Path, result: "TrainResult", calibration: Path) -> "PackedSubmission":
    from packager.submission import STAGES, PackOptions, build_submission
    from pgolf.checkpoints import preset_toml

    options = PackOptions(
        checkpoint=result.checkpoint, recipe=RECIPE, preset_of=preset_toml, title="pgolf demo", hessians=calibration
    )
    with progress("pack", STAGES) as step:
        return build_submission(options, output / "submission", step)


def _verify(output: Path, result: "TrainResult", heldout: "HeldOut", threads: int | None) -> "Scored":
    from pgolf.report.subjects import Scored
    from pgolf.report.texts import text_facts
    from verify import Settings, Submission, window_length
    from verify.pipeline import measure, verdict_of

    submission = Submission.open(output / "submission")
    settings = Settings(
        length=window_length(submission), stride=STRIDE, batch=BATCH, threads=threads, device="cpu", time_limit=3600.0
    )
    facts = measure(submission, heldout, settings, checkpoint=result.checkpoint, bar=progress)
    return Scored(verdict=verdict_of(facts), text=text_facts(facts.packed.nats, heldout, facts.packed.score))


def _write_page(output: Path, result: "TrainResult", calibration: Path, heldout: "HeldOut", scored: "Scored") -> None:
    """The page of `pgolf report`, from the score that there is already."""
    from dataclasses import replace

    from codec.storage.atomic_files import write_bytes
    from pgolf.report.facts import Report
    from pgolf.report.options import Options
    from pgolf.report.page import report_page
    from pgolf.report.subjects import submission_subject

    few = min(LOSS_TARGETS, heldout.targets)
    first = replace(heldout, tokens=heldout.tokens[: few + 1], token_bytes=heldout.token_bytes[:few])
    options = Options(
        checkpoint=result.checkpoint, hessians=calibration, heldout=first, measured_losses=MEASURED_LOSSES
    )
    subject = submission_subject(output / "submission", options, progress, scored)
    write_bytes(output / PAGE, report_page(Report(title="pgolf demo", subjects=(subject,))).encode())


def _report(
    output: Path,
    summary: "DataSummary",
    result: "TrainResult",
    submission: "PackedSubmission",
    verdict: "Verdict",
    heldout: "HeldOut",
    recipes: list[dict[str, Any]],
) -> dict[str, Any]:
    packed = verdict.scores[0]
    return {
        "float_bpb": verdict.float_bpb,
        "packed_bpb": packed.bpb,
        "penalty": verdict.penalty,
        "bits_per_weight": submission.ledger.bits_per_weight,
        "artifact_bytes": submission.artifact_bytes,
        "code_bytes": submission.code_bytes,
        "total_bytes": submission.total_bytes,
        "cap_bytes": submission.cap,
        "verdict": verdict.verdict,
        "submission": str(output / "submission"),
        "data": str(output / "data"),
        "report": str(output / PAGE),
        "artifact_sha256": hashlib.sha256(submission.artifact).hexdigest(),
        "steps": result.steps,
        "tokens": result.tokens,
        "train_seconds": result.seconds,
        "train_loss": _loss_curve(output / "run"),
        "weights": submission.ledger.weights,
        "scored_targets": packed.tokens,
        "scored_bytes": packed.bytes,
        "train_bytes": summary.train.bytes,
        "byte_models": _byte_models(output / "data", heldout),
        "recipes": recipes,
    }


def _loss_curve(run: Path) -> list[tuple[int, float]]:
    """(step, training loss) from the log, thinned to about ten points."""
    import re

    from trainer.run.run_folder import LOG

    log = (run / LOG).read_text()
    points = [(int(step), float(loss)) for step, loss in re.findall(r"step:(\d+)/\d+ train_loss:([\d.]+)", log)]
    return [*points[: -1 : max(len(points) // 10, 1)], *points[-1:]]


def _byte_models(data: Path, heldout: "HeldOut") -> dict[str, float]:
    """Bits per byte of simple models of the same training text on the same held-out text."""
    from codec.storage.token_shards import find_shards, open_shard
    from verify.scoring.ngram_baselines import bits_per_byte, decoded_documents, xz_bits_per_byte

    with progress("models of bytes", 3) as step:
        step(0, "text")
        train = [
            document
            for shard in find_shards(data, "train")
            for document in decoded_documents(open_shard(shard), heldout.tokenizer)
        ]
        scored = decoded_documents(heldout.tokens, heldout.tokenizer)
        step(1, "n-grams")
        orders = {f"order-{order}": bits for order, bits in bits_per_byte(train, scored).items()}
        step(2, "xz")
        packed = xz_bits_per_byte(scored)
        step(3, "")
    return {**orders, "xz -9": packed}


def _recipes(
    result: "TrainResult", submission: "PackedSubmission", calibration: Path, heldout: "HeldOut"
) -> list[dict[str, Any]]:
    """Recipes side by side: bytes under their own compressor and ours, and what they add to the bits per byte.

    The penalty is that of windows that do not overlap, which is quick, of the float model and the quantized ones alike.
    """
    import torch

    from codec.decoder import QuantizedTensor, unpack
    from codec.measurement.compressors import FALLBACK, installed
    from codec.measurement.measurement import measure_treated
    from codec.quantization.recipe import quantize_checkpoint
    from codec.quantization.recipe_files import load_recipe
    from codec.storage.calibration_file import read_layers
    from codec.storage.checkpoint import read_checkpoint
    from trainer.calibration import calibration_model
    from trainer.model.config import GPTConfig

    tensors, notes = read_checkpoint(result.checkpoint)
    layers = read_layers(calibration, result.checkpoint, tensors)
    config = GPTConfig.from_dict(notes["config"])
    evaluate = sliding_evaluation(heldout, config.seq_len, stride=config.seq_len)

    def bpb(weights: dict[str, Any]) -> float:
        with torch.no_grad():
            return evaluate(calibration_model(config, weights, torch.device("cpu")))[1]

    rows = []
    with progress("recipes", 2 * len(COMPARED) + 1) as step:
        step(0, "float model")
        floats = bpb(tensors)
        for done, name in enumerate(COMPARED):
            step(2 * done + 1, name)
            recipe = load_recipe(name)
            packed = name == RECIPE
            treated = unpack(submission.artifact)[1] if packed else quantize_checkpoint(tensors, recipe, layers)
            coder = recipe.coder if installed(recipe.coder) else FALLBACK
            measured = measure_treated(treated, recipe=name, coder=coder, tensors=tensors)
            back = {
                key: each.dequantize() if isinstance(each, QuantizedTensor) else each.astype("float32")
                for key, each in treated.items()
            }
            # A compressor of bytes never had the levels of a trellis to compress.
            peer = {"coder": None if packed else coder, "coder_bytes": None if packed else measured.peer_bytes[coder]}
            step(2 * done + 2, f"{name}, its penalty")
            rows.append({**measured.to_dict(), **peer, "penalty": bpb(back) - floats})
        step(2 * len(COMPARED) + 1, "")
    return rows


def _print(report: dict[str, Any], verdict: "Verdict") -> None:
    click.echo("training loss: " + ", ".join(f"{step}: {loss:.2f}" for step, loss in report["train_loss"]))
    click.echo()
    print_table(
        [
            (
                row["recipe"],
                row["coder"] or "",
                f"{row['coder_bytes']:,}" if row["coder"] else "",
                f"{row['bytes']:,}",
                f"{row['bits_per_weight']:.3f}",
                f"{row['penalty']:+.5f}",
            )
            for row in report["recipes"]
        ],
        ("recipe", "its compressor", "bytes", "ours, no metadata", "b/w", "penalty, bpb"),
    )
    click.echo()
    models = [(name, f"{bits:.4f}") for name, bits in report["byte_models"].items()]
    print_table(
        [
            *models,
            ("float model", f"{report['float_bpb']:.4f}"),
            (f"packed model ({RECIPE})", f"{report['packed_bpb']:.4f}"),
        ],
        (f"held-out text, {report['scored_bytes']:,} bytes", "bits per byte"),
    )
    click.echo()
    rows = [
        ("steps", f"{report['steps']:,}"),
        ("train seconds", f"{report['train_seconds']:.1f}"),
        ("weights", f"{report['weights']:,}"),
        ("float bpb", f"{report['float_bpb']:.6f}"),
        ("packed bpb", f"{report['packed_bpb']:.6f}"),
        ("penalty, bpb", f"{report['penalty']:+.6f}"),
        ("bits per weight, all included", f"{report['bits_per_weight']:.3f}"),
        *((f"{part} bytes", f"{report[f'{part}_bytes']:,}") for part in ("artifact", "code", "total", "cap")),
        ("sha256 of the artifact", report["artifact_sha256"][:16]),
        ("verdict", report["verdict"]),
    ]
    print_table(rows, ("demo", ""))
    for finding in verdict.findings:
        if finding.level in ("warn", "fail"):
            click.echo(f"{finding.level}: {finding.rule}: {finding.message}")
    click.echo("; ".join(outcome(verdict)))
    click.echo(f"report: {report['report']}")
    click.echo(f"again: pgolf verify {report['submission']} --data {report['data']}")
