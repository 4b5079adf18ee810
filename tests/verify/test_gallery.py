"""The gallery by its one command: nothing missed, nobody accused, and the page in docs is the one it gives."""

import json
from pathlib import Path

import pytest

from codec.errors import InputError
from verify.audit.checks import short_names
from verify.audit.gallery import EXHIBITS, audit_all, build
from verify.audit.gallery.page import row, wrong

HONEST = [exhibit for exhibit in EXHIBITS.values() if not exhibit.caught_by]
CHEATS = [exhibit for exhibit in EXHIBITS.values() if exhibit.caught_by]
PAGE = Path(__file__).resolve().parents[2] / "docs" / "gallery.md"


@pytest.fixture(scope="module")
def printed(pgolf, tmp_path_factory):
    """The command's process, its JSON and its page."""
    page = tmp_path_factory.mktemp("gallery") / "page.md"
    done = pgolf("audit", "--gallery", "--json", "--out", page)
    return done, json.loads(done.stdout), page.read_text()


@pytest.fixture(scope="module")
def findings(printed):
    """Exhibit -> rule -> finding."""
    _, found, _ = printed
    return {one["subject"]: {finding["rule"]: finding for finding in one["findings"]} for one in found["exhibits"]}


@pytest.mark.parametrize("exhibit", CHEATS, ids=lambda exhibit: exhibit.name)
def test_every_cheat_is_caught_by_the_checks_that_should(exhibit, findings):
    assert exhibit.caught_by
    assert {findings[exhibit.name][rule]["level"] for rule in exhibit.caught_by} == {"fail"}


@pytest.mark.parametrize("exhibit", HONEST, ids=lambda exhibit: exhibit.name)
def test_no_honest_scorer_is_accused(exhibit, findings):
    undecided = {"audit.determinism", "audit.codec"} if exhibit.name == "noisy kernels" else set()
    assert {rule for rule, finding in findings[exhibit.name].items() if finding["level"] != "pass"} <= undecided
    assert {finding["level"] for finding in findings[exhibit.name].values()} <= {"pass", "unknown"}


def test_the_command_says_so(printed):
    done, found, _ = printed
    assert done.returncode == 0, done.stderr
    assert (found["missed"], found["accused"]) == ([], [])


def test_every_violation_has_a_witness(findings):
    for exhibit in findings.values():
        for finding in exhibit.values():
            assert finding["level"] != "fail" or set(finding["evidence"]) > {"coverage"}, finding["rule"]


def test_every_check_catches_a_cheat(findings):
    every = [finding for exhibit in findings.values() for finding in exhibit.values()]
    assert {finding["rule"] for finding in every if finding["level"] in ("fail", "warn")} == set(short_names())


def test_the_page_is_up_to_date(printed):
    assert PAGE.read_text() == printed[2], "run `pgolf audit --gallery --out docs/gallery.md`"


def test_every_exhibit_is_explained():
    assert all(exhibit.story for exhibit in EXHIBITS.values())
    assert (len(HONEST), len(CHEATS)) == (6, 18)


def test_a_missed_cheat_and_an_accused_honest_scorer_are_told():
    """Swap the two: the table would say so, so its silence means something."""
    cheat, honest = EXHIBITS["tail counted again"], EXHIBITS["sliding"]
    found = audit_all([honest, cheat])
    assert wrong(cheat, found[honest.name]) == ["audit.coverage"]
    assert wrong(honest, found[cheat.name]) == ["audit.coverage"]
    assert row("x", found[cheat.name])[1 + list(short_names()).index("audit.coverage")] == "caught"


def test_an_unknown_exhibit_is_refused():
    with pytest.raises(InputError, match="no exhibit"):
        build("nothing", "")
