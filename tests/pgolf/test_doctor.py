"""`pgolf doctor`: what it finds is here, what lacks is said; a check of a card that fails, dies or hangs is told."""

import json
import math
import os
import re
import time
from pathlib import Path

import pytest
import torch

from pgolf.doctor import needs
from pgolf.doctor.cards import PUBLISHED_STEP_MS, peak_flops
from pgolf.doctor.catalog import CHECKS, H100_PRESETS, Check, choose
from pgolf.doctor.checks import attention, precision, training
from pgolf.doctor.checks.synthetic import tokens
from pgolf.doctor.examination import examine
from pgolf.doctor.machine import Machine
from pgolf.doctor.needs import NEEDS, Need, look_around, package
from pgolf.doctor.outcome import Measured, Outcome, Result
from pgolf.doctor.page import gpu_page, rows
from pgolf.doctor.plan import Plan, shrunk
from trainer.presets.catalog import PRESETS, find_preset

ROOT = Path(__file__).resolve().parents[2]
PLAN = Plan.dry_run()


@pytest.fixture(autouse=True)
def _one_thread():
    """As in a dry run: two would wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def machine():
    return Machine.here(Path())


def test_the_table_asks_for_what_the_package_asks_for():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = dict(re.fullmatch(r"([\w-]+)[>=]=([\d.]+)", each).groups() for each in project["dependencies"])
    asked = {need.name: re.search(r">=([\d.]+)", need.how) for need in NEEDS if need.essential}
    assert set(wanted) == set(asked) - {"Python"}
    assert {name: match[1] for name, match in asked.items() if match} == wanted
    extras = {re.match(r"[\w-]+", each)[0] for extra in project["optional-dependencies"].values() for each in extra}
    tools = {"hypothesis", "mypy", "pytest", "pytest-xdist", "ruff", "types-tabulate"}
    assert extras - tools <= {need.name for need in NEEDS}


def test_it_says_what_is_here(pgolf):
    done = pgolf("doctor", "--json")
    found = json.loads(done.stdout)
    states = {each["name"]: each for each in found["needs"]}
    assert (done.returncode, found["lacks"]) == (0, [])
    assert states["torch"]["found"] == torch.__version__ == found["machine"]["torch"]
    assert (states["NVIDIA GPU"]["state"] == "ok") is torch.cuda.is_available()
    assert found["machine"]["cores"] == len(os.sched_getaffinity(0))
    assert all(each["without"] and each["how"] for each in found["needs"])


def test_what_lacks_is_explained(pgolf):
    done = pgolf("doctor")
    found = look_around(Machine.here(Path()))
    for each in found:
        assert (f"\n{each.need.name}: without it, " in done.stdout) is (each.what is None)
    assert os.uname().nodename not in done.stdout


def test_an_essential_that_lacks_is_exit_code_4(pgolf, monkeypatch):
    lost = Need(name="lost", look=package("no_such_module", "no-such"), without="all", how="find it", essential=True)
    monkeypatch.setattr(needs, "NEEDS", (*NEEDS, lost))
    done = pgolf("doctor")
    assert done.returncode == 4
    assert "Error: the core lacks lost; see the table" in done.stderr or "the core lacks lost" in done.stderr
    assert re.search(r"^lost +LACKS", done.stdout, re.MULTILINE)
    assert pgolf("doctor", "--gpu").returncode == 4


@pytest.mark.parametrize(
    ("module", "name", "at_least", "there"),
    [
        ("numpy", "numpy", "1.26", True),
        ("numpy", "numpy", "999", False),
        ("numpy", "no-such-package", "0", False),
        ("no_such_module", "numpy", "0", False),
    ],
)
def test_a_package_must_be_there_and_new_enough(machine, module, name, at_least, there):
    assert (package(module, name, at_least)(machine) is not None) is there


@pytest.mark.parametrize(
    "words", [["--dry-run"], ["-o", "out"], ["--check", "attention"], ["--gpu", "--check", "atention"]]
)
def test_refuses_options_that_make_no_sense(pgolf, tmp_path, words):
    done = pgolf("doctor", *words, cwd=tmp_path)
    assert done.returncode == 2
    assert not list(tmp_path.iterdir())
    if "atention" in words:
        assert "did you mean `attention`?" in done.stderr


def test_a_dry_run_says_so_everywhere(pgolf, tmp_path, machine):
    done = pgolf(
        "doctor", "--gpu", "--dry-run", "--check", "attention", "--check", "collectives", "-o", tmp_path / "out"
    )
    assert done.returncode == 0, done.stderr
    assert "nothing was measured on a GPU" in done.stdout
    found = json.loads((tmp_path / "out" / "gpu.json").read_text())
    assert (found["dry"], found["holds"]) == (True, True)
    assert [each["name"] for each in found["outcomes"]] == ["attention", "collectives"]
    text = (tmp_path / "out" / "gpu.md").read_text()
    assert "nothing was measured on a GPU" in text
    assert os.uname().nodename not in text
    assert str(Path.home()) not in text


@pytest.mark.slow
def test_every_check_runs_dry(machine):
    result = examine(machine, CHECKS, PLAN, 300.0)
    assert [each.state for each in result.outcomes] == ["ok"] * len(CHECKS), gpu_page(result)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*")  # of its compiler, when it is loaded
def test_steps_are_compiled_for_a_card():
    """The compiler's other target: a C++ compiler in place of triton."""
    from dataclasses import replace

    found = training.steps("pr1716", replace(PLAN, compile=True, steps=4), 600.0)
    [row] = found.rows
    assert (row["compiled"], row["steps"], found.wrong) == ("yes", 4, ())
    assert row["first step s"] > 0


