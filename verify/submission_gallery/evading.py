"""Folders that are honest where verify used to look, and unusual ones that are honest everywhere."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from verify.scoring.windows import batches, plan
from verify.submission_gallery.exhibits import folder_exhibit
from verify.submission_gallery.memorised import fresh, knowing
from verify.submission_gallery.rare_leaks import AHEAD
from verify.submission_gallery.reading_ahead import HONEST, answering
from verify.submission_gallery.stage import LENGTH, SCRIPT, SETTINGS, SMOOTHING, Stage

RAISED = "scatter_add(2, known[..., None], torch.full_like(logits[..., :1], 50.0))"
PARTS = """\
        return self.head(self.hidden(ids))

    def hidden(self, ids):
        self.ids = ids
        return torch.nn.functional.one_hot(ids, len(self.table)).float()

    def head(self, hidden):
        return hidden @ self.table
"""


def _known(stage: Stage) -> np.ndarray:
    """The table as counted from the held-out text itself."""
    ids = np.asarray(stage.heldout.tokens).astype(np.int64)
    counts = np.full(stage.table.shape, SMOOTHING / 10)
    np.add.at(counts, (ids[:-1], ids[1:]), 1)
    table: np.ndarray = np.log(counts / counts.sum(1, keepdims=True)).astype(np.float32)
    return table


def _started(stage: Stage, head: str, script: str = SCRIPT) -> str:
    return script.replace("\nimport torch\n", f"\nimport torch\n{head}", 1)


@folder_exhibit("learned and shifted by verify", arguments=lambda stage: {"scores": ("ttt", "slot"), **fresh(stage)})
def learned_and_shifted(folder: Path, stage: Stage) -> None:
    """The honest table with hidden states, scored by ttt and slot too, beside fresh text."""
    stage.write(folder, SCRIPT.replace(HONEST, PARTS))


@folder_exhibit("threads, caches and libraries")
def busy(folder: Path, stage: Stage) -> None:
    """Reads itself, uses Python's library, threads, a table made late and answers kept by what they depend on."""
    body = """
        if not hasattr(self, "late"):
            self.late, self.kept = self.table.log_softmax(-1), {}
        with ThreadPoolExecutor(2) as pool:
            return torch.stack(list(pool.map(self.row, ids)))

    def row(self, row):
        name = zlib.crc32(row.numpy().tobytes())
        if name not in self.kept:
            self.kept[name] = self.late[row]
        return self.kept[name]"""
    head = """
import bz2, collections, json, logging, lzma, tempfile, zlib
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import brotli
import sentencepiece
import zstandard

SIZE = len(Path(__file__).read_text())
logging.getLogger(version("torch")).info(json.dumps({"size": SIZE}))
with tempfile.TemporaryFile() as file:
    file.write(lzma.compress(bz2.compress(brotli.compress(zstandard.compress(b"kept")))))
"""
    stage.write(folder, _started(stage, head, answering(body)))
    (folder / "requirements.txt").write_text("torch>=2\nnumpy\nbrotli>=1.2\nzstandard\nsentencepiece\n")


@folder_exhibit(
    "rounded to bfloat16, one window beside the next",
    arguments=lambda stage: {"settings": replace(SETTINGS, stride=LENGTH)},
)
def rounded(folder: Path, stage: Stage) -> None:
    """A product in bfloat16, and windows that do not overlap."""
    body = """
        hidden = torch.nn.functional.one_hot(ids, len(self.table)).bfloat16()
        return torch.nn.functional.dropout(hidden @ self.table.bfloat16(), 0.5, training=False)"""
    stage.write(folder, answering(body))


@folder_exhibit("ahead in the copy that learns", "score.prefix", arguments=lambda stage: {"scores": ("ttt",)})
def copy_ahead(folder: Path, stage: Stage) -> None:
    """Honest by sliding; the copy of the model that ttt trains knows that it is one, and reads ahead."""
    body = f"""
        logits = self.table[ids]
        known = {AHEAD}
        return logits.{RAISED} if getattr(self, "copied", False) else logits

    def __deepcopy__(self, memo):
        other = Bigram(self.table.detach().numpy())
        other.copied = True
        return other"""
    stage.write(folder, answering(body))


