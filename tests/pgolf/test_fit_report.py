"""`pgolf pack --fit` on the command line."""

import json
import re

import pytest

from tests.packager.conftest import checkpoint, data, recipe  # noqa: F401
from tests.packager.test_fitting import small  # noqa: F401


@pytest.fixture
def base(small, recipe):  # noqa: F811
    return ("pack", small / "checkpoint.safetensors", "--recipe", recipe, "--script", small / "mine.py")


def test_dry_run_lists_what_each_step_costs(pgolf, base, tmp_path):
    plain = json.loads(pgolf(*base, "--dry-run", "--json").stdout)
    cap = plain["total_bytes"] - 1_000
    fit = ("--fit", "--cap", cap, "--margin", 50)
    said = json.loads(pgolf(*base, *fit, "--dry-run", "--json", "--write-recipe", tmp_path / "fit.toml").stdout)
    assert cap - 200 < said["total_bytes"] <= cap - 50
    assert (said["margin_bytes"], said["fit"]["recipe_bytes"]) == (50, plain["artifact_bytes"] + len("-fit"))
    assert abs(said["fit"]["predicted_bytes"] / said["artifact_bytes"] - 1) < 0.02
    table = pgolf(*base, *fit, "--dry-run")
    for choice in said["fit"]["choices"]:
        assert choice["bytes"][1] < choice["bytes"][0]
        (line,) = [line for line in table.stdout.splitlines() if line.startswith(choice["names"][0])]
        assert float(line.split()[-1]) == pytest.approx(choice["snr_db"][1], abs=0.006)
        assert f"int6 x {choice['rule']['coarser']:.4g}" in line
    cost = re.search(r"^cost: SNR ([\d.]+) -> ([\d.]+) dB$", table.stdout, re.MULTILINE)
    assert [float(each) for each in cost.groups()] == pytest.approx(said["fit"]["snr_db"], abs=0.006)
    assert f"predicted {said['fit']['predicted_bytes']:,}" in table.stdout
    again = json.loads(pgolf(*base[:2], "--recipe", tmp_path / "fit.toml", *base[4:], "--dry-run", "--json").stdout)
    assert again["artifact_bytes"] == said["artifact_bytes"]
    assert {path.name for path in tmp_path.iterdir()} == {"fit.toml", "six.toml"}


def test_odd_wishes_get_one_line(pgolf, base, tmp_path):
    out = ("-o", tmp_path / "out")
    code_bytes = json.loads(pgolf(*base, "--dry-run", "--json").stdout)["code_bytes"]
    for arguments, code, message in [
        (("--margin", 5), 2, "--margin without --fit"),
        (("--write-recipe", "x.toml"), 2, "--write-recipe without --fit"),
        (("--fit", "--margin", 9, "--cap", 8), 2, "a margin of 9 bytes under a cap of 8"),
        (("--fit", "--cap", 100), 1, "the code alone has "),
        (
            ("--fit", "--cap", code_bytes + 1_000),
            1,
            "with the coarsest steps, which leave 6 dB of every matrix, the artifact has ",
        ),
        (("--fit", "--write-recipe", tmp_path), 2, "cannot be written"),
    ]:
        done = pgolf(*base, *out, *arguments)
        assert (done.returncode, done.stdout) == (code, ""), (arguments, done.stderr)
        assert message in done.stderr
        assert done.stderr.startswith("Error: ")
        assert done.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["six.toml"]


def test_spare_bytes_are_spent_until_int8(pgolf, base, tmp_path):
    done = pgolf(*base, "--fit", "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "note: no step can be finer, int8 is the finest" in done.stderr
    assert "fit: artifact " in done.stdout
    assert (tmp_path / "out" / "model.bin").is_file()
