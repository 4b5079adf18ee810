"""The README of a record, of runs that chance makes: every number is recomputed by a second reader."""

import math
import re
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.verify.record_numbers import cells, of_log, score_rows, sections, significance_rows, size_rows, tables
from verify.claims.runs import read_group
from verify.claims.significance import SeedScores, compare
from verify.finding import Finding
from verify.record_folder.readme import Shown, record_page
from verify.record_folder.run_commands import RunCommands

seeds = st.lists(st.integers(0, 10**6), min_size=1, max_size=6, unique=True)
log_facts = st.tuples(
    st.integers(50_000_000, 1_400_000_000),  # bpb, in units of its 8th decimal
    st.integers(1, 20_000),
    st.integers(0, 700_000),
    st.integers(1, 900_000),
    st.integers(1, 16_500_000),
)


def text(seed, facts, code):
    bpb, steps, trained, scored, model = facts
    loss = bpb * math.log(2) * 2.5
    return f"""\
world_size:8
seed:{seed}
step:{steps}/20000 val_loss:2.1000 val_bpb:1.2000 train_time:{trained}ms step_avg:9.00ms
Serialized model: 100000000 bytes
Code size: {code} bytes
Serialized model int6+zstd: {model} bytes
Total submission size int6+zstd: {model + code} bytes
final_int6_sliding_window_exact val_loss:{loss / 1e8:.8f} val_bpb:{bpb / 1e8:.8f} eval_time:{scored}ms
"""


def shown(folder, code, artifact=None, **changes):
    group = read_group(sorted(folder.glob("*.log"), key=lambda path: int(path.stem)))
    first = group.runs[0].seed
    return replace(
        Shown(
            said={},
            group=group,
            comparison=None,
            against=(),
            cap=16_000_000,
            code={"train_gpt.py": code},
            artifact=artifact,
            artifact_name="model.bin" if artifact else "",
            artifact_seed=first if artifact else None,
            commands=RunCommands(train="torchrun train_gpt.py", evaluate=""),
        ),
        **changes,
    )


@settings(max_examples=60)
@given(seeds, st.lists(log_facts, min_size=6, max_size=6), st.integers(1, 10**6), st.none() | st.integers(1, 2 * 10**7))
def test_the_tables_of_any_runs(numbers, facts, code, artifact):
    with tempfile.TemporaryDirectory() as place:
        logs = [text(seed, each, code) for seed, each in zip(numbers, facts, strict=False)]
        for number, log in enumerate(logs):
            Path(place, f"{number}.log").write_text(log)
        written = sections(record_page(shown(Path(place), code, artifact), ()))
    read = [of_log(log) for log in logs]
    (scores,) = tables(written["Scores"])
    assert [[row[0], *row[2:]] for row in scores] == score_rows(read)
    (sizes,) = tables(written["Sizes"])
    assert sizes == size_rows(read, code, artifact)
    assert f"**val_bpb {score_rows(read)[len(read)][1]}**" in written[""]


@settings(max_examples=40)
@given(st.lists(log_facts, min_size=3, max_size=3, unique_by=lambda facts: facts[0]), st.floats(0.5, 14))
def test_significance_of_any_three_runs(facts, against):
    """Student's t with two degrees of freedom has a closed form."""
    with tempfile.TemporaryDirectory() as place:
        logs = [text(seed, each, 1000) for seed, each in enumerate(facts)]
        for number, log in enumerate(logs):
            Path(place, f"{number}.log").write_text(log)
        page_of = shown(Path(place), 1000)
        group = page_of.group
        comparison = compare(group.sample, SeedScores(values=(against,)), group.bpb_per_nat)
        written = sections(record_page(replace(page_of, comparison=comparison, against=(str(against),)), ()))
    bounds, outcomes = tables(written["Significance"])
    wanted_bounds, wanted = significance_rows([of_log(log) for log in logs], against)
    assert [[*map(float, row[1:])] for row in bounds] == [
        pytest.approx([*map(float, row)], abs=1.1e-8) for row in wanted_bounds
    ]
    for row, want in zip(outcomes, wanted, strict=True):
        assert (row[0], row[1], row[5]) == (want[0], want[1], want[5])
        assert float(row[2]) == pytest.approx(float(want[2]), rel=2e-3, abs=1e-15)
        assert float(row[4]) == pytest.approx(float(want[4]), rel=1e-6, abs=1.1e-4)


@settings(max_examples=40)
@given(st.text(max_size=60), st.text(max_size=60))
def test_what_others_say_stays_where_it_stands(words, message):
    """No line, no heading, no cell and no tag more, whatever a message quotes."""
    with tempfile.TemporaryDirectory() as place:
        Path(place, "1.log").write_text(text(1, (10**8, 1, 1, 1, 1), 1))
        finding = Finding(rule="log.bytes", level="pass", message=message)
        said = {"name": words, "blurb": words, "author": words}
        written = record_page(shown(Path(place), 1, said=said), [finding])
    assert [line for line in written.splitlines() if line.startswith("## ")] == [
        *("## Scores", "## Sizes", "## Legality", "## Run", "## Verify"),
    ]
    (rows,) = tables(sections(written)["Legality"])
    assert rows == [["`log.bytes`", "pass", finding.message.strip()]]
    assert not re.search(r"<\w", written)


def test_a_cell_is_read_back():
    assert cells("| a | b \\| c \\\\ &lt;d |") == ["a", "b | c \\ <d"]


def test_numbers_that_logs_do_not_state_are_left_out(tmp_path):
    (tmp_path / "1.log").write_text("final_int6_ttt val_loss:1.9 val_bpb:1.1\n")
    written = sections(record_page(shown(tmp_path, 10, 20, cap=1000), ()))
    assert tables(written["Scores"])[0] == [
        ["", "final_int6_ttt", "1.1", "1.9", *[""] * 6],
        ["mean", "", "1.10000000", "1.90000000", *[""] * 6],
    ]
    assert tables(written["Sizes"])[0][0] == ["the files here", "10", "20", "30", "+970"]
    assert "pgolf compare . --cap 1000\n    pgolf verify . --data DATA --cap 1000" in written["Verify"]