def raises(plan: Plan, seconds: float) -> Measured:
    raise ValueError("of no use\nto anyone")


def dies(plan: Plan, seconds: float) -> Measured:
    os._exit(3)


def hangs(plan: Plan, seconds: float) -> Measured:
    time.sleep(60)
    raise AssertionError


def finds_something(plan: Plan, seconds: float) -> Measured:
    return Measured(rows=({"a": 1},), wrong=("a is not 2",))


def test_a_check_that_fails_dies_or_hangs_is_told_and_the_others_go_on(machine, monkeypatch):
    monkeypatch.setattr("pgolf.doctor.examination.WARM_UP", 1.0)
    weights = {hangs: 0.2, raises: 5, dies: 5, finds_something: 5}
    checks = [Check(name=run.__name__, title="", weight=weight, run=run) for run, weight in weights.items()]
    result = examine(machine, checks, PLAN, 60.0)
    states = {each.name: (each.state, each.error) for each in result.outcomes}
    assert states == {
        "raises": ("failed", "ValueError: of no use"),
        "dies": ("failed", "its process died with exit code 3"),
        "hangs": ("failed", "was ended after 2 s"),
        "finds_something": ("wrong", ""),
    }
    assert not result.holds
    text = gpu_page(result)
    assert "**wrong**, finds_something: a is not 2" in text
    assert "dies failed: its process died with exit code 3" in text
    assert [row[1] for row in rows(result)] == ["failed", "failed", "failed", "wrong"]


def test_time_that_is_left_goes_to_later_checks(machine, monkeypatch):
    shares = []

    def alone(check, plan, share, left, context):
        shares.append(round(share))
        return Outcome(name=check.name, title="", state="ok", seconds=0.0)

    monkeypatch.setattr("pgolf.doctor.examination.run_alone", alone)
    checks = [Check(name=str(weight), title="", weight=weight, run=raises) for weight in (10, 30, 60)]
    examine(machine, checks, PLAN, 1000.0)
    assert shares == [100, 333, 1000]


