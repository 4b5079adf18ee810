"""The proof of a scorer that gives its distributions: code tokens with them, decode without having seen the tokens."""

from dataclasses import dataclass

import numpy as np

from verify.audit.arithmetic import Decoder, Encoder
from verify.audit.perturbations import Scope
from verify.audit.trace import Difference, Trace, row_difference, trace
from verify.scoring.scorer import Scorer


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundTrip:
    """What became of the first `coded` targets.  bits: of the code.  ideal: bits that the scores ask for.

    decoded: how many targets came back right.  moved: why decoding stopped, the distribution that it could not get.
    """

    coded: int
    bits: int
    ideal: float
    decoded: int
    moved: Difference | None


def round_trip(scorer: Scorer, tokens: np.ndarray, base: Trace, scope: Scope) -> RoundTrip | None:
    """Code the first scope.coded targets with the distributions of base; decode them one by one.

    The decoder runs the scorer afresh for each target, over what it has decoded and filler of the same length.
    None when base lacks distributions or does not score these targets first and in order: the decoder of a queue
    would need to be told the lengths of documents.
    """
    count = min(scope.coded, len(tokens) - 1)
    if base.log_probs is None or not np.array_equal(base.positions[:count], np.arange(count)):
        return None
    encoder = Encoder()
    for position in range(count):
        encoder.encode(int(tokens[position + 1]), base.log_probs[position])
    code, decoder, moved = encoder.finish(), Decoder(encoder.finish().data), None
    ids, often = np.unique(tokens[tokens != scope.bos], return_counts=True)
    filler = ids[np.argmin(often)]  # the rarest: where the filler is the target, nothing is hidden
    decoded = np.append(tokens[:1], np.full(len(tokens) - 1, filler))
    right = 0
    for position in range(count):
        run = trace(scorer, decoded, batch=scope.batch, until=position)
        moved = row_difference(base, run, position)
        record = run.record(position)
        if moved or run.log_probs is None or record is None:
            break
        decoded[position + 1] = decoder.decode(run.log_probs[record])
        if decoded[position + 1] != tokens[position + 1]:
            break
        right += 1
    ideal = float(base.nats[:count].sum() / np.log(2))
    return RoundTrip(coded=count, bits=code.bits, ideal=ideal, decoded=right, moved=moved)