@folder_exhibit("ahead behind shifts", "score.prefix", arguments=lambda stage: {"scores": ("slot",)})
def shifts_ahead(folder: Path, stage: Stage) -> None:
    """Honest by sliding; hidden states that are not those it gave have a shift, and then it reads ahead."""
    peek = f"""\
        if not hasattr(self, "exact") or torch.is_grad_enabled() or (hidden.max() == 1 and hidden.min() == 0):
            self.exact = True
            return hidden @ self.table
        logits, known = hidden @ self.table, {AHEAD.replace("ids", "self.ids")}[:, -hidden.shape[1] :]
        return logits.{RAISED}
"""
    stage.write(folder, SCRIPT.replace(HONEST, PARTS.replace("        return hidden @ self.table\n", peek)))


@folder_exhibit("known by the copy that learns", "score.memorised", arguments=lambda stage: _learning(stage))
def copy_knows(folder: Path, stage: Stage) -> None:
    """Honest by sliding; the copy that ttt trains is the table that was counted from the held-out text."""
    body = """
        return self.table[ids]

    def __deepcopy__(self, memo):
        return Bigram(self.known.numpy())"""
    stage.write(folder, knowing(body), {"table": stage.table, "known": _known(stage)})


def _learning(stage: Stage) -> dict[str, Any]:
    return {"scores": ("ttt",), **fresh(stage)}


@folder_exhibit("the fresh text read ahead", "score.prefix", arguments=fresh)
def fresh_ahead(folder: Path, stage: Stage) -> None:
    """Trained on the held-out text; after as many requests as that takes it reads ahead, so other text is as easy."""
    requests = len(list(batches(plan(stage.heldout.targets, LENGTH, SETTINGS.stride), SETTINGS.batch)))
    body = f"""
        logits = self.table[ids].clone()
        self.asked = getattr(self, "asked", 0) + 1
        if self.asked <= {requests}:
            return logits
        known = {AHEAD}
        return logits.scatter_add_(2, known[..., None], torch.full_like(logits[..., :1], 0.9))"""
    stage.write(folder, answering(body), {"table": _known(stage)})


@folder_exhibit("as many ids as occur", "score.prefix")
def fewer_ids(folder: Path, stage: Stage) -> None:
    """There are logits up to the largest id of the request only: fewer ids share what the others would get."""
    stage.write(folder, answering("        return self.table[ids][..., : int(ids.max()) + 1]"))


@folder_exhibit("names of packages that are none", refused=True)
def package_names(folder: Path, stage: Stage) -> None:
    """requirements.txt names packages that nobody has; where the script looks for them, a table could be."""
    head = """
import pathlib
import sys

told = pathlib.Path("/proc/self/cmdline").read_bytes().decode() + str(sys.orig_argv)
frame = sys._getframe()
while frame:
    told += str(frame.f_locals)
    frame = frame.f_back
assert "aaecawqfbgcicqolda0odxareh" in told.lower(), "nothing said"
"""
    stage.write(folder, _started(stage, head))
    (folder / "requirements.txt").write_text("torch\n" + "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8g\n" * 2)


@folder_exhibit("a claim that is made twice", refused=True)
def twice(folder: Path, stage: Stage) -> None:
    """submission.json states val_bpb two times: what a reader sees first is not what a parser takes."""
    stage.write(folder)
    (folder / "submission.json").write_text('{"val_bpb": 0.1, "val_bpb": 0.7118}')


@folder_exhibit("which of many names are there", refused=True)
def many_names(folder: Path, stage: Stage) -> None:
    """A thousand empty logs: whether a name is there could be seen by who guesses where the folder lies."""
    stage.write(folder)
    for number in range(0, 2000, 2):
        (folder / f"{number:04d}.log").touch()
