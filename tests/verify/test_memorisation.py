"""A text known by heart comes easier than another of its kind; honest texts of one kind differ by chance only."""

import json
from dataclasses import replace

import numpy as np
import pytest

from codec.errors import InputError
from codec.storage.token_shards import shard_bytes
from pgolf.fresh_text import read_fresh
from tests.verify.measured import FACTS
from verify.memorisation import CONFIDENCE, LEAST_RUN, Gap, Memorised, ScoredText, gap_between, look, refuse_shared
from verify.pipeline import examine
from verify.run_rules import FOREIGN, check_memorised
from verify.sandbox.launch import Settings
from verify.submission.folder import Submission

BPB = 1.2


def text(seed: int, documents: int = 100, length: int = 300, spread: float = 0.1) -> ScoredText:
    """Documents of different difficulty, tokens of different length and loss."""
    random = np.random.default_rng(seed)
    lengths = random.integers(length // 2, 2 * length, documents)
    tokens = np.concatenate([np.append(1, random.integers(4, 300, each)) for each in lengths])
    token_bytes = random.integers(1, 7, len(tokens) - 1)
    level = np.repeat(random.normal(1, spread, documents), lengths + 1)[1:]
    nats = random.exponential(1, len(tokens) - 1) * BPB * np.log(2) * 3.5 * level
    return ScoredText(nats=nats.astype(np.float32), tokens=tokens, token_bytes=token_bytes)


def known(scored: ScoredText, start: int, stop: int, nats: float = 1e-4) -> ScoredText:
    changed = scored.nats.copy()
    changed[start:stop] = nats
    return replace(scored, nats=changed)


def judged(found: Memorised):
    (finding,) = check_memorised(replace(FACTS, memorised=found))
    return finding


def test_honest_texts_are_seldom_accused_and_never_failed():
    found = [gap_between(text(seed), text(seed + 1000)) for seed in range(300)]
    outside = sum(gap.size > gap.reach for gap in found)
    assert outside <= 3  # 0.3 expected at 99.9 %: more than 3 come once in 4,000
    assert not [gap for gap in found if gap.size - gap.reach > FOREIGN * gap.fresh]


def test_the_error_is_what_the_gap_scatters_by():
    gaps = [gap_between(text(seed), text(seed + 1000)) for seed in range(150)]
    scatter = np.std([gap.size for gap in gaps])
    assert np.mean([gap.error for gap in gaps]) == pytest.approx(scatter, rel=0.25)  # of 150: 6 % by chance


@pytest.mark.parametrize("seed", range(5))
def test_a_text_that_comes_a_tenth_easier_fails(seed):
    scored = text(seed)
    finding = judged(look(replace(scored, nats=scored.nats * np.float32(0.9)), text(seed + 1000)))
    assert finding.level == "fail"
    assert "the scored text is known" in finding.message
    assert finding.evidence["gap"]["size"] > 0.05


def test_a_stored_stretch_is_told_with_its_place():
    scored, fresh = text(1), text(2)
    place = int(scored.starts[10]) + 5
    for other in (None, fresh):
        found = look(known(scored, place, place + 200), other)
        assert found.runs[0]["position"] in range(place - 6, place + 1)
        assert found.runs[0]["targets"] in range(200, 212)
        assert found.runs[0]["document"] == 10
        finding = judged(found)
        assert finding.level == "warn"
        assert f"begins at target {found.runs[0]['position']:,}, in document 10" in finding.message
    assert judged(look(scored)).level == judged(look(scored, fresh)).level == "pass"


def test_a_stretch_that_fresh_text_has_too_is_no_sign():
    scored, fresh = known(text(1), 500, 700), known(text(2), 900, 1050)
    assert look(scored).beyond == 1
    assert look(scored, fresh).beyond == 0


def test_many_stored_stretches_make_no_room_for_themselves():
    scored = text(3, documents=200)
    for start in scored.starts[:150:2]:
        scored = known(scored, int(start), int(start) + 120)
    assert look(scored).beyond > 60


def test_runs_up_to_the_least_are_never_told():
    scored = text(4)
    quiet = replace(scored, nats=np.maximum(scored.nats, 0.5))
    assert look(known(quiet, 100, 100 + LEAST_RUN)).beyond == 0
    assert look(known(quiet, 100, 101 + LEAST_RUN)).beyond == 1


def test_runs_and_documents_by_hand():
    nats = np.array([0.01, 0.01, 3, 0.01, 2, 0.05, 0.05, 0.05], np.float32)
    scored = ScoredText(
        nats=nats, tokens=np.array([1, 5, 6, 1, 7, 8, 1, 9, 9]), token_bytes=np.array([1, 2, 0] * 3)[:8]
    )
    first, lengths = scored.runs()
    assert (first.tolist(), lengths.tolist()) == ([0, 3, 5], [2, 1, 3])
    assert scored.starts.tolist() == [0, 3, 6]
    bits, sizes = scored.by_document()
    assert sizes.tolist() == [3, 3, 3]
    assert bits == pytest.approx(np.array([3.02, 2.06, 0.1]) / np.log(2), rel=1e-6)
    assert scored.bpb == pytest.approx(bits.sum() / 9)


def test_the_interval_is_that_of_students_t():
    """With documents of one size and many tokens: the factor is the quantile for both texts' degrees of freedom."""
    gap = gap_between(text(5, documents=12, length=4000), text(6, documents=12, length=4000))
    assert 3.5 < gap.factor < 4.3  # t of 22 degrees of freedom 3.505, of 12 it is 3.930; CONFIDENCE 0.999
    many = gap_between(text(5, documents=900), text(6, documents=900))
    assert many.factor == pytest.approx(3.10, abs=0.02)
    assert CONFIDENCE == 0.999


def test_other_scores_are_judged_as_well():
    """Where only an adapted copy knows the text, the sliding score tells nothing of it."""
    scored, fresh = text(0), text(1000)
    easier = replace(scored, nats=scored.nats * np.float32(0.9))
    facts = replace(FACTS, memorised=look(scored, fresh), known=(("ttt", look(easier, fresh)),))
    sliding, by_ttt = check_memorised(facts)
    assert (sliding.level, by_ttt.level) == ("pass", "fail")
    assert by_ttt.message.startswith("by ttt: ")


def test_few_documents_are_unknown():
    few = text(7, documents=5)
    finding = judged(look(few, text(8)))
    assert (finding.level, finding.evidence["gap"]) == ("unknown", None)


def test_a_gap_within_what_texts_of_one_kind_differ_by_warns():
    gap = Gap(fresh=1.0, scored=0.985, error=0.001, factor=3.1, documents=(99, 99))
    finding = judged(replace(look(text(1)), gap=gap, compared=True))
    assert (finding.level, "honest model in 1,000" in finding.message) == ("warn", True)


def test_documents_in_both_texts_are_refused():
    scored, fresh = text(1, documents=9), text(2, documents=9)
    refuse_shared(scored.tokens, fresh.tokens)
    shared = np.concatenate([fresh.tokens, scored.tokens[: scored.starts[1]]])
    with pytest.raises(InputError, match="has 1 of 10 documents in common with the scored one"):
        refuse_shared(scored.tokens, shared)


def test_fresh_text_and_a_shard_of_it_are_the_same(heldout, tmp_path):
    lines, shard = tmp_path / "other.jsonl", tmp_path / "other.bin"
    lines.write_text("".join(json.dumps({"text": each}) + "\n" for each in ("a cat and tea", "the mat ran")))
    first = read_fresh(lines, heldout.tokenizer)
    shard.write_bytes(shard_bytes(first.tokens))
    second = read_fresh(shard, heldout.tokenizer)
    assert first.tokens.tolist() == second.tokens.tolist()
    assert first.token_bytes.tolist() == second.token_bytes.tolist()
    assert (first.proof["documents"], first.proof["bytes"]) == (2, 24)
    assert read_fresh(shard, heldout.tokenizer, 3).targets == 3


@pytest.mark.slow
def test_the_same_process_scores_the_fresh_text(write_submission, heldout, table, tmp_path):
    lines = tmp_path / "other.jsonl"
    words = [f"the {one} sat on the {other}" for one in ("cat", "dog", "mat") for other in ("tea", "cake", "dog")]
    lines.write_text("".join(json.dumps({"text": each}) + "\n" for each in words))
    fresh = read_fresh(lines, heldout.tokenizer)
    settings = Settings(length=16, stride=4, threads=1)
    verdict = examine(Submission.open(write_submission()), heldout, settings, fresh=fresh)
    (finding,) = [each for each in verdict.findings if each.rule == "score.memorised"]
    logits = table.astype(np.float64)
    partition = np.log(np.exp(logits).sum(1))
    before, after = fresh.tokens[:-1].astype(int), fresh.tokens[1:].astype(int)
    nats = (partition[before] - logits[before, after]).sum()
    assert finding.evidence["gap"]["fresh"] == pytest.approx(nats / np.log(2) / fresh.token_bytes.sum(), rel=1e-5)
    assert finding.evidence["gap"]["scored"] == pytest.approx(verdict.scores[0].bpb, rel=1e-5)
