"""`pgolf record` as a user runs it: seeds trained here, runs of somebody else, and what is refused."""

# ruff: noqa: F811 (fixtures of other tests are imported by name)
import errno
import hashlib
import io
import json
import re
import shutil
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import torch
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pgolf.__main__ import main
from tests.pgolf.test_pack import evaluate_each
from tests.verify import record_numbers
from tests.verify.conftest import data as small_data  # noqa: F401
from tests.verify.record_numbers import numbers, of_log, score_rows, sections, significance_rows, size_rows, tables
from tests.verify.records import log_1716
from tests.verify.test_seed_adapter import README, SEEDS, script, written  # noqa: F401
from trainer.data.dataset import build_dataset

SEEDS_OF_TINY = (42, 314, 999)
SAID = ("--author", "somebody", "--github-id", "somebody", "--name", "Tiny | three seeds", "--date", "2026-04-18")
OTHERS = {  # records of the field that keep the rules, with the seed that has the best score; all have three seeds
    "2026-03-25_ValCalib_GPTQ_XSA_BigramHash3072": 42,
    "2026-03-29_Loader_FullGPTQ_XSA11_BigramHash2816": 1337,
    "2026-03-31_ParallelResiduals_MiniDepthRecurrence": 2024,
}
REFUSED = {  # folder -> what fails
    "2026-03-17_LoRA_TTT": {"log.settings"},
    "2026-03-19_int6_STE QAT_ MLP_bigram _U_Net": {"log.bytes"},
    "2026-04-06_SP8192_HessianSDClip_ProgressiveRecurrence": {"log.bytes", "log.settings"},
    "2026-04-29_SmearGateBOSFix_3Seed_1.06141": {"log.settings"},
}
STANDIN = 'import os\n\nseed = int(os.environ.get("SEED", 1337))\n'


@pytest.fixture
def command(capsys):
    """Run `pgolf` in this process -> (exit code, stdout, stderr)."""

    def run(*arguments):
        code = main([*map(str, arguments)])
        return code, *capsys.readouterr()

    return run


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """(data folder, run folders of three seeds as a packed script leaves them)."""
    folder = tmp_path_factory.mktemp("tiny")
    random = np.random.default_rng(0)
    words = ["".join(random.choice(list("abcdefghijklmnop"), 4)) for _ in range(20)]
    build_dataset(
        [" ".join(random.choice(words, 60)) + "." for _ in range(300)],
        folder / "data",
        vocab_size=300,
        val_fraction=0.1,
    )
    assert main(["new", "tiny", "--set", "steps=12", "-o", str(folder / "new")]) == 0
    runs = [folder / f"run{seed}" for seed in SEEDS_OF_TINY]
    seeds = zip(SEEDS_OF_TINY, runs, strict=True)
    commands = [(folder / "new", "--data", folder / "data", "--seed", seed, "--output", run) for seed, run in seeds]
    for code, _, errors in evaluate_each(commands, folder):
        assert code == 0, errors
    return folder / "data", runs


@pytest.fixture
def runs(tiny, tmp_path):
    """A copy of the run folders, to be changed."""
    return [Path(shutil.copytree(run, tmp_path / run.name)) for run in tiny[1]]


@pytest.fixture
def small(tmp_path):
    """Three runs of somebody else's small script, whose artifacts are bytes that nobody can read."""
    for seed, bpb in ((1, "1.20000000"), (2, "1.10000000"), (3, "1.30000000")):
        run = tmp_path / f"run{seed}"
        run.mkdir()
        (run / "train_gpt.py").write_text(STANDIN)
        (run / "final_model.int6.ptz").write_bytes(bytes(1000 + seed))
        (run / "train.log").write_text(
            f"world_size:8 depth:3\nseed:{seed}\nstep:9/9 val_loss:2.0100 val_bpb:1.2100 train_time:9000ms\n"
            f"Serialized model int6+zstd: {1000 + seed} bytes\nCode size: {len(STANDIN)} bytes\n"
            f"Total submission size int6+zstd: {1000 + seed + len(STANDIN)} bytes\n"
            f"final_int6_roundtrip_exact val_loss:{float(bpb) / 0.602:.8f} val_bpb:{bpb} eval_time:70ms\n"
        )
    return [tmp_path / f"run{seed}" for seed in (1, 2, 3)]


