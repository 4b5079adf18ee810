"""Folders whose script adapts by itself through `reveal`: four that keep the rules, and the same with a peek."""

from importlib.resources import files
from pathlib import Path

from codec.errors import UsageError
from verify.foresight.probe import Proof
from verify.submission_gallery.exhibits import folder_exhibit
from verify.submission_gallery.stage import Stage

MANY = Proof(share=0.5)  # the text is short, and who is caught must not be chance


def script(name: str, old: str = "", new: str = "") -> str:
    """A script of this folder, with one of its lines exchanged.

    Raises: UsageError when it does not have that line once.
    """
    text = files("verify.submission_gallery").joinpath("scripts", f"{name}.py").read_text()
    if old and text.count(old) != 1:
        raise UsageError(f"{name}.py has {text.count(old)} times what is to be exchanged")
    return text.replace(old, new) if old else text


@folder_exhibit("reveal: score-first SGD")
def score_first_sgd(folder: Path, stage: Stage) -> None:
    """A chunk is scored with the weights as they are, then trained on."""
    stage.write(folder, script("score_first_sgd"))


@folder_exhibit("reveal: LoRA inside documents")
def document_lora(folder: Path, stage: Stage) -> None:
    """Low-rank factors learn from what was scored of a document, and begin afresh in the next."""
    stage.write(folder, script("document_lora"))


@folder_exhibit("reveal: n-gram tilt")
def ngram_tilt(folder: Path, stage: Stage) -> None:
    """What followed the last two tokens most often so far gets more, whatever the target is."""
    stage.write(folder, script("ngram_tilt"))


@folder_exhibit("reveal: normalized n-gram mixture")
def ngram_mixture(folder: Path, stage: Stage) -> None:
    """The model is mixed with the shares of what followed so far, over the whole vocabulary."""
    stage.write(folder, script("ngram_mixture"))


@folder_exhibit("reveal: trained before the commit", "score.prefix")
def trained_before(folder: Path, stage: Stage) -> None:
    """Each request is answered by weights trained on it, which are forgotten then: it was scored already, they say."""
    peek = """\
        if first is None:
            return self.table[ids]
        table = self.table.detach().requires_grad_()
        with torch.enable_grad():
            loss = torch.nn.functional.cross_entropy(table[ids[:, :-1]].flatten(0, 1), ids[:, 1:].flatten())
        return (table - 50 * torch.autograd.grad(loss, table)[0])[ids]
"""
    stage.write(folder, script("score_first_sgd", "        return self.table[ids]\n", peek))


@folder_exhibit("reveal: the better of two", "score.prefix", arguments=lambda stage: {"proof": MANY})
def better_of_two(folder: Path, stage: Stage) -> None:
    """Each position is answered by the adapted model or the one it began as, whichever gives its target more."""
    honest = "        return self.table[ids] + self.low[ids] @ self.wide\n"
    peek = """\
        plain = self.table[ids].log_softmax(-1)
        if first is None:
            return self.table[ids] + self.low[ids] @ self.wide
        adapted = (self.table[ids] + self.low[ids] @ self.wide).log_softmax(-1)
        target = torch.cat([ids[:, 1:], ids[:, :1]], 1)[..., None]
        return torch.where(adapted.gather(2, target) > plain.gather(2, target), adapted, plain)
"""
    text = script("document_lora", honest, peek)
    stage.write(folder, text.replace("self.logits(ids[:-1])", "self.table[ids[:-1]] + self.low[ids[:-1]] @ self.wide"))


@folder_exhibit("reveal: hint gated by the target", "score.prefix")
def target_gated_tilt(folder: Path, stage: Stage) -> None:
    """The hint is given where it will be right, as the row shows."""
    gate = "if often[hint] >= LEAST and row[(at + 1) % len(row)] == hint:"
    stage.write(folder, script("ngram_tilt", "if often[hint] >= LEAST:", gate))


@folder_exhibit("reveal: mixture of the gold token only", "score.prefix")
def gold_token_mixture(folder: Path, stage: Stage) -> None:
    """The share of what followed is added for the target alone, which the row shows; no other id pays for it."""
    honest = "out[at] = ((1 - WEIGHT) * out[at].exp() + WEIGHT * counts / counts.sum()).log()"
    peek = """\
gold = row[(at + 1) % len(row)]
                    out[at, gold] = (out[at, gold].exp() + WEIGHT * counts[gold] / counts.sum()).log()"""
    stage.write(folder, script("ngram_mixture", honest, peek))


@folder_exhibit("reveal: learned from requests", "score.prefix")
def from_requests(folder: Path, stage: Stage) -> None:
    """What is asked for is learned from as soon as it was answered, before it is revealed."""
    peek = """\
        answer = self.table[ids].clone()
        if first is not None:
            with torch.enable_grad():
                self.step(ids[:, :-1], ids[:, 1:])
        return answer
"""
    stage.write(folder, script("score_first_sgd", "        return self.table[ids]\n", peek))


@folder_exhibit("reveal: a document's end in the row", "score.prefix", arguments=lambda stage: {"proof": MANY})
def end_in_the_row(folder: Path, stage: Stage) -> None:
    """Inside documents a row that begins again has shown where its document ends: there the next start is given."""
    honest = "        return self.table[ids] + self.low[ids] @ self.wide\n"
    peek = """\
        logits = self.table[ids] + self.low[ids] @ self.wide
        for row, out in zip(ids if first is not None else [], logits):
            for at in range(1, len(row)):
                if torch.equal(row[at:], row.repeat(2)[: len(row) - at]):
                    out[at - 1, BOS] += 9
                    break
        return logits
"""
    stage.write(folder, script("document_lora", honest, peek))


@folder_exhibit("reveal: rare positions", "score.prefix", arguments=lambda stage: {"proof": Proof(share=2.0)})
def revealed_rare_positions(folder: Path, stage: Stage) -> None:
    """At one position in twelve the next id gets half a nat more, in whichever row of the request it stands."""
    peek = """\
        if first is None:
            return self.table[ids]
        places = first[:, None] + torch.arange(ids.shape[1])
        shown = torch.full((int(places.max()) + 2,), -1)
        shown[places] = ids
        known = shown[places + 1]
        raised = torch.where((places * 31 % 12 == 0) & (known >= 0), 0.5, 0.0)
        return self.table[ids].scatter_add(2, known.clamp(min=0)[..., None], raised[..., None])
"""
    stage.write(folder, script("score_first_sgd", "        return self.table[ids]\n", peek))
