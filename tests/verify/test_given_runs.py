"""What RUN... hold, and what is refused before anything is written."""

import json
from pathlib import Path

import pytest

from codec.errors import InputError, UsageError
from tests.verify.records import log_1716
from verify.record_folder.given_runs import read_runs

CAP = 16_000_000
MODELS = {42: 15_973_106, 314: 15_976_073, 999: 15_978_006}
SCRIPT = "import torch\n"


@pytest.fixture
def run(tmp_path):
    """run(seed, name) -> folder with a log, a script and an artifact of the size that the log counts."""

    def write(seed, name="", *, artifact=True, claims=None):
        folder = tmp_path / (name or f"run{seed}")
        folder.mkdir(exist_ok=True)
        (folder / f"train_seed{seed}.log").write_text(log_1716(seed))
        (folder / "train_gpt.py").write_text(SCRIPT)
        if artifact:
            sparse(folder / "final_model.int6.ptz", MODELS[seed])
        if claims is not None:
            (folder / "submission.json").write_text(json.dumps(claims))
        return folder

    return write


def sparse(path, size):
    with path.open("wb") as file:
        file.truncate(size)
    return path


def read(*paths, **options):
    return read_runs([*map(Path, paths)], cap=CAP, **options)


def test_the_artifact_is_of_the_best_run_that_has_one(run):
    found = read(run(42), run(314), run(999))
    assert [log.seed for log in found.logs] == [42, 314, 999]
    assert (found.artifact.seed, found.artifact.name) == (999, "final_model.int6.ptz")
    assert len(found.artifact.data) == MODELS[999]
    (run(999) / "final_model.int6.ptz").unlink()
    assert read(run(314), run(42), run(999, artifact=False)).artifact.seed == 42


def test_one_artifact_among_several_logs_is_told_by_its_size(run):
    folder = run(42, "all", artifact=False)
    run(314, "all", artifact=False)
    assert read(folder).artifact is None
    sparse(folder / "final_model.int6.ptz", MODELS[314])
    found = read(folder)
    assert (found.artifact.seed, found.failed) == (314, ())
    sparse(folder / "final_model.int6.ptz", 1000)
    with pytest.raises(UsageError, match=r"has 1,000 bytes, none of 2 logs counts a model of that size.*SEED=FILE"):
        read(folder)
    for claims, level in (
        ({"artifact_seed": 42}, ["fail"]),
        ({"artifact_seed": 7}, ["fail"]),  # of which there is no log
        ({"artifact_seed": True}, None),
    ):
        (folder / "submission.json").write_text(json.dumps(claims))
        if level:
            assert [finding.level for finding in read(folder).failed] == level
        else:
            with pytest.raises(UsageError, match="nothing tells whose it is"):
                read(folder)


def test_an_artifact_is_named_with_or_without_its_seed(run, tmp_path):
    runs = run(42), run(314)
    file = sparse(tmp_path / "weights", MODELS[42])
    for text in (str(file), f"42={file}"):
        assert read(*runs, artifact=text).artifact.seed == 42
    other = read(*runs, artifact=f"314={file}")
    assert other.artifact.seed == 314
    assert [finding.rule for finding in other.failed] == ["bytes.logged"]
    odd = sparse(tmp_path / "7=weights", MODELS[42])  # a file of that name
    assert read(*runs, artifact=str(odd)).artifact.seed == 42


def test_words_given_now_come_first_and_earlier_ones_must_agree(run):
    one, two = (
        run(42, claims={"author": "a", "hardware": "8xH100"}),
        run(314, claims={"author": "a", "hardware": "8xA100"}),
    )
    found = read(one, two, said={"name": "Mine", "author": None})
    assert (found.said["author"], found.said["name"], found.said["blurb"]) == ("a", "Mine", None)
    assert found.said["hardware"] is None  # of two machines
    run(314, claims={"author": "b", "date": 7})
    assert read(one, two, said={"author": "c"}).said["author"] == "c"
    with pytest.raises(InputError, match=r"says author 'b', .*submission\.json says 'a'; --author says which"):
        read(one, two)


def test_settings_that_all_runs_state_are_kept(run):
    one, two = run(42), run(314)
    for folder, extra in ((one, "TTT_LR=0.1"), (two, "TTT_LR=0.2")):
        line = f"SEED=3 DEPTH=3 {extra} torchrun --standalone train_gpt.py\n"
        (folder / "README.md").write_text(line)
    assert read(one, two).environment == {"DEPTH": "3"}
    (one / "README.md").unlink()
    assert read(one, two).environment == {}
    log = one / "train_seed42.log"
    log.write_text("$ SEED=3 DEPTH=4 python train_gpt.py\n" + log.read_text())
    assert read(log, script=one / "train_gpt.py").environment == {"DEPTH": "4"}


def test_a_copy_of_a_log_in_its_folder_is_left_out_and_named(run):
    folder = run(42)
    (folder / "train.log").write_text(log_1716(42))
    (folder / "notes.txt").write_text("nothing scored\n")
    found = read(folder)
    assert [log.path.name for log in found.logs] == ["train.log"]
    assert found.notes == (
        f"{folder / 'train_seed42.log'} is train.log again and is left out",
        f"{folder / 'notes.txt'} holds no score and is left out",
    )
    files = folder / "train_seed42.log", folder / "train.log"
    assert [log.path.name for log in read(*files, script=folder / "train_gpt.py").logs] == ["train_seed42.log"]
    assert read(files[0], folder).artifact.seed == 42
    assert len(read(folder, run(42, "again")).logs) == 2  # not of one folder: the same seed twice


def test_claims_of_the_runs_are_held_against_their_own_logs(run):
    honest = {"val_bpb": 1.07886574, "bytes_total": MODELS[42] + 18_097}
    assert read(run(42, claims=honest), run(314)).failed == ()
    failed = read(run(42, claims=honest | {"bytes_total": 1}), run(314)).failed
    assert [(finding.rule, finding.level) for finding in failed] == [("log.bytes", "fail")]


def test_a_folder_without_a_log_is_no_run(run, tmp_path):
    folder = tmp_path / "claims"
    folder.mkdir()
    (folder / "submission.json").write_text('{"val_bpb": 1.1}')
    with pytest.raises(InputError, match="holds no log with a score"):
        read(run(42), folder)


def test_the_script_may_be_anywhere(run, tmp_path):
    other = tmp_path / "mine" / "run_it.py"
    other.parent.mkdir()
    other.write_text("import helper\n")
    (other.parent / "helper.py").write_text("x = 1\n")
    (other.parent / "requirements.txt").write_text("")
    found = read(run(42), script=other)
    assert found.code == {"train_gpt.py": b"import helper\n", "helper.py": b"x = 1\n"}
    assert found.requirements == b""
    assert read(run(42)).requirements is None