def content(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def findings(out):
    return {finding["rule"]: (finding["level"], finding["message"]) for finding in json.loads(out)["findings"]}


def check_sums(folder):
    """As `sha256sum -c` reads the list: every file but the list itself, each with its own hash."""
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    listed = {name: sha256 for sha256, name in (line.split("  ", 1) for line in lines)}
    assert listed == {
        name: hashlib.sha256(data).hexdigest() for name, data in content(folder).items() if name != "SHA256SUMS"
    }
    assert [*listed] == sorted(listed)


def check_readme(folder, code, artifact, against=None):
    """Every number of the README, but for the findings, is recomputed from the logs and the files."""
    logs = sorted((of_log(path.read_text()) for path in folder.glob("*.log")), key=lambda log: log.seed)
    page = sections((folder / "README.md").read_text())
    (scores,) = tables(page["Scores"])
    assert [[row[0], *row[2:]] for row in scores] == score_rows(logs)
    (sizes,) = tables(page["Sizes"])
    assert sizes == size_rows(logs, code, artifact)
    expected = {cell for row in (*score_rows(logs), *size_rows(logs, code, artifact)) for cell in row}
    if against is not None:
        bounds, outcomes = tables(page["Significance"])
        (want_bounds, want_outcomes) = significance_rows(logs, against)
        assert [row[1:] for row in bounds] == want_bounds
        assert outcomes == want_outcomes
        expected |= {cell for row in (*want_bounds, *want_outcomes) for cell in row} | {str(against)}
    expected |= {str(log.seed) for log in logs} | {str(len(logs)), f"{code:,}"} | record_numbers.CONSTANTS
    text = "".join(part for title, part in page.items() if title not in ("Legality", "Run", "Verify"))
    assert numbers(re.sub(r"Date: \S+|^# .*", "", text, flags=re.M)) <= expected
    return page


def check_legality(command, folder, page, *verified, against=()):
    """The findings in the README are those that compare and verify give of the folder as it lies there."""
    (rows,) = tables(page["Legality"])
    stated = {rule.strip("`"): (level, message) for rule, level, message in rows}
    options = [part for each in against for part in ("--against", each)]
    code, out, _ = command("compare", folder, *options, "--json")
    compared = findings(out)
    assert code == 0
    assert {rule: stated[rule] for rule in compared} == compared
    if verified:
        code, out, _ = command("verify", folder, "--json", *verified)
        found = json.loads(out)
        assert (code, found["verdict"]) == (0, "pass")
        again = {rule: found for rule, found in findings(out).items() if rule in stated}
        single = {rule for rule in again if not rule.startswith("triage.") and rule != "claims.significance"}
        assert single >= {"bytes.cap", "folder.contents", "claims.bytes", "claims.hashes", "bytes.logged", "log.bytes"}
        assert {rule: stated[rule] for rule in single} == {rule: again[rule] for rule in single}
        return findings(out)
    return stated


@pytest.mark.slow
def test_three_seeds_of_tiny(command, tiny, tmp_path):
    data, runs = tiny
    target = tmp_path / "records" / "track_10min_16mb" / "2026-04-18_Tiny"
    code, out, err = command("record", *runs, "-o", target, *SAID, "--against", 9.0, "--json")
    said = json.loads(out)
    assert (code, err) == (0, "")
    assert {*content(target)} == {
        *("README.md", "SHA256SUMS", "ledger.json", "model.bin", "requirements.txt", "submission.json", "train_gpt.py"),
        *(f"train_seed{seed}.log" for seed in SEEDS_OF_TINY),
    }
    check_sums(target)
    for seed, run in zip(SEEDS_OF_TINY, runs, strict=True):
        assert (target / f"train_seed{seed}.log").read_bytes() == (run / "train.log").read_bytes()
    best = min(runs, key=lambda run: float(of_log((run / "train.log").read_text()).bpb))
    seed = int(best.name.removeprefix("run"))
    assert said["artifact"] == {"name": "model.bin", "seed": seed, "bytes": (best / "model.bin").stat().st_size}
    for name in ("train_gpt.py", "model.bin"):
        assert (target / name).read_bytes() == (best / name).read_bytes()
    sizes = [(best / name).stat().st_size for name in ("train_gpt.py", "model.bin")]
    costs = json.loads((target / "ledger.json").read_text())
    assert (costs["code"]["bytes"], costs["artifact"]["artifact_bytes"]) == (*sizes,)
    assert "trainer.run.loop" in costs["code"]["modules"]
    page = check_readme(target, *sizes, against=9.0)
    assert page[""].startswith("# Tiny | three seeds\n")
    assert "Author: somebody. GitHub: somebody. Date: 2026-04-18." in page[""]
    assert f"is of seed {seed}, the run with the best score" in page["Sizes"]
    verified = check_legality(command, target, page, "--data", data, "--threads", 1, against=("9.0",))
    assert verified["claims.score"][0] == "pass"
    assert f"of seed {seed}, whose artifact this is" in verified["claims.score"][1]
    assert "    python train_gpt.py --eval --data DATA\n" in page["Run"]
    assert f"    torchrun --standalone --nproc_per_node=1 train_gpt.py --seed {seed} --data DATA\n" in page["Run"]
    stated = json.loads((target / "submission.json").read_text())
    assert (stated["author"], stated["blurb"], stated["date"]) == ("somebody", None, "2026-04-18")
    assert stated["seeds"] == [*SEEDS_OF_TINY]
    assert (stated["bytes_total"], stated["artifact_seed"]) == (sum(sizes), seed)


@pytest.mark.slow
def test_packed_folders_give_the_same_record(command, tiny, runs, tmp_path):
    """Whatever else lies in a run's folder, wherever it lies, and in which order the runs come."""
    _, originals = tiny
    assert command("record", *originals, "-o", tmp_path / "one")[0] == 0
    for run in runs:  # nothing but what ships
        packed = run.parent / run.name.replace("run", "packed")
        packed.mkdir()
        for name in ("train_gpt.py", "model.bin", "train.log"):
            shutil.copy(run / name, packed)
    packed = sorted(runs[0].parent.glob("packed*"))
    assert command("record", *packed[::-1], "-o", tmp_path / "two")[0] == 0
    one, two = content(tmp_path / "one"), content(tmp_path / "two")
    assert one["requirements.txt"].split() == two["requirements.txt"].split()
    assert one == two
    assert command("record", tmp_path / "two", "-o", tmp_path / "three")[0] == 0
    assert content(tmp_path / "three") == two
    assert str(tmp_path).encode() not in b"".join(data for name, data in two.items() if not name.endswith(".log"))


def test_an_earlier_record_is_replaced_and_nothing_else(command, small, tmp_path):
    target = tmp_path / "record"
    assert command("record", *small[:2], "-o", target)[0] == 0
    assert command("record", *small, "-o", target, "--author", "me")[0] == 0
    kept = content(target)
    assert "train_seed3.log" in kept
    assert json.loads(kept["submission.json"])["artifact_seed"] == 2
    assert command("record", target, "-o", target)[0] == 0  # in place: author and logs are its own
    assert content(target) == kept
    (target / "README.md").write_text("# My own words\n")
    for place in (target, small[0]):
        before = content(place)
        code, out, err = command("record", *small[1:], "-o", place)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert "is not an earlier output of this command" in err
        assert content(place) == before


@pytest.mark.shared
@pytest.mark.parametrize("name", OTHERS)
def test_logs_of_somebody_else(command, shared, tmp_path, name):
    """Without an artifact: the sizes are what the logs say, and are called so."""
    (tmp_path / "theirs.py").write_text(STANDIN)
    source = shared / "data" / "records" / "track_10min_16mb" / name
    code, _, err = command("record", source, "--script", tmp_path / "theirs.py", "-o", tmp_path / "r", "--against", 1.2)
    assert (code, err) == (0, "")
    check_sums(tmp_path / "r")
    page = check_readme(tmp_path / "r", len(STANDIN), None, against=1.2)
    stated = check_legality(command, tmp_path / "r", page, against=("1.2",))
    assert "no artifact is here: the sizes of models are what the logs say" in stated["bytes.logged"][1]
    assert f"SEED={OTHERS[name]} torchrun --standalone --nproc_per_node=8 train_gpt.py" in page["Run"]
    assert "pgolf verify" not in page["Verify"]
    before, now = (json.loads((folder / "submission.json").read_text()) for folder in (source, tmp_path / "r"))
    assert (now["author"], now["name"]) == (before["author"], before["name"])
    assert now["val_bpb"] == pytest.approx(before["val_bpb"], abs=5e-5)  # as some of them are rounded


def grown(blob, size):
    """The same zstd file with as many bytes: noise stands behind what it holds, where torch.load does not look."""
    buffer, packed = io.BytesIO(), blob
    held = torch.load(io.BytesIO(zstandard.ZstdDecompressor().decompress(blob)))
    torch.save(held, buffer, _use_new_zipfile_serialization=False)  # a zip is read from its end
    noise, more = np.random.default_rng(0).integers(0, 256, size, np.uint8).tobytes(), size - len(blob)
    for _ in range(8):  # a byte of noise is one byte more, but where a block of zstd begins
        packed = zstandard.ZstdCompressor(level=1).compress(buffer.getvalue() + noise[:more])
        more += size - len(packed)
    assert len(packed) == size
    return packed


@pytest.mark.shared
def test_a_record_of_somebody_else_is_verified(command, shared, script, small_data, tmp_path):
    """Their logs and claims; stand-ins for script and artifact, of a like kind and the bytes that the logs count."""
    name = "2026-03-25_ValCalib_GPTQ_XSA_BigramHash3072"
    theirs = shutil.copytree(shared / "data" / "records" / "track_10min_16mb" / name, tmp_path / "theirs")
    log = of_log((theirs / "train_seed42.log").read_text())
    source = (SEEDS / "pr162.py").read_bytes()
    (theirs / "train_gpt.py").write_bytes(source + b"#" * (log.code - len(source) - 1) + b"\n")
    path, _ = written(script("pr162"), theirs)
    path.write_bytes(grown(path.read_bytes(), log.model))
    (theirs / "README.md").write_text(README)
    target = tmp_path / "record"
    code, out, err = command("record", theirs, "-o", target, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["artifact"] == {"name": path.name, "seed": 42, "bytes": log.model}
    page = check_readme(target, log.code, log.model)
    verified = check_legality(command, target, page, "--data", small_data, "--threads", 1, "--stride", 4)
    assert verified["bytes.logged"][0] == "pass"
    assert verified["claims.score"][0] == "unknown"  # another text, as n_tokens says
    assert "NUM_LAYERS=2" in page["Run"]


@pytest.mark.shared
@pytest.mark.parametrize("name", REFUSED)
def test_records_that_compare_fails_are_refused(command, shared, tmp_path, name):
    (tmp_path / "theirs.py").write_text(STANDIN)
    source = shared / "data" / "records" / "track_10min_16mb" / name
    code, out, _ = command("record", source, "--script", tmp_path / "theirs.py", "-o", tmp_path / "r", "--json")
    failed = {rule for rule, (level, _) in findings(out).items() if level == "fail"}
    assert (code, failed, json.loads(out)["record"]) == (1, REFUSED[name], None)
    assert [path.name for path in tmp_path.iterdir()] == ["theirs.py"]


def replaced(path, pattern, text):
    new = re.sub(pattern, text, path.read_text(), flags=re.M)
    assert new != path.read_text()
    path.write_text(new)


def over_the_cap(runs):
    for run in runs:
        replaced(run / "train.log", r"^Serialized model PGA1: \d+", "Serialized model PGA1: 16000000")
        replaced(run / "train.log", r"^Total submission size PGA1: \d+", "Total submission size PGA1: 16014000")


def over_time(runs):
    replaced(runs[1] / "train.log", r"world_size:1 ", "world_size:8 ")
    replaced(runs[1] / "train.log", r"val_bpb:(\S+) train_time:\d+ms", r"val_bpb:\1 train_time:700000ms")


def another_artifact(runs):
    for run in runs:
        with (run / "model.bin").open("ab") as file:
            file.write(b"x")


def another_seeds_artifact(runs):
    shutil.copy(runs[0] / "model.bin", runs[1] / "model.bin")


def another_script(runs):
    (runs[2] / "train_gpt.py").write_text("import torch\n")


def another_recipe(runs):
    replaced(runs[0] / "train.log", '"bigram_buckets": 64', '"bigram_buckets": 128')


def one_seed_twice(runs):
    replaced(runs[0] / "train.log", r"^seed:42$", "seed:314")


def one_run_twice(runs):
    shutil.rmtree(runs[0])
    shutil.copytree(runs[1], runs[0])


def a_changed_score(runs):
    replaced(runs[0] / "train.log", r"^(final_\S+ val_loss:\S+ val_bpb:)\d", r"\g<1>1")


def a_false_claim(runs):
    (runs[0] / "submission.json").write_text(json.dumps({"val_bpb": 1.0}))


@pytest.mark.parametrize(
    ("change", "rules", "words"),
    [
        (over_the_cap, {"log.bytes", "bytes.logged"}, "over the cap of 16,000,000"),
        (over_time, {"log.budget", "log.settings"}, "training 700.00 of 600 s"),
        (another_artifact, {"bytes.logged"}, "the log of its seed 42 counts"),
        (another_seeds_artifact, {"bytes.logged"}, "the log of its seed 314 counts"),
        (another_script, {"log.settings"}, "train_gpt.py of run999 is not that of run42"),
        (another_recipe, {"log.settings"}, "model.bigram_buckets (128 / 64)"),
        (one_seed_twice, {"log.settings", "bytes.logged"}, "a seed twice"),
        (one_run_twice, {"log.settings"}, "a seed twice; the same score twice"),
        (a_changed_score, {"log.implied_bytes"}, "a changed number"),
        (a_false_claim, {"log.headline", "claims.mean"}, "from the logs alone it is made anew"),
    ],
)
def test_what_the_rules_fail_is_refused(command, runs, tmp_path, change, rules, words):
    change(runs)
    before = content(tmp_path)
    code, out, err = command("record", *runs, "-o", tmp_path / "record")
    failed = set(re.findall(r"^fail +(\S+)", out, re.M))
    assert (code, err, failed) == (1, "", rules)
    assert words in " ".join(out.split())
    assert out.splitlines()[-1].startswith("refused, nothing is written: ")
    assert content(tmp_path) == before


def no_seed(runs):
    replaced(runs[1] / "train.log", r"^seed:314$", "seed?")
    replaced(runs[1] / "train.log", r'"seed": 314', '"sown": 314')


def floats_only(runs):
    for run in runs:
        replaced(run / "train.log", r"^final_.*\n", "")


def half_a_log(runs):
    log = runs[1] / "train.log"
    log.write_bytes(log.read_bytes()[:300])


def damaged_artifact(runs):
    for run in runs:
        blob = bytearray((run / "model.bin").read_bytes())
        blob[len(blob) // 2] ^= 255
        (run / "model.bin").write_bytes(blob)


def damaged_claims(runs):
    (runs[1] / "submission.json").write_text("{")


def two_authors(runs):
    for run in runs:
        (run / "submission.json").write_text(json.dumps({"author": run.name}))


def two_blobs(runs):
    for name in ("a.ptz", "b.ptz"):
        (runs[0] / name).write_bytes(b"x")
    (runs[0] / "model.bin").unlink()


def no_script(runs):
    for run in runs:
        (run / "train_gpt.py").unlink()


def no_python(runs):
    for run in runs:
        (run / "train_gpt.py").write_bytes(b"\xff\xfe\x00")


def names_its_artifact_elsewhere(runs):
    (runs[0] / "submission.json").write_text('{"artifact": "../model.bin"}')


def empty_artifact(runs):
    (runs[0] / "model.bin").write_bytes(b"")


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (no_seed, 3, "run314/train.log: names no seed"),
        (floats_only, 3, "holds no legal score of a packed model"),
        (half_a_log, 3, "run314"),
        (damaged_artifact, 3, "model.bin: "),
        (damaged_claims, 3, "run314/submission.json: is not JSON"),
        (two_authors, 3, "--author says which"),
        (two_blobs, 3, "holds 2 artifacts: a.ptz, b.ptz"),
        (no_script, 2, "--script FILE names the script"),
        (no_python, 3, "run42/train_gpt.py: is not Python source"),
        (names_its_artifact_elsewhere, 3, "need the name of a file in the folder"),
        (empty_artifact, 3, "run42/model.bin: is empty"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(command, runs, tmp_path, change, code, words):
    change(runs)
    before = content(tmp_path)
    found, out, err = command("record", *runs, "-o", tmp_path / "record")
    assert (found, out, err.count("\n")) == (code, "", 1)
    assert words in err
    assert ".pgolf-" not in err
    assert content(tmp_path) == before


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--date", "2026-02-30"), 2, "--date 2026-02-30 is no day of the calendar"),
        (("--date", "20260201"), 2, "write it like 2026-04-18"),
        (("--against", "better"), 2, "neither a mean"),
        (("--artifact", "7=run1/train.log"), 2, "of seed 7, of which there is no log"),
        (("--artifact", "missing.bin"), 3, "missing.bin: no such file"),
        (("--artifact", "run1/train_gpt.py"), 2, "--artifact SEED=FILE says so"),
        (("--artifact", "1=run1/train_gpt.py"), 1, ""),
        (("--script", "missing.py"), 3, "missing.py: no such file"),
        (("--cap", "0"), 2, "--cap"),
        (("missing",), 3, "missing: no such file"),
    ],
)
def test_mistakes_are_one_sentence(command, small, tmp_path, monkeypatch, options, code, words):
    monkeypatch.chdir(tmp_path)
    before = content(tmp_path)
    found, _, err = command("record", *small, "-o", "record", *options)
    assert (found, err.count("\n")) == (code, 0 if code == 1 else 1)
    assert words in err
    assert content(tmp_path) == before


def test_a_script_brings_what_it_imports(command, small, tmp_path):
    """Beside somebody's script: a module and a package, one of them by relative import."""
    home = tmp_path / "theirs"
    files = {
        "run.py": "import torch, sideways\nfrom inner.deep import x\nimport flash_attn_interface\n",
        "sideways.py": "y = 1\n",
        "inner/__init__.py": "",
        "inner/deep.py": "from .deeper import x\n",
        "inner/deeper.py": "import numpy\nx = 1\n",
        "unused.py": "z = 1\n",
    }
    for name, text in files.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(text)
    target = tmp_path / "record"
    assert command("record", small[0] / "train.log", "--script", home / "run.py", "-o", target)[0] == 0
    names = {"train_gpt.py", "sideways.py", "inner/__init__.py", "inner/deep.py", "inner/deeper.py"}
    assert {name for name in content(target) if name.endswith(".py")} == names
    check_sums(target)
    lines = (target / "requirements.txt").read_text()
    assert re.search(r"^numpy\b", lines, re.M)
    assert re.search(r"^torch\b", lines, re.M)
    assert re.search(r"^flash_attn_interface", lines, re.M) is None
    assert not re.search(r"sideways|inner", lines)
    (home / "run.py").write_text("import torch\ntry:\n    import maybe_mine\nexcept ImportError:\n    pass\n")
    target = tmp_path / "second"
    found = command("record", small[0] / "train.log", "--script", home / "run.py", "-o", target)
    assert found[0] == 0, found
    assert "maybe_mine" not in (target / "requirements.txt").read_text()
    (home / "run.py").write_text("import torch\nfrom my_helpers.blocks import x\n")
    code, out, err = command("record", small[0] / "train.log", "--script", home / "run.py", "-o", tmp_path / "o")
    assert (code, out, err.count("\n")) == (3, "", 1)
    assert "train_gpt.py, line 2: imports `my_helpers`, which is neither beside the script nor a known" in err
    (home / "outside").mkdir()
    (home / "outside" / "run.py").write_text("from ..sideways import y\n")
    code, out, err = command(
        "record", small[0] / "train.log", "--script", home / "outside" / "run.py", "-o", tmp_path / "o"
    )
    assert (code, out) == (3, "")
    assert "run.py: line 1 imports from outside the submission's folder (..sideways); carry the module" in err


def test_words_cannot_break_the_page(command, small, tmp_path):
    odd = "a | b\n## Legality\n<script>\x1b[31m `x`"
    said = ("--name", odd, "--blurb", odd, "--author", odd)
    assert command("record", *small, "-o", tmp_path / "record", *said)[0] == 0
    text = (tmp_path / "record" / "README.md").read_text()
    assert "<script" not in text
    assert "\x1b" not in text
    assert text.count("\n## Legality\n") == 1
    check_readme_tables = tables(sections(text)["Legality"])
    assert all(len(row) == 3 for row in check_readme_tables[0])
    assert json.loads((tmp_path / "record" / "submission.json").read_text())["name"] == odd


def test_a_full_disk_leaves_nothing(command, small, tmp_path, monkeypatch):
    """Simulated at every single write, one after the other, until there is room for all."""
    written, room = 0, -1
    write_bytes = Path.write_bytes

    def scarce(path, data):
        nonlocal written
        if written == room:
            write_bytes(path, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        written += 1
        return write_bytes(path, data)

    monkeypatch.setattr(Path, "write_bytes", scarce)
    before = content(tmp_path)
    target, code = tmp_path / "record", 4
    while code:
        written, room = 0, room + 1
        assert not target.exists()
        code, out, err = command("record", *small, "-o", target)
        if code:
            assert (code, out) == (4, "")
            assert err == f"Error: {target}: cannot be written (No space left on device); make room on this machine\n"
            assert content(tmp_path) == before
    assert room == 11  # nine files, submission.json and README.md twice
    check_sums(target)


edits = st.lists(
    st.tuples(st.floats(0, 1), st.sampled_from(["cut", "byte", "line", "digit"]), st.integers(0, 255)),
    min_size=1,
    max_size=4,
)


def damaged(log, changes):
    """The log with its end cut off, bytes changed, lines repeated, or digits exchanged."""
    for where, kind, value in changes:
        at = int(where * len(log))
        if kind == "cut":
            log = log[: max(1, at)]
        elif kind == "byte":
            log = log[:at] + bytes([value]) + log[at + 1 :]
        elif kind == "line":
            lines = log.split(b"\n")
            log = b"\n".join([*lines, lines[at % len(lines)]])
        else:
            digits = [index for index, byte in enumerate(log) if chr(byte).isdigit()] or [0]
            index = digits[at % len(digits)]
            log = log[:index] + str(value % 10).encode() + log[index + 1 :]
    return log


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=edits)
def test_a_damaged_log_gives_a_record_that_holds_or_none(small, tmp_path, changes):
    with tempfile.TemporaryDirectory(dir=tmp_path) as place:
        runs = [Path(shutil.copytree(run, Path(place, run.name))) for run in small]
        (runs[1] / "train.log").write_bytes(damaged((runs[1] / "train.log").read_bytes(), changes))
        before, target = content(Path(place)), Path(place, "record")
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            code = main(["record", *map(str, runs), "-o", str(target)])
            if code == 0:
                assert main(["compare", str(target)]) == 0
        assert code in (0, 1, 2, 3)
        if code == 0:
            check_sums(target)
        else:
            assert content(Path(place)) == before
            said = [line for line in err.getvalue().splitlines() if not line.startswith("note: ")]
            assert len(said) == (0 if code == 1 else 1)


def test_the_only_run_of_the_field_with_its_settings(command, tmp_path):
    """One log, without submission.json: no deviation, no test, words that nobody says are null."""
    (tmp_path / "run_s42.txt").write_text(log_1716(42))
    (tmp_path / "theirs.py").write_text(STANDIN)
    target = tmp_path / "record"
    code, out, _ = command(
        "record", tmp_path / "run_s42.txt", "--script", tmp_path / "theirs.py", "-o", target, "--against", "1493"
    )
    assert code == 0
    assert "no artifact: --artifact FILE adds it" in out
    text = (target / "README.md").read_text()
    assert "**val_bpb 1.07886574**, of 1 seed." in text
    assert "One run has no deviation, so nothing can be tested." in text
    stated = json.loads((target / "submission.json").read_text())
    assert stated["val_bpb_std"] is stated["author"] is stated["track"] is None
    assert (target / "train_seed42.log").read_text() == log_1716(42)


def test_an_artifact_of_somebody_else_is_found_by_its_size(command, tmp_path):
    for seed in (42, 314):
        (tmp_path / f"{seed}.log").write_text(log_1716(seed))
    (tmp_path / "theirs.py").write_text(STANDIN.ljust(18_097, "#"))
    (tmp_path / "final_model.int6.ptz").write_bytes(bytes(15_976_073))
    logs = (tmp_path / "42.log", tmp_path / "314.log")
    target = tmp_path / "record"
    artifact = ("--artifact", tmp_path / "final_model.int6.ptz")
    assert command("record", *logs, "--script", tmp_path / "theirs.py", *artifact, "-o", target)[0] == 0
    text = (target / "README.md").read_text()
    assert "`final_model.int6.ptz`, is of seed 314, the best of the runs whose artifact was given" in text
    assert not (target / "ledger.json").exists()
    assert json.loads((target / "submission.json").read_text())["artifact_seed"] == 314
