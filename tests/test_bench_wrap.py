"""benchmarks/bench_wrap.py on one script: whole files are weighed."""

import json
import os
import subprocess
import sys

from tests.conftest import ROOT
from tests.packager.field_scripts import field_recipe, field_script


def test_it_weighs_whole_files(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.bench_wrap", "--size", "50000", "--output", tmp_path / "results.json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "results.json").read_text())
    with_vars, without = report["results"]
    assert with_vars["raw"] == len(field_script(50_000))
    assert with_vars["field_recipe"] == len(field_recipe(field_script(50_000)))
    assert without["field_recipe"] < with_vars["field_recipe"]
    assert with_vars["dense"] < with_vars["safe"] < with_vars["field_recipe"] < with_vars["raw"]
    assert report["machine"]["versions"]["python-minifier"]
    assert str(ROOT) not in json.dumps(report)
