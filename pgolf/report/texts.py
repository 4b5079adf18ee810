"""Where along the held-out text the nats are: equal parts in order, the worst documents and the worst few words."""

from typing import TYPE_CHECKING

from pgolf.report.facts import Stretch, TextFacts

if TYPE_CHECKING:
    import numpy as np

    from verify.scoring.heldout import HeldOut
    from verify.scoring.score import Score

BINS = 200  # a third as many as pixels of the picture
WORST = 6
SNIPPET = 32  # targets; about 80 bytes at 1,024 pieces
SHORTEST = 200  # bytes of a document that is listed: below, a title decides
SHOWN = 160  # characters of its text


def text_facts(nats: "np.ndarray", heldout: "HeldOut", score: "Score") -> TextFacts:
    """nats: float (targets,), of each target, as the score adds them up."""
    import numpy as np

    from verify.scoring.token_bytes import BOS

    nats = nats.astype(np.float64)
    targets = len(nats)
    parts = min(BINS, targets)
    edges = np.unique(np.arange(parts + 1) * targets // parts)
    starts = np.unique([0, *(np.flatnonzero(heldout.tokens[:-1] == BOS))])  # BOS is what the first target follows
    document_edges = np.append(starts, targets)
    documents = _stretches(nats, heldout, document_edges)
    long_ones = [each for each in documents if each.bytes >= SHORTEST]
    snippets = _stretches(nats, heldout, np.append(np.arange(0, targets, SNIPPET), targets))
    full = [each for each in snippets if each.targets == SNIPPET]
    return TextFacts(
        scorer=score.scorer,
        targets=targets,
        bytes=score.bytes,
        bpb=score.bpb,
        partial=heldout.partial,
        documents=len(documents),
        bins=_stretches(nats, heldout, edges),
        worst_documents=_worst(long_ones or list(documents), heldout),
        worst_snippets=_worst(full or list(snippets), heldout),
    )


def _stretches(nats: "np.ndarray", heldout: "HeldOut", edges: "np.ndarray") -> tuple[Stretch, ...]:
    """edges: rising, from 0 to the number of targets.  What stands for no bytes has a bpb of 0."""
    import math

    import numpy as np

    sums = np.add.reduceat(nats, edges[:-1])
    sizes = np.add.reduceat(heldout.token_bytes, edges[:-1])
    return tuple(
        Stretch(
            first=int(first),
            targets=int(last - first),
            bytes=int(size),
            nats=float(total),
            bpb=float(total) / math.log(2) / int(size) if size else 0.0,
        )
        for first, last, size, total in zip(edges[:-1], edges[1:], sizes, sums, strict=True)
    )


def _worst(found: list[Stretch], heldout: "HeldOut") -> tuple[Stretch, ...]:
    from dataclasses import replace

    from sentencepiece import SentencePieceProcessor

    model = SentencePieceProcessor(model_file=str(heldout.tokenizer))
    chosen = sorted(found, key=lambda each: (-each.bpb, each.first))[:WORST]

    def text(each: Stretch) -> str:
        ids = heldout.tokens[each.first + 1 : each.first + 1 + min(each.targets, SHOWN)]
        whole = str(model.decode([int(i) for i in ids]))
        return whole if len(whole) <= SHOWN else f"{whole[: SHOWN - 1]}…"

    return tuple(replace(each, text=text(each)) for each in chosen)
