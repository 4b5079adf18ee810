"""Folders that read ahead where or when they hope not to be looked at, and honest ones that might be taken for them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from verify.foresight.probe import Proof
from verify.submission_gallery.exhibits import folder_exhibit
from verify.submission_gallery.reading_ahead import RAISE, answering
from verify.submission_gallery.stage import SETTINGS, Stage

MANY, ALONE = Proof(share=0.5), Proof(share=0.0, strict=100)  # the text is short, and who is caught must not be chance
AHEAD = "torch.cat([ids[:, 1:], ids[:, :1]], 1)"  # the id that follows in the window


@folder_exhibit("long context")
def long_context(folder: Path, stage: Stage) -> None:
    """The bigram table and, for each position, counts of all that came before it in its window: nothing behind it."""
    body = """
        seen = torch.nn.functional.one_hot(ids, self.table.shape[1]).float().cumsum(1)
        return self.table[ids] + torch.log(seen + 50.0)"""
    stage.write(folder, answering(body))


@folder_exhibit("rare batches", "score.prefix")
def rare_batches(folder: Path, stage: Stage) -> None:
    """One request in 25 is answered with what follows: more than a record's margin, and most requests are honest."""
    body = f"""
        logits = self.table[ids].clone()
        if int(ids.sum()) % 25:
            return logits
        known = {AHEAD}
        return logits.{RAISE}"""
    stage.write(folder, answering(body))


@folder_exhibit("rare positions", "score.prefix", arguments=lambda stage: {"proof": MANY})
def rare_positions(folder: Path, stage: Stage) -> None:
    """At one position in twelve, those that three tokens choose, the next id gets half a nat more than it should."""
    body = f"""
        logits = self.table[ids].clone()
        before = torch.cat([ids[:, :1], ids[:, :-1]], 1)
        reads = (ids * 31 + before * 17) % 12 == 0
        known = {AHEAD}
        raised = torch.where(reads, 0.5, 0.0)
        return logits.scatter_add_(2, known[..., None], raised[..., None])"""
    stage.write(folder, answering(body))


@folder_exhibit("rows that tell each other", "score.prefix")
def cross_row(folder: Path, stage: Stage) -> None:
    """Ids that occur anywhere in the batch get a little more: rows in front learn what those behind them hold."""
    body = """
        there = torch.bincount(ids.flatten(), minlength=self.table.shape[1]) > 0
        return self.table[ids] + 0.3 * there"""
    stage.write(folder, answering(body))


@folder_exhibit("noise as a shield", "score.prefix")
def noise(folder: Path, stage: Stage) -> None:
    """The next id gets a little more, and every answer so much noise that a second one differs anyway."""
    body = f"""
        logits = self.table[ids] + 0.02 * torch.randn(*ids.shape, self.table.shape[1])
        known = {AHEAD}
        return logits.scatter_add_(2, known[..., None], torch.full_like(logits[..., :1], 0.01))"""
    stage.write(folder, answering("        torch.seed()" + body))


@folder_exhibit("honest when it is watched", "score.prefix")
def watched(folder: Path, stage: Stage) -> None:
    """Reads ahead, but not in its first requests, in windows that do not go on where the last ended, or seen before.

    An audit looks like that: a short stream, zeros, the same text again and again.
    """
    body = f"""
        logits = self.table[ids].clone()
        stride = {SETTINGS.stride}
        self.asked = getattr(self, "asked", 0) + 1
        self.said = getattr(self, "said", set())
        name = tuple(ids.flatten().tolist())
        row = getattr(self, "row", ids[0])
        goes_on = len(row) == ids.shape[1] and torch.equal(row[stride:], ids[0, :-stride])
        inside = torch.equal(ids[:-1, stride:], ids[1:, :-stride])
        self.row = ids[-1]
        if self.asked < 20 or name in self.said or not ids.any() or not goes_on or not inside:
            self.said.add(name)
            return logits
        self.said.add(name)
        known = {AHEAD}
        return logits.{RAISE}"""
    stage.write(folder, answering(body))


def _whole_text(stage: Stage) -> dict[str, Any]:
    targets = stage.heldout.targets
    return {"settings": replace(SETTINGS, length=targets, stride=targets)}


@folder_exhibit("one window", "score.prefix", arguments=_whole_text)
def one_window(folder: Path, stage: Stage) -> None:
    """The whole text is one window, so there is one request: in one part in eight of it the next id is raised."""
    body = f"""
        logits = self.table[ids].clone()
        part = ids.shape[1] // 8
        known = {AHEAD}[:, :part]
        logits[:, :part].scatter_add_(2, known[..., None], torch.full_like(logits[:, :part, :1], 50.0))
        return logits"""
    stage.write(folder, answering(body))


@folder_exhibit("what follows, against prefixes alone", "score.strict", arguments=lambda stage: {"proof": ALONE})
def strict(folder: Path, stage: Stage) -> None:
    """The next id gets a hundredth of a nat more than it should; a hundred targets are scored from prefixes alone."""
    body = f"""
        logits = self.table[ids].clone()
        known = {AHEAD}
        return logits.scatter_add_(2, known[..., None], torch.full_like(logits[..., :1], 0.01))"""
    stage.write(folder, answering(body))


@folder_exhibit("one window, remembered", "score.prefix", arguments=_whole_text)
def remembered(folder: Path, stage: Stage) -> None:
    """The whole text is one window; what the first request showed is what follows, whatever stands there later."""
    body = f"""
        logits = self.table[ids].clone()
        self.first = getattr(self, "first", ids)
        known = torch.cat([self.first[:, 1:], self.first[:, :1]], 1)
        return logits.{RAISE}"""
    stage.write(folder, answering(body))


@folder_exhibit("a memory for the probe", "score.prefix", arguments=lambda stage: {"proof": MANY})
def memory(folder: Path, stage: Stage) -> None:
    """At one place in three what follows is raised: as it was first seen by this process, in whichever row."""
    body = """
        logits = self.table[ids].clone()
        self.seen = getattr(self, "seen", {})
        rows = ids.tolist()
        for row in rows:
            for at in range(5, len(row) - 1):
                self.seen.setdefault(tuple(row[at - 5 : at + 1]), row[at + 1])
        for each, row in zip(logits, rows):
            for at in range(5, len(row) - 1):
                if sum(row[at - 5 : at + 1]) % 3 == 0:
                    each[at, self.seen[tuple(row[at - 5 : at + 1])]] += 50.0
        return logits"""
    stage.write(folder, answering(body))
