"""A tiny submission, trained and packed here, under `pgolf verify` on the device: does the sandbox let it work?"""

import time
from pathlib import Path
from tempfile import TemporaryDirectory

from pgolf.doctor.outcome import Measured, Row
from pgolf.doctor.plan import Plan

PRESET, RECIPE, STEPS, TARGETS, VOCABULARY = "tiny", "pr162-small", 10, 512, 400
EXPECTED = ("reload.state", "score.coverage", "score.prefix")  # rules that a run on any device must pass


def sandboxed(plan: Plan, seconds: float) -> Measured:
    """The verdict, what the sandbox could not enforce, and the difference to a score outside of it."""
    from pydoc_data.topics import topics

    from codec.storage.token_shards import find_shards, find_tokenizer
    from packager.submission import PackOptions, build_submission
    from trainer.data.dataset import build_dataset
    from trainer.presets.catalog import find_preset
    from trainer.run.loop import train
    from verify import HeldOut, Settings, Submission, examine

    with TemporaryDirectory(prefix="pgolf-doctor-") as name:
        folder = Path(name)
        text = [topics[each] for each in sorted(topics)][:60]
        build_dataset(text, folder / "data", vocab_size=VOCABULARY, or_fewer=True, val_fraction=0.1)
        tokenizer = find_tokenizer(folder / "data")
        heldout = HeldOut.read(find_shards(folder / "data", "val"), tokenizer, TARGETS)
        preset = find_preset(PRESET)
        preset = preset.with_vocabulary(VOCABULARY, str(tokenizer))
        trained = train(
            preset, folder / "data", folder / "run", evaluate=lambda model: (0.0, 0.0), steps=STEPS, device="cpu"
        )
        options = PackOptions(checkpoint=trained.checkpoint, recipe=RECIPE, minified=False)
        build_submission(options, folder / "submission")
        submission = Submission.open(folder / "submission")
        length = preset.model.seq_len
        started = time.monotonic()
        settings = Settings(length=length, stride=length, device=plan.device, time_limit=max(seconds, 1.0))
        verdict = examine(submission, heldout, settings)
        taken = time.monotonic() - started
    score = verdict.scores[0]
    passed = {finding.rule for finding in verdict.findings if finding.level == "pass"}
    wrong = [f"{rule} does not hold" for rule in EXPECTED if rule not in passed]
    wrong += [f"{each.rule}: {each.message}" for each in verdict.findings if each.level == "fail"]
    missing = [each.message for each in verdict.findings if each.rule == "sandbox.missing"]
    row: Row = {
        "device": plan.device,
        "verdict": verdict.verdict,
        "targets": score.tokens,
        "bpb": score.bpb,
        "seconds": taken,
        "scoring seconds": score.seconds,
    }
    return Measured(rows=(row,), wrong=tuple(wrong), notes=tuple(missing))
