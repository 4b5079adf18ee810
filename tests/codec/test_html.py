"""codec/html.py: what notebooks show is escaped, nested as the JSON is, and there for every result."""

import numpy as np
import pytest

from codec import Recipe, Rule, encode, ledger, measure
from codec.html import MOST_ROWS, Shown, html
from codec.model_file import EncodedModel
from packager.submission import PackedSubmission
from verify.audit.runner import Audit
from verify.claims.significance import Comparison, SeedScores, compare
from verify.verdict import Verdict


def test_everything_is_escaped():
    hostile = "<script>alert(1)</script>"
    shown = html({hostile: hostile, "rows": [{hostile: hostile}], "list": [hostile, 1]}, hostile)
    assert "<script" not in shown
    assert shown.count("&lt;script&gt;") == 6


def test_rows_that_are_left_out_are_told():
    shown = html([{"n": number} for number in range(MOST_ROWS + 5)])
    assert "<td>199</td>" in shown
    assert "<td>200</td>" not in shown
    assert "and 5 more" in shown


@pytest.mark.parametrize("kind", [EncodedModel, PackedSubmission, Audit, Verdict, Comparison])
def test_every_result_shows_its_json(kind):
    assert issubclass(kind, Shown)
    assert callable(getattr(kind, "to_dict", None))


def test_a_ledger_a_measurement_and_a_comparison_show_their_numbers():
    weights = {"w": np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)}
    rule = Rule.of(treatment="int6")
    costs = ledger(encode({"w": rule.apply(weights["w"])}, {}))
    shown = costs._repr_html_()
    assert "<caption>ByteLedger</caption>" in shown
    assert f"<td>{costs.artifact_bytes:,}</td>" in shown
    assert "<th>bits_per_weight</th>" in shown
    found = measure(weights, Recipe(name="six", about="", coder="zstd-22", rules=(rule,)))
    assert f"{found.snr_db:,.6g}" in found._repr_html_()
    compared = compare(SeedScores(values=(1.1, 1.2)), SeedScores(values=(1.3, 1.4)), None)
    assert "1.15" in compared._repr_html_()
    assert "welch" in compared._repr_html_()
