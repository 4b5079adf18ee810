"""Scripts shaped like the challenge's: smaller than by the field's recipe, and the same when they run."""

import os
import re
import shutil
import subprocess
import sys
from functools import cache

import pytest

from packager.script.bundle import bundle
from packager.script.packed_script import packed_script
from packager.script.wrapper import MAIN, unwrap
from tests.packager.field_scripts import field_recipe, field_script

SIZES = (50_000, 70_000, 105_000, 150_000)
FORMS = ("safe", "dense")
# A sitecustomize.  It answers for torch and numpy where they are not installed: any attribute is a class that takes
# everything, and is a decorator that gives back what it decorates.  custom_op reads the annotations as torch does.
STAND_INS = """\
import inspect, sys, types, typing
class Anything(type):
    def __getattr__(cls, name):
        if name.startswith("__"): raise AttributeError(name)
        return cls
    def __call__(cls, *a, **k):
        return a[0] if len(a) == 1 and not k and callable(a[0]) and not isinstance(a[0], Anything) else cls
    def __or__(cls, other): return cls
    __ror__ = __mul__ = __rmul__ = __add__ = __radd__ = __pow__ = __lt__ = __gt__ = __or__
    def __getitem__(cls, key): return cls
    def __iter__(cls): return iter(())
    def __index__(cls): return 1
    def __contains__(cls, item): return False
class Stand(metaclass=Anything):
    def __init_subclass__(cls, **k): pass
class Module(types.ModuleType):
    __path__ = []
    def __getattr__(self, name):
        if name.startswith("__"): raise AttributeError(name)
        return Stand
def custom_op(*a, **k):
    def wrapped(function):
        hints = typing.get_type_hints(function)
        assert set(hints) == {*inspect.signature(function).parameters, "return"}, hints
        return Stand
    return wrapped
class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "numpy", "sentencepiece", "zstandard", "safetensors"):
            return type(sys.__spec__)(name, Finder, is_package=True)
    @staticmethod
    def create_module(spec):
        module = Module(spec.name)
        if spec.name == "torch":
            module.library = types.SimpleNamespace(custom_op=custom_op)
        return module
    @staticmethod
    def exec_module(module): pass
sys.meta_path.append(Finder)
"""


@cache
def packed(size, form):
    """Bytes of the packed script."""
    return packed_script(bundle(field_script(size), "field.py"), "field.py", form=form)


@pytest.mark.parametrize("size", [SIZES[0], *(pytest.param(size, marks=pytest.mark.slow) for size in SIZES[1:])])
def test_smaller_than_by_the_fields_recipe(size):
    """Without docstrings and with the one `vars(x)` that the records have; bytes are the same everywhere."""
    usual = len(field_recipe(field_script(size)))
    assert len(packed(size, "safe")) <= 0.95 * usual
    assert len(packed(size, "dense")) <= 0.87 * usual


@pytest.mark.parametrize("size", [SIZES[0], pytest.param(SIZES[-1], marks=pytest.mark.slow)])
def test_both_forms_hold_the_same_program(size):
    assert unwrap(packed(size, "safe")) == unwrap(packed(size, "dense"))
    short = unwrap(packed(size, "safe"))[MAIN]
    for kept in (
        "num_stages:tl.constexpr",
        "tl.store(losses_ptr+row,maximum+tl.log(total)-picked)",
        "def capped_loss(logits:torch.Tensor,targets:torch.Tensor,softcap:float)->torch.Tensor",
        "'VOCAB_SIZE'",
        "class Hyperparameters",
    ):
        assert kept in short.replace("triton.", "").replace(", ", ",")


def interpreters():
    """This Python, and later ones on the path that start."""
    found = {f"{sys.version_info[0]}.{sys.version_info[1]}": sys.executable}
    for version in ("3.11", "3.12", "3.13"):
        command = shutil.which(f"python{version}")
        if version not in found and command and not subprocess.run([command, "-c", ""], capture_output=True).returncode:
            found[version] = command
    return found


INTERPRETERS = interpreters()


@pytest.fixture(scope="module")
def plain_output(tmp_path_factory):
    """What the script prints as it is written."""
    script = tmp_path_factory.mktemp("plain") / "train_gpt.py"
    script.write_text(field_script(SIZES[0]))
    return started(sys.executable, script).stdout


def started(python, script, **environment):
    """`python SCRIPT`, with stand-ins for what this Python has not installed."""
    (script.parent / "sitecustomize.py").write_text(STAND_INS)
    environment = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(script.parent), **environment}
    return subprocess.run(
        [python, str(script)], capture_output=True, text=True, timeout=120, env={**os.environ, **environment}
    )


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_runs_as_written_on_every_python_and_shows_the_failing_line(plain_output, tmp_path, version, form):
    if version not in INTERPRETERS:
        pytest.skip(f"no python{version} that starts is on the path")
    script = tmp_path / "train_gpt.py"
    script.write_bytes(packed(SIZES[0], form))
    done = started(INTERPRETERS[version], script)
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 3
    assert done.stdout.splitlines()[:2] == plain_output.splitlines()[:2]  # the third is a line of the source
    failed = started(INTERPRETERS[version], script, FAIL_ON_PURPOSE="1")
    assert failed.returncode == 1
    assert re.search(r'train_gpt\.py", line \d+, in \w+\n +def \w+\(message\):raise \w+\(message\)\n', failed.stderr)
    assert failed.stderr.count("File ") == 3  # the script's own frames: nothing of the loader


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_runs_on_two_ranks_with_the_real_torch(tmp_path, form):
    script = tmp_path / "train_gpt.py"
    script.write_bytes(packed(SIZES[-1], form))
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(script)]
    done = subprocess.run(
        [sys.executable, *command],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("summary seed:1337, loss:1.25") == 2


def test_the_top_level_keeps_its_names_for_modules_that_ask_for_them(tmp_path):
    (tmp_path / "helper.py").write_text("import __main__\ndef ask():\n    return __main__.long_function_name()\n")
    main = "import helper\ndef long_function_name():\n    return 5\n"
    parts = bundle(main, "main.py", beside=tmp_path)
    assert "long_function_name" in unwrap(packed_script(parts, "main.py"))[MAIN]
    alone = bundle(main.replace("import helper\n", ""), "main.py")
    assert "long_function_name" not in unwrap(packed_script(alone, "main.py"))[MAIN]
