"""Findings as lines."""

from pgolf.tables import print_findings
from verify.finding import Finding


def test_only_warnings_are_left_out(capsys):
    """A failure behind many findings of its rule is seen."""
    passed = [Finding(rule="score.prefix", level="pass", message=f"look {number}") for number in range(6)]
    failed = Finding(rule="score.prefix", level="fail", message="read ahead")
    warned = [Finding(rule="triage.blob", level="warn", message=f"literal {number}") for number in range(6)]
    print_findings([*passed, failed, *warned], most=4)
    said = capsys.readouterr().out
    assert (said.count("look"), said.count("literal")) == (6, 4)
    assert "read ahead" in said
    assert "triage.blob          and 2 more of these" in said
    assert said.count("more of these") == 1
