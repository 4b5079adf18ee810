"""Facts of a submission, an artifact or a checkpoint, as much as the options pay for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codec.errors import InputError, UsageError
from codec.progress import Bar, silent_bar
from pgolf.report.artifacts import artifact_facts, loss_order, with_measured_losses
from pgolf.report.facts import ArtifactFacts, CodeFacts, Missing, SeedFacts, Subject, TextFacts
from pgolf.report.options import Options, subject_name
from pgolf.report.runs import missing_of_runs, seed_facts
from pgolf.report.texts import text_facts

if TYPE_CHECKING:
    import numpy as np

    from packager.importers.imported import Imported
    from verify import Submission, Verdict

STAGES = 5  # of an artifact: read, bytes, levels, distortion, and what follows
DEFAULT_RECIPE = "pr162"  # of a checkpoint without levels of its own, as in `pgolf measure`


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """A submission that was examined already.  text: where its nats are."""

    verdict: "Verdict"
    text: TextFacts


def submission_subject(folder: Path, options: Options, bar: Bar = silent_bar, scored: Scored | None = None) -> Subject:
    """A submission's bytes, code, findings, logs, and its score along the text when there is text, or `scored`.

    Raises: as `Submission.open` and `verify.measure`.
    """
    from codec.errors import EnvironmentLacks
    from verify import Submission
    from verify.pipeline import examine_bare

    with bar(f"report {folder.name}", STAGES) as step:
        step(0, "read")
        opened = Submission.open(folder, bare=True)
        code = _code(opened)
        floats = _floats(options)
        artifact = None
        if opened.blob and not opened.foreign:
            artifact = _described(opened.artifact.name, opened.blob, options, floats, step)
        step(STAGES - 1, "rules")
        verdict = scored.verdict if scored else None
        if verdict is None and (options.heldout is None or not opened.blob):
            verdict = examine_bare(opened, options.cap)
        step(STAGES, "")
    text = scored.text if scored else None
    notes = []
    if verdict is None:
        try:
            verdict, text = _examined(opened, options, bar)
        except EnvironmentLacks as error:  # no sandbox on this machine: the folder can still be shown
            verdict = examine_bare(opened, options.cap)
            notes.append(f"not scored: {error}")
    if artifact and floats:
        artifact = _measured(artifact, opened.blob, floats, options, bar)
    seeds, more = _logs_of(folder, options)
    missing = [*_missing_artifact(artifact, options, opened.foreign if opened.blob else "not here"), *more]
    if not text and opened.blob:
        missing.append(Missing(what="bits per byte along the text, and the findings of a run", how="`--data DIR`"))
    return Subject(
        name=subject_name(folder),
        kind="submission",
        cap=options.cap,
        total_bytes=verdict.bytes.judged_total if opened.blob else None,
        artifact=artifact,
        code=code,
        text=text,
        float_bpb=verdict.float_bpb,
        seeds=seeds,
        findings=verdict.findings,
        verdict=verdict.verdict,
        notes=tuple(notes),
        missing=tuple(missing),
    )


def artifact_subject(path: Path, options: Options, bar: Bar) -> Subject:
    from codec.storage.atomic_files import read_bytes

    with bar(f"report {path.name}", STAGES) as step:
        step(0, "read")
        blob, floats = read_bytes(path), _floats(options)
        artifact = _described(path.name, blob, options, floats, step)
        step(STAGES, "")
    if floats:
        artifact = _measured(artifact, blob, floats, options, bar)
    return Subject(
        name=subject_name(path),
        kind="artifact",
        cap=options.cap,
        total_bytes=artifact.bytes,
        artifact=artifact,
        notes=("the code that loads it counts as well, and is not here",),
        missing=(
            *_missing_artifact(artifact, options),
            Missing(what="code, findings, score", how="pass its submission"),
        ),
    )


def checkpoint_subject(path: Path, options: Options, bar: Bar) -> Subject:
    """The artifact that a recipe makes of a checkpoint."""
    from codec.encoder import encode
    from codec.measurement.weight_count import weight_count
    from codec.quantization.recipe import quantize_checkpoint
    from codec.quantization.recipe_files import load_recipe
    from codec.storage.atomic_files import within
    from codec.storage.calibration_file import read_layers
    from packager.importers.imported import STORED
    from pgolf.checkpoints import read_weights

    floats = read_weights(path)
    name = options.recipe or (STORED if floats.stored else DEFAULT_RECIPE)
    own = replace(options, checkpoint=None if name == STORED else path)
    notes = [f"quantized by recipe {name}, as it would be packed; --recipe NAME takes another", *floats.notes]
    total = 2 * sum(array.size for array in floats.tensors.values())
    with bar(f"report {path.name}", total + STAGES) as step, within(path):
        step(0, name)
        if name == STORED:
            treated, layers = dict(floats.levels()), None
            notes[0] = "levels as the file has them"
        else:
            layers = read_layers(options.hessians, path, floats.tensors) if options.hessians else None
            treated = quantize_checkpoint(floats.tensors, load_recipe(name), layers, step)
        step(total // 2, "encode")
        blob = encode(treated, {})
        known = None if name == STORED else floats
        artifact = _described(path.name, blob, own, known, lambda done, note: step(total + done, note))
        step(total + STAGES, "")
    if known:
        artifact = _measured(artifact, blob, known, own, bar)
    notes.append(f"{weight_count(floats.tensors):,} weights, {floats.kind}; the code that loads them is not here")
    more = Missing(what="code, findings, score", how="pack it, and pass the submission")
    return Subject(
        name=subject_name(path),
        kind="checkpoint",
        cap=options.cap,
        total_bytes=artifact.bytes,
        artifact=artifact,
        notes=tuple(notes),
        missing=(*_missing_artifact(artifact, own), more),
    )


def _described(
    name: str, blob: bytes, options: Options, floats: "Imported | None", step: Callable[[int, str], None]
) -> ArtifactFacts:
    from codec.errors import PgolfError
    from codec.storage.calibration_file import read_layers

    layers = None
    if floats and options.hessians and options.checkpoint:
        layers = read_layers(options.hessians, options.checkpoint, floats.tensors)
    notes = ("read", "bytes", "levels", "distortion")

    def tell(note: str) -> None:
        step(notes.index(note), note)

    try:
        return artifact_facts(name, blob, tell, floats.tensors if floats else None, layers)
    except PgolfError as error:
        error.where = error.where or (str(options.checkpoint) if isinstance(error, InputError) else name)
        raise


def _measured(artifact: ArtifactFacts, blob: bytes, floats: "Imported", options: Options, bar: Bar) -> ArtifactFacts:
    if not options.measured_losses or options.heldout is None:
        return artifact
    from trainer.model.config import GPTConfig

    config = floats.metadata.get("config")
    if not isinstance(config, Mapping):
        raise UsageError(
            "does not state the config of a model of this toolkit, so no loss can be measured",
            where=str(options.checkpoint),
            hint="leave out --measure-loss",
        )
    order = loss_order(artifact)[: options.measured_losses]
    with bar("loss by tensor", len(order) + 1) as step:
        places = {name: place + 1 for place, name in enumerate(order)}
        found = with_measured_losses(
            artifact,
            blob,
            floats.tensors,
            GPTConfig.from_dict(dict(config)),
            options.heldout,
            options.measured_losses,
            lambda note: step(places.get(note, 0), note),
        )
        step(len(order) + 1, "")
    return found


def _examined(submission: "Submission", options: Options, bar: Bar) -> "tuple[Verdict, TextFacts]":
    """Scored as `pgolf verify` scores it, and where the nats are."""
    from verify import Settings, window_length
    from verify.pipeline import measure, verdict_of

    heldout = options.heldout
    assert heldout
    length = None if submission.foreign else window_length(submission)
    stride = options.stride or min(64, length or 64)
    settings = Settings(
        length=length, stride=stride, batch=16, threads=options.threads, device="cpu", time_limit=3600.0
    )
    own = options.checkpoint if not submission.foreign else None
    facts = measure(submission, heldout, settings, checkpoint=own, read=_read, cap=options.cap, bar=bar)
    return verdict_of(facts), text_facts(facts.packed.nats, heldout, facts.packed.score)


def _read(path: str | Path) -> "tuple[Mapping[str, np.ndarray], Mapping[str, Any]]":
    from pgolf.checkpoints import read_weights

    imported = read_weights(Path(path))
    return imported.tensors, imported.metadata


def _floats(options: Options) -> "Imported | None":
    from pgolf.checkpoints import read_weights

    return read_weights(options.checkpoint) if options.checkpoint else None


def _code(submission: "Submission") -> CodeFacts:
    """Bytes of every counted file; modules of those that are packed, files of those that are not."""
    from codec.storage.atomic_files import read_bytes
    from pgolf.scripts import packed_sources

    total, modules = 0, []
    for file in submission.code:
        data = read_bytes(file)
        total += len(data)
        packed = packed_sources(data) if file.suffix == ".py" else {}
        modules += [(name, len(text.encode())) for name, text in packed.items()] or [
            (file.relative_to(submission.folder).as_posix(), len(data))
        ]
    return CodeFacts(bytes=total, modules=tuple(modules))


def _logs_of(folder: Path, options: Options) -> tuple[SeedFacts | None, list[Missing]]:
    """Runs of the logs in a submission's folder; what it states alone is judged by its findings."""
    from verify.claims.runs import read_group

    try:
        group = read_group([folder])
    except InputError:
        group = None
    if group is None or not group.logs:
        return None, [Missing(what="training curve, phases, seeds", how="pass the logs or folders of its runs as well")]
    return seed_facts(group, subject_name(folder), options.against), missing_of_runs(group, options.against)


def _missing_artifact(artifact: ArtifactFacts | None, options: Options, foreign: str = "") -> list[Missing]:
    if artifact is None:
        how = "pass the weights' file by itself" if foreign != "not here" else "put the weights into the folder"
        return [Missing(what=f"bytes of each tensor: the weights are {foreign}", how=how)]
    missing = []
    if options.checkpoint is None:
        missing.append(
            Missing(what="signal to noise of each tensor", how="`--checkpoint FILE`, which it was packed from")
        )
    if all(row.predicted_nats is None for row in artifact.tensors):
        missing.append(Missing(what="predicted loss by tensor", how="`--hessians FILE` of `pgolf calibrate`"))
    if not options.measured_losses:
        missing.append(
            Missing(what="measured loss by tensor", how="`--measure-loss N` with `--checkpoint` and `--data`")
        )
    return missing
