"""A rule of submissions from outside the toolkit: a row of the table, a pure function, and it is judged."""

import pytest

from tests.verify.conftest import bigram_nats, data, heldout, table, write_submission  # noqa: F401 (fixtures)
from verify import Facts, Finding, Rule, Settings, Submission, examine, folder_judges
from verify.rules import RULES, add, page


@pytest.fixture
def small_artifacts(monkeypatch):
    """The rule, registered as any module would; taken back after the test."""
    monkeypatch.setattr(folder_judges, "_judges", [*folder_judges._judges])
    add(
        Rule(
            id="toy.small",
            title="Artifacts are small",
            text="The artifact has at most 1,000 bytes. Fails otherwise.",
            source="own; an example.",
        )
    )

    @folder_judges("toy.small")
    def check_small(facts: Facts) -> Finding:
        size = facts.artifact.size
        return Finding(rule="toy.small", level="pass" if size <= 1000 else "fail", message=f"{size:,} of 1,000 bytes")

    yield
    del RULES["toy.small"]


@pytest.mark.usefixtures("small_artifacts")
def test_a_rule_from_outside_is_judged(write_submission, heldout):  # noqa: F811
    submission = Submission.open(write_submission())
    verdict = examine(submission, heldout, Settings(length=16, stride=4, threads=1))
    assert verdict.failed == ("toy.small",)
    assert verdict.exit_code == 1
    found = next(finding for finding in verdict.findings if finding.rule == "toy.small")
    assert found.message == f"{len(submission.blob):,} of 1,000 bytes"
    assert "## toy.small\n\n*Artifacts are small.*\n" in page()
