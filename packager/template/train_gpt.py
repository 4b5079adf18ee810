"""Train a language model, pack it into `model.bin`, load that again from disk, and score it in bits per byte.

    torchrun --standalone --nproc_per_node=8 train_gpt.py      everything; started again it goes on where it stopped
    python train_gpt.py --eval                                 score the model.bin that is there
    python train_gpt.py --pack checkpoint.safetensors          pack and score, without training

A run leaves model.bin, train.log, the float checkpoint, the state from which it goes on, and this script in its folder:
the script's own, or --output.  preset.toml and recipe.toml say what is trained and how it is packed.
"""

import argparse
import hashlib
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Any

import numpy as np
import torch

from codec.allocation.fit import fit_recipe
from codec.decoder import read_meta
from codec.encoder import artifact_meta, encode
from codec.errors import InputError, LimitError, PgolfError, UsageError
from codec.quantization.recipe import Recipe, parse_recipe, quantize_checkpoint
from codec.storage.atomic_files import read_bytes, write_bytes
from codec.storage.calibration_file import CHECKPOINT as CALIBRATED
from codec.storage.calibration_file import Layers, read_layers, sha256
from codec.storage.checkpoint import read_checkpoint
from codec.storage.token_shards import find_shards, find_tokenizer
from trainer.calibration import calibrate, calibration_model, default_sequences, sequences_per_pass, training_windows
from trainer.compute.device import cpu_threads, find_device
from trainer.compute.ranks import Ranks, failures_mean_loss
from trainer.data.loader import Loader
from trainer.model.config import GPTConfig
from trainer.model.gpt import GPT
from trainer.model.packed import load as load_packed
from trainer.presets.preset import Preset
from trainer.run.launched import told_once
from trainer.run.loop import train
from trainer.run.run_folder import LOG, LogHead
from trainer.run.text_log import TrainLog
from verify.reveal.own_adaptation import Own
from verify.scoring.adaptation import Adaptation
from verify.scoring.ranks import Ranks as Shares
from verify.scoring.score import Score
from verify.scoring.scorer import Scorer
from verify.scoring.sliding import Sliding
from verify.scoring.slot import ContextSlot
from verify.scoring.ttt import UPDATES, ScoreFirst
from verify.scoring.validation import Validation, score_line

# --- what to change ---------------------------------------------------------------------------------------------------
PRESET = Preset.parsed(Path(__file__).with_name("preset.toml").read_text())  # the model and its training
RECIPE = parse_recipe(Path(__file__).with_name("recipe.toml").read_text(), "recipe.toml")  # how it is quantized
SEED = 0
# And, after it, "ttt" (score-first test-time training) or "slot" (a shift fitted to context); the last one counts.
SCORES = ("sliding",)
STRIDE = 64  # targets scored per window
BATCH = 16  # windows per forward pass
ADAPTATION = Adaptation()  # of "ttt" and "slot"
CAP = 16_000_000  # bytes that code and artifact may have together
MARGIN = None  # or a number: the recipe's steps are fitted so that so many bytes are left under the cap
DATA = ("data", "data/datasets/*", ".")  # where shards are looked for, seen from the working folder
# ----------------------------------------------------------------------------------------------------------------------

Say = Callable[[str], None]  # adds a line to the log
SOURCE = Path(__file__).read_bytes()  # as it counts against the cap
SCRIPT, ARTIFACT, CALIBRATION = "train_gpt.py", "model.bin", "calibration.safetensors"
LABELS = {  # in the words of the field's logs
    "sliding": "final_sliding_window_exact",
    "ttt": "final_score_first_ttt_exact",
    "slot": "final_context_slot_exact",
}


def load(artifact_path: str | Path, device: str | torch.device = "cpu") -> GPT | Own:
    """What `pgolf verify` scores: the model, adapting by itself if the last of SCORES does."""
    model = load_packed(artifact_path, device)
    return model if SCORES[-1] == "sliding" else Own(model, SCORES[-1], ADAPTATION, model.config.seq_len)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train, pack, load again, score.")
    parser.add_argument("--eval", action="store_true", help=f"only score the {ARTIFACT} that is there")
    parser.add_argument("--pack", type=Path, metavar="CHECKPOINT", help="pack this one, do not train")
    parser.add_argument("--data", help=f"folder of the shards; else the first of {', '.join(DATA)} that holds some")
    parser.add_argument("--tokenizer", type=Path, help="SentencePiece model, instead of the data folder's")
    parser.add_argument("--val", type=Path, help="validation shard, instead of the data folder's")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent, help="folder of the run")
    parser.add_argument("--seed", type=natural, default=SEED)
    parser.add_argument("--steps", type=int, help="train so many, not the preset's")
    parser.add_argument("--score", action="append", choices=LABELS, help=f"repeat it; else {', '.join(SCORES)}")
    parser.add_argument("--stride", type=int, default=STRIDE, help="targets scored per window")
    parser.add_argument("--batch", type=int, default=BATCH, help="windows per forward pass")
    parser.add_argument("--limit-tokens", type=int, help="score only the first N targets")
    parser.add_argument("--threads", type=natural, help="CPU threads")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    return parser.parse_args()


