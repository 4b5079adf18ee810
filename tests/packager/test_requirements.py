"""requirements.txt names what is installed with its version, and guesses nothing."""

from importlib import metadata

import pytest

from packager import requirements as module
from packager.requirements import ELSEWHERE, is_known, requirement, requirements


@pytest.mark.parametrize("name", ["numpy", "python_minifier", "google", "yaml", "sklearn"])
def test_an_installed_name_gives_its_distribution_and_version(name):
    found = metadata.packages_distributions().get(name)
    if not found:
        assert not is_known(name) or name in ELSEWHERE
        return
    distribution, _, version = requirement(name).partition("==")
    assert distribution in found
    assert version == metadata.version(distribution).partition("+")[0]


def test_the_local_part_of_a_version_is_left_out(monkeypatch):
    monkeypatch.setattr(module.metadata, "version", lambda name: "2.13.0+cpu")
    assert requirement("torch") == "torch==2.13.0"


def test_what_is_not_installed_comes_from_the_table_or_stays_a_comment():
    assert requirement("flash_attn_interface").startswith("# flash_attn_interface: FlashAttention 3, built in")
    if "triton" not in metadata.packages_distributions():
        assert requirement("triton") == "triton"
    assert requirement("no_such_module_xyz") == "# no_such_module_xyz: no installed distribution provides it"
    assert not is_known("no_such_module_xyz")


def test_optional_ones_are_comments_and_nothing_stands_twice():
    text = requirements(["torch", "numpy"], ["brotli", "numpy", "flash_attn_interface"])
    assert [line.partition("==")[0].partition(":")[0] for line in text.splitlines()] == [
        "numpy",
        "torch",
        "# flash_attn_interface",
        "# optional",
    ]
    assert "# optional: brotli" in text