def test_ctrl_c_leaves_nothing(pgolf, tmp_path, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("pgolf.doctor.examination.run_alone", interrupted)
    assert pgolf("doctor", "--gpu", "--dry-run", "-o", "out", cwd=tmp_path).returncode == 130
    assert not list(tmp_path.iterdir())


def test_a_check_without_time_is_not_measured(machine):
    result = examine(machine, CHECKS[:2], PLAN, 0.0)
    assert [each.state for each in result.outcomes] == ["not measured"] * 2
    assert result.holds
    assert "no time was left for it" in gpu_page(result)


def test_attention_that_reads_ahead_is_wrong(monkeypatch):
    def uncausal(q, k, v):
        group = q.shape[2] // k.shape[2]
        k, v = (each.repeat_interleave(group, 2).transpose(1, 2) for each in (k, v))
        return torch.nn.functional.scaled_dot_product_attention(q.transpose(1, 2), k, v).transpose(1, 2)

    assert attention.attention(PLAN, 1.0).wrong == ()
    monkeypatch.setattr("trainer.compute.attention.implementations", lambda *_: iter([("uncausal", uncausal)]))
    [message] = attention.attention(PLAN, 1.0).wrong
    assert message.startswith("uncausal: errors ")


def test_a_bfloat16_step_that_differs_is_wrong(monkeypatch):
    from trainer.model.gpt import sdpa

    def choose(device, dtype):
        return ("bad", lambda q, k, v: sdpa(q, k, v).flip(1)) if dtype == torch.bfloat16 else ("sdpa", sdpa)

    assert precision.precision(PLAN, 1.0).wrong == ()
    monkeypatch.setattr("trainer.compute.attention.choose_attention", choose)
    assert precision.precision(PLAN, 1.0).wrong


def test_steps_stop_when_the_time_is_up():
    found = training.steps("pr1716", PLAN, 0.0)
    [row] = found.rows
    assert (row["steps"], row["whole step ms"]) == (1, None)
    assert f"1 of {PLAN.steps} steps fitted into the time" in found.notes


def test_a_smaller_micro_batch_is_tried_when_memory_ends(monkeypatch):
    from trainer.run.step import Stepper

    build, asked = Stepper.build, []

    def full_at_first(preset, *others):
        asked.append(preset.train.micro_batch)
        if len(asked) == 1:
            raise torch.OutOfMemoryError
        return build(preset, *others)

    monkeypatch.setattr(Stepper, "build", full_at_first)
    found = training.steps("pr162", PLAN, 120.0)
    assert asked == [2, 1]
    assert any(note.startswith("micro_batch 1: ") for note in found.notes)
    assert found.rows[0]["steps"] == PLAN.steps


def test_operations_of_pr162_are_those_of_its_matrices():
    from trainer.model.gpt import GPT

    preset = find_preset("pr162")
    taken = training.Steps(seconds=(1.0,), looping=(False,), losses=(1.0, 1.0))
    block = 512 * 512 + 2 * 512 * 256 + 512 * 512 + 2 * 512 * 1536
    weights = 9 * block + 128 * 512 + 1024 * 512  # blocks, projection of the bigrams, output matrix
    with torch.device("meta"):
        model = GPT(preset.model)
    assert training.flops(model, taken, preset) == 6 * weights + 9 * 6 * 512 * 2048


def test_a_loop_multiplies_once_a_pass():
    from trainer.model.gpt import GPT

    preset = shrunk(find_preset("pr1716"))
    model = GPT(preset.model)
    once, looped = (
        training.flops(model, training.Steps(seconds=(1.0,), looping=(each,), losses=(1.0, 1.0)), preset)
        for each in (False, True)
    )
    block = sum(layer.weight.numel() for layer in model.blocks[2].modules() if isinstance(layer, torch.nn.Linear))
    further = len(preset.model.order(True)) - len(preset.model.order(False))
    assert looped - once == further * (6 * block + 6 * preset.model.dim * preset.model.seq_len)


def test_a_whole_step_is_held_against_the_published_one():
    preset = training.one_card(find_preset("pr162"), Plan.of_card())
    row = training._whole(PUBLISHED_STEP_MS["pr162"], preset, 8 * 81.3)
    assert row["of the published pace"] == pytest.approx(1)
    assert row["tokens/s, whole steps"] == pytest.approx(row["published tokens/s per card"])
    assert row["published tokens/s per card"] == pytest.approx(786_432 / 0.0813 / 8)


@pytest.mark.parametrize("name", H100_PRESETS)
def test_every_preset_has_a_check_and_a_small_form(name):
    [check] = choose([f"step:{name}"])
    assert check.run.args == (name,)
    small, full = shrunk(PRESETS[name]).model, PRESETS[name].model
    for switch in ("smear", "activation", "loops", "value_residual", "attn_gate", "ln_scale", "backout", "gated_skips"):
        assert getattr(small, switch) == getattr(full, switch)
    share = training.one_card(PRESETS[name], Plan.of_card()).train
    assert 8 * share.batch_tokens == PRESETS[name].train.batch_tokens
    assert share.batch_tokens % (share.seq_len * share.micro_batch) == 0


@pytest.mark.parametrize(
    ("card", "tflops"),
    [
        ("NVIDIA H100 80GB HBM3", 989.4),
        ("NVIDIA H100 PCIe", 756.0),
        ("NVIDIA A100-SXM4-80GB", 312.0),
        ("NVIDIA L4", 121.0),
        ("NVIDIA L40S", 362.0),
        ("Tesla T4", None),
    ],
)
def test_peaks_of_known_cards(card, tflops):
    found = peak_flops(card)
    assert found == (None if tflops is None else pytest.approx(tflops * 1e12))


def test_made_up_tokens_can_be_learned():
    drawn = tokens(20_000, 256)
    assert drawn.max() < 256
    counts = torch.bincount(torch.from_numpy(drawn.astype("int64")), minlength=256) / len(drawn)
    entropy = -(counts[counts > 0] * counts[counts > 0].log()).sum().item()
    assert entropy < math.log(256) - 0.5


def test_a_page_of_a_card_names_it(machine):
    from dataclasses import replace

    from pgolf.doctor.machine import Gpu

    card = Gpu(name="NVIDIA H100 80GB HBM3", memory_bytes=80 * 2**30, capability=(9, 0))
    outcome = Outcome(name="a", title="b", state="ok", seconds=1.0, measured=Measured(rows=({"x": None, "y": 1.5},)))
    result = Result(dry=False, machine=replace(machine, gpus=(card,)), limit=450.0, seconds=1.0, outcomes=(outcome,))
    text = gpu_page(result)
    assert "**measured on NVIDIA H100 80GB HBM3.**" in text
    assert "| - | 1.5 |" in text
    assert "- step:pr162: was not asked for" in text
    assert "compiled steps" not in text
    assert "MFU: the peak" not in text
    other = replace(result, machine=replace(machine, gpus=(replace(card, name="Tesla T4"),)))
    assert "- MFU: the peak of this card is not in pgolf/doctor/cards.py" in gpu_page(other)


def test_the_committed_page_is_a_dry_run_of_all_checks():
    text = (ROOT / "docs" / "gpu.md").read_text()
    assert "nothing was measured on a GPU" in text
    for check in CHECKS:
        assert f"| {check.name} | {check.title} | ok |" in text


def test_the_page_shows_every_need_and_check():
    text = (ROOT / "docs" / "doctor.md").read_text()
    shown = text.partition("what  ")[2].partition("```")[0]
    assert [need.name for need in NEEDS] == re.findall(r"^(\S.*?)  +(?:ok|lacks)\b", shown, re.MULTILINE)
    assert {check.name.partition(":")[0] for check in CHECKS} == set(re.findall(r"^- `(\w+)[:`]", text, re.MULTILINE))