def natural(text: str) -> int:
    number = int(text)
    if number < 0:
        raise ValueError
    return number


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What every stage needs.  data: folder of the shards.  validation: the held-out text."""

    options: argparse.Namespace
    ranks: Ranks
    device: torch.device
    data: Path
    tokenizer: Path
    validation: Validation

    @classmethod
    def of(cls, options: argparse.Namespace, ranks: Ranks) -> "Run":
        """Find the data: where the options say, else in the first folder of DATA that holds shards.

        Raises: InputError when there are none, or not one tokenizer.
        """
        split = "val" if options.eval or options.pack else "train"
        places = [options.data] if options.data else [path for place in DATA for path in sorted(glob(place))]
        holding = [path for path in map(Path, places) if any(path.glob(f"*_{split}_*.bin"))]
        if not holding:
            where = options.data or ", ".join(DATA)
            raise InputError(f"no *_{split}_*.bin in {where}", hint="name the folder of the shards: --data DIR")
        data = holding[0]
        tokenizer = options.tokenizer or _tokenizer(data)
        shards = [options.val] if options.val else find_shards(data, "val")
        return cls(
            options=options,
            ranks=ranks,
            device=find_device(options.device, ranks.local),
            data=data,
            tokenizer=tokenizer,
            validation=Validation.read(shards, tokenizer, options.limit_tokens),
        )

    def check_folder(self) -> None:
        """Raises: UsageError when the run's folder holds another script, which this one must not replace."""
        script = Path(self.options.output, SCRIPT)
        if script.exists() and read_bytes(script) != SOURCE:
            raise UsageError("is another script than the one that runs", where=str(script), hint="choose an --output")

    @property
    def artifact(self) -> Path:
        return Path(self.options.output, ARTIFACT)


def _tokenizer(data: Path) -> Path:
    """The folder's, or that of the preset's size where the challenge keeps its tokenizers."""
    kept = sorted(data.parent.parent.glob(f"tokenizers/*_{PRESET.model.vocab_size}_*.model"))
    return kept[0] if kept and not any(data.glob("*.model")) else find_tokenizer(data)


def trained(run: Run) -> Path:
    """The checkpoint of a training run, begun or gone on with."""
    options, preset = run.options, PRESET.with_vocabulary(run.validation.pieces, str(run.tokenizer))
    length = preset.model.seq_len

    def evaluate(model: GPT) -> tuple[float, float]:
        """By windows that do not overlap: quick, for the log."""
        score = scored(run, model, "sliding", stride=length)
        return score.loss, score.bpb

    def find_recipe(name: str) -> Recipe:
        if name != RECIPE.name:
            raise UsageError(f"the preset trains through recipe `{name}`, the script packs by `{RECIPE.name}`")
        return RECIPE

    facts = {
        "val_tokens": len(run.validation.token_bytes),
        "eval_seq_len": length,
        "eval_stride": min(options.stride, length),
        "recipe": RECIPE.name,
    }
    return train(
        preset,
        run.data,
        options.output,
        evaluate=evaluate,
        seed=options.seed,
        steps=options.steps,
        threads=options.threads,
        device=options.device,
        resume=True,
        tokenizer=run.tokenizer,
        find_recipe=find_recipe,
        head=LogHead(source_sha256=hashlib.sha256(SOURCE).hexdigest(), facts=facts, echo=True),
    ).checkpoint


