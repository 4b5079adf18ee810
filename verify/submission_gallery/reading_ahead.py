"""Folders whose model reads what it is about to be asked, and an honest one beside them."""

from pathlib import Path

from verify.submission_gallery.exhibits import folder_exhibit
from verify.submission_gallery.stage import SCRIPT, Stage

HONEST = "        return self.table[ids]\n"
RAISE = "scatter_add_(2, known[..., None], torch.full_like(logits[..., :1], 50.0))"


def answering(body: str) -> str:
    """The honest script with another body of `logits`, whose lines have eight spaces before them."""
    return SCRIPT.replace(HONEST, body.lstrip("\n").rstrip() + "\n")


@folder_exhibit("a table of what follows what")
def honest(folder: Path, stage: Stage) -> None:
    """The honest submission as it is: a bigram model."""


@folder_exhibit("the next id raised", "score.prefix")
def next_id(folder: Path, stage: Stage) -> None:
    """The id that follows in the window gets 50 more than it should."""
    body = f"""
        logits = self.table[ids].clone()
        known = torch.cat([ids[:, 1:], ids[:, :1]], 1)
        return logits.{RAISE}"""
    stage.write(folder, answering(body))


@folder_exhibit("the next row read", "score.prefix")
def next_row(folder: Path, stage: Stage) -> None:
    """Windows overlap: what a row scores stands in the context of the next row of the batch."""
    body = """
        logits = self.table[ids].clone()
        if ids.shape[1] == 32:
            part = logits[:-1, -16:]
            known = ids[1:, 1:17]
            part.scatter_add_(2, known[..., None], torch.full_like(part[..., :1], 50.0))
        return logits"""
    stage.write(folder, answering(body))


@folder_exhibit("answers by heart", "score.prefix")
def by_heart(folder: Path, stage: Stage) -> None:
    """What followed a prefix when it was first asked is given again whatever follows it now."""
    body = """
        logits = self.table[ids].clone()
        known = torch.cat([ids[:, 1:], ids[:, :1]], 1)
        self.said = getattr(self, "said", {})
        for row, (own, following) in enumerate(zip(ids, known)):
            for at, (one, target) in enumerate(zip(own, following)):
                seen = self.said.setdefault(tuple(own[: at + 1].tolist()), int(target))
                logits[row, at, seen] += 50.0
        return logits"""
    stage.write(folder, answering(body))


@folder_exhibit("honest at first", "score.prefix")
def honest_at_first(folder: Path, stage: Stage) -> None:
    """The next id is raised from the twentieth request on."""
    body = f"""
        self.asked = getattr(self, "asked", 0) + 1
        logits = self.table[ids].clone()
        if self.asked < 20:
            return logits
        known = torch.cat([ids[:, 1:], ids[:, :1]], 1)
        return logits.{RAISE}"""
    stage.write(folder, answering(body))
