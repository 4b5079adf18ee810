"""Published figures: the validation texts of the field as counts, and records to compare with.  Dated data.

Source: the logs of openai/parameter-golf, pull requests as numbered; counts of bytes follow from loss and bpb.
"""

from dataclasses import dataclass

CHALLENGE_BYTES = 151_077_000  # of the 50,000 validation documents; tokenizers differ by their cut tails, < 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A text that logs were scored on, by its counts.  recounted: targets counted again (the tail, in windows).

    flaw: what is wrong with a score on it, "" when nothing is.  superseded: it was the challenge's text at its time.
    """

    tokens: int
    bytes: int
    what: str
    recounted: int = 0
    flaw: str = ""
    superseded: bool = False


TEXTS = (
    Text(tokens=62_021_632, bytes=151_080_363, what="sp1024"),
    Text(tokens=62_023_616, bytes=151_084_796, what="sp1024", recounted=1_984),
    Text(tokens=45_508_608, bytes=151_074_053, what="sp4096"),
    Text(tokens=45_514_752, bytes=151_074_924, what="sp4096 of #1285"),
    Text(tokens=40_540_160, bytes=151_078_222, what="sp8192"),
    Text(tokens=40_542_208, bytes=151_075_152, what="sp8192 of #1716"),
    Text(tokens=47_851_520, bytes=151_074_499, what="sp8192 with CaseOps"),
    Text(tokens=151_076_864, bytes=151_076_864, what="bytes"),
    Text(tokens=9_662_464, bytes=32_756_252, what="sp8192", flaw="10,000 of the 50,000 documents only"),
    Text(tokens=63_779_840, bytes=155_769_746, what="sp1024", flaw="an older validation export", superseded=True),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """bpb and loss (nats per token) by seed; loss is empty where only bpb was published."""

    bpb: tuple[float, ...]
    loss: tuple[float, ...] = ()


RECORDS = {
    "162": Record(
        bpb=(1.14597222, 1.14656085, 1.14491770),
        loss=(1.93492097, 1.93591485, 1.93314046),
    ),
    "549": Record(
        bpb=(1.11922988, 1.11888882, 1.12002032),
        loss=(1.88976776, 1.88919190, 1.89110239),
    ),
    "1019": Record(
        bpb=(1.11508120, 1.11437394, 1.11475014),
        loss=(1.88276292, 1.88156874, 1.88220393),
    ),
    "1493": Record(bpb=(1.08079, 1.08103, 1.08118)),
    "1716": Record(
        bpb=(1.07886574, 1.07892882, 1.07865582),
        loss=(2.78662485, 2.78678778, 2.78608265),
    ),
    "1855": Record(bpb=(1.05989454, 1.06124613, 1.06208695)),
}