def packed(run: Run, checkpoint: Path, say: Say) -> None:
    """Quantize and encode the checkpoint into model.bin; the first process does it, the others wait."""
    with run.ranks.long_timeout_group() as broadcast:
        if run.ranks.first:
            started = time.perf_counter()
            tensors, notes = read_checkpoint(checkpoint)
            layers = calibrated(run, checkpoint, tensors, notes, say) if RECIPE.calibrates else None
            code, recipe = len(SOURCE), RECIPE
            if MARGIN is None:
                treated = quantize_checkpoint(tensors, RECIPE, layers)
            else:
                fitted = fit_recipe(tensors, RECIPE, CAP - MARGIN - code, artifact_meta(notes), layers)
                recipe, treated = fitted.recipe, fitted.treated
            blob = encode(treated, {**artifact_meta(notes), "recipe": recipe.name})
            write_bytes(run.artifact, blob)
            write_bytes(Path(run.options.output, SCRIPT), SOURCE)
            say(f"Serialized model PGA1: {len(blob)} bytes")
            say(f"Code size: {code} bytes")
            say(f"Total submission size PGA1: {code + len(blob)} bytes")
            say(f"phase_times pack:{1000 * (time.perf_counter() - started):.0f}ms")
        broadcast([0.0])


def calibrated(run: Run, checkpoint: Path, tensors: dict[str, np.ndarray], notes: dict[str, Any], say: Say) -> Layers:
    """What GPTQ needs to know of the layers.  It counts as training: a preset keeps reserve_seconds for it."""
    started = time.perf_counter()
    config, seed = GPTConfig.from_dict(notes["config"]), run.options.seed
    model = calibration_model(config, tensors, run.device)
    sequences = default_sequences(config)
    batch = min(sequences_per_pass(config, run.device), sequences)
    loader = Loader(run.data, seq_len=config.seq_len, sequences=batch, vocab_size=config.vocab_size, seed=seed)
    found = calibrate(model, training_windows(loader, sequences), seed=seed)
    path = Path(run.options.output, CALIBRATION)
    found.write(path, {"source": "data", "batch": batch, "seed": seed, CALIBRATED: sha256(checkpoint)})
    say(f"phase_times calibrate:{1000 * (time.perf_counter() - started):.0f}ms")
    return read_layers(path, checkpoint, tensors)


def evaluated(run: Run, say: Say) -> None:
    """Load model.bin and score it; all processes share the windows.

    Raises: InputError when it was trained with another tokenizer.
    """
    trained_with = read_meta(read_bytes(run.artifact)).get("tokenizer_sha256")
    if trained_with and sha256(run.tokenizer) != trained_with:
        raise InputError(
            f"is not the tokenizer the model was trained with (sha256 {trained_with[:12]}...)",
            where=str(run.tokenizer),
            hint="pass the one its data was made with",
        )
    model, validation = load_packed(run.artifact, run.device), run.validation
    if partial := validation.partial:
        say(partial)
    length = model.config.seq_len
    stride = min(run.options.stride, length)
    for kind in dict.fromkeys(run.options.score or SCORES):
        say(score_line(LABELS[kind], scored(run, model, kind, stride=stride), length, stride))


def scored(run: Run, model: GPT, kind: str, *, stride: int) -> Score:
    """The score of the held-out text by windows of the model's length."""
    config, how = model.config, ADAPTATION
    sizes: dict[str, Any] = {
        "model": model,
        "vocab_size": config.vocab_size,
        "length": config.seq_len,
        "stride": stride,
        "device": run.device,
    }
    scorer: Scorer = Sliding(**sizes)
    if kind == "ttt":
        scorer = ScoreFirst(
            **sizes,
            chunk=how.chunk_of(len(run.validation.token_bytes), config.seq_len),
            epochs=how.epochs,
            sequences=how.sequences,
            lr=how.lr,
            update=UPDATES[how.update](),
            frozen_blocks=how.frozen_blocks,
        )
    if kind == "slot":
        scorer = ContextSlot(**sizes, steps=how.slot_steps, lr=how.slot_lr)
    shares = Shares.joined(failures_mean_loss) if run.ranks.world > 1 else 1
    return run.validation.score(scorer, batch=run.options.batch, ranks=shares)


def main() -> None:
    options, ranks = arguments(), Ranks.launched()
    with told_once(ranks, "stopped; the same command goes on from the last saved state"):
        run = Run.of(options, ranks)
        with cpu_threads(options.threads), ranks.joined(run.device):
            say: Say = print if ranks.first else _silent
            if not options.eval:
                run.check_folder()
                checkpoint = options.pack or trained(run)
                if ranks.first:
                    options.output.mkdir(parents=True, exist_ok=True)
                    say = TrainLog(options.output / LOG, keep_bytes=sys.maxsize, echo=True).add
                packed(run, checkpoint, say)
            evaluated(run, say)
    total = len(SOURCE) + run.artifact.stat().st_size
    if ranks.first and total > CAP:
        raise LimitError(f"code and artifact have {total:,} bytes, {total - CAP:,} over the cap of {CAP:,}")


def _silent(line: str) -> None:
    """Of all processes but the first."""


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
    except PgolfError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
