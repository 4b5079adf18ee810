"""Facts of a submission that nobody measured: small, honest, and to be changed one by one."""

from dataclasses import replace

import numpy as np

from verify.audit.trace import Difference
from verify.facts import ArtifactFacts, Facts, FolderFacts, LogsFacts, OwnFacts, TextFacts
from verify.foresight.probe import Foresight
from verify.foresight.strict import Strict
from verify.rescore import Rescored
from verify.reveal.stretches import OwnStatement
from verify.sandbox.launch import Settings
from verify.scoring.score import Score
from verify.submission.byte_count import ByteCount
from verify.submission.static_scan import Located, Scan

STATE = {"table": {"dtype": "float32", "shape": [3, 4], "sha256": "5" * 64}}
SCORE = Score(scorer="sliding", nats=177.0, tokens=179, bytes=222, windows=9, seconds=1.0)
NATS = np.zeros(0, np.float32)
RESCORED = Rescored(score=SCORE, state=STATE, length=16, notes=(), missing=(), attempts=(), loading=2.0, nats=NATS)
FORESIGHT = Foresight(cuts=460, least=150, threshold=0.5, share=0.05, rows=610, repeated=2)
STRICT = Strict(targets=200, refusal="", mean=0.0, low=-1e-9, high=1e-9)
FACTS = Facts(
    settings=Settings(length=16, stride=4, threads=1),
    count=ByteCount(
        main_file=300,
        import_closure=300,
        all_code=300,
        computed_wrapped=200,
        artifact=100,
        judged_total=400,
        cap=1000,
    ),
    folder=FolderFacts(unexpected=(), script_sha256="c" * 64, claims={}, environment={}, stated_in=""),
    logs=LogsFacts(group=None),
    artifact=ArtifactFacts(
        name="model.bin", size=100, sha256="a" * 64, foreign="", state=STATE, tokenizer_sha256="7" * 64
    ),
    scan=Scan(hits=(), lines=40, unread=0),
    text=TextFacts(targets=179, shard_targets=179, proof={"bytes": 222, "documents": 16}, tokenizer_sha256="7" * 64),
    packed=RESCORED,
    adapted=(),
    prefix=FORESIGHT,
    strict=None,
    floats=None,
)

CHUNKS = OwnStatement.read({"stretch": "chunk", "targets": 32768})
OWN = replace(RESCORED, score=replace(SCORE, scorer="own", nats=150.0, seconds=7.0), adapts=True, statement=CHUNKS)
ADAPTING = replace(FACTS, own=OwnFacts(rescored=OWN, statement=CHUNKS), beside=(replace(FORESIGHT, score="own"),))


def claiming(claims, facts=FACTS):
    return replace(facts, folder=replace(facts.folder, claims=claims))


def hit(rule, line=1):
    return Located(rule=rule, what="something", file="train_gpt.py", line=line, source="x = 1")


def moved(before, after, noise=0.0, **more):
    difference = Difference(what="score", position=20, before=before, after=after, changed=3)
    found = {"moved": 2, "worst": difference, "cut": 20, "window": (8, 24), "noise": noise, "deviation": noise / 3}
    return replace(FORESIGHT, **found | more)
