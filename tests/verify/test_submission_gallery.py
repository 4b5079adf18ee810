"""Cheating submissions by one command: nothing missed, nobody accused, and the page in docs is the one it gives."""

import json
from pathlib import Path

import pytest

from verify.submission_gallery import FOLDERS
from verify.submission_gallery.exhibits import Played, misjudged, verify_folders

PAGE = Path(__file__).resolve().parents[2] / "docs" / "gallery_submissions.md"


@pytest.fixture(scope="module")
def printed(pgolf, tmp_path_factory):
    """The command's process, its JSON and its page."""
    page = tmp_path_factory.mktemp("gallery") / "page.md"
    done = pgolf("audit", "--gallery", "--submissions", "--json", "--out", page)
    return done, json.loads(done.stdout), page.read_text()


@pytest.mark.slow
def test_no_cheat_passes_and_no_honest_submission_is_accused(printed):
    done, found, page = printed
    assert {one["name"]: one["wrong"] for one in found["submissions"] if one["wrong"]} == {}
    assert (found["missed"], found["accused"], done.returncode) == ([], [], 0)
    assert [one["name"] for one in found["submissions"]] == list(FOLDERS)
    assert PAGE.read_text() == page, "run `pgolf audit --gallery --submissions --out docs/gallery_submissions.md`"


def test_a_missed_cheat_and_an_accused_honest_submission_are_told():
    """Swap the two: the table would say so, so its silence means something."""
    honest, cheat = FOLDERS["a table of what follows what"], FOLDERS["the next id raised"]
    played = verify_folders([honest, cheat])
    assert misjudged(honest, played[honest.name]) == []
    assert misjudged(cheat, played[cheat.name]) == []
    assert misjudged(cheat, played[honest.name]) == ["score.prefix"]
    assert misjudged(honest, played[cheat.name]) == ["score.prefix"]
    refused = Played(verdict=None, refusal="is no submission")
    assert (misjudged(honest, refused), misjudged(cheat, refused)) == (["is no submission"], ["is no submission"])


def test_every_folder_is_explained():
    assert all(exhibit.story for exhibit in FOLDERS.values())
