"""`pgolf --plugin FILE.py`: a user's file runs before the command; its mistakes are one sentence."""

import json
import subprocess
import sys

import pytest

from tests.conftest import ROOT

REGISTERS = """\
from codec.measurement import compressors
compressors.BASELINES += ("toy",)
print("ran as", __name__)
"""


@pytest.fixture
def plugin(tmp_path):
    """Write a plugin with that text -> its path."""

    def write(text, name="toy.py"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    return write


def test_it_runs_before_the_command_as_the_module_of_its_name(pgolf, plugin):
    """The command takes the peer that the plugin added, and goes on to the next argument, the checkpoint."""
    arguments = ("measure", "missing.safetensors", "--peer", "toy")
    alone = pgolf(*arguments)
    assert alone.returncode == 2
    assert "unknown peer `toy`" in alone.stderr
    done = pgolf("--plugin", plugin(REGISTERS), *arguments)
    assert (done.returncode, done.stdout) == (3, "ran as toy\n")
    assert done.stderr.startswith("Error: missing.safetensors: no such file")


def test_several_run_in_order_and_each_once(pgolf, plugin):
    first, second = plugin("print('first')\n", "first.py"), plugin("import first\nprint('second')\n", "second.py")
    done = pgolf("--plugin", first, "--plugin", second, "--plugin", first, "pack", "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("first\nsecond\nUsage: pgolf pack")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = 1\nx = x / 0\n", "toy.py, line 2: raised ZeroDivisionError: division by zero"),
        (
            "def broken():\n    import json\n    json.loads('{')\n\nbroken()\n",
            "toy.py, line 3: raised JSONDecodeError: ",
        ),
        ("x = 1\nif x\n", "toy.py, line 2: raised SyntaxError: expected ':'"),
        ("import nowhere_to_be_found\n", "toy.py, line 1: raised ModuleNotFoundError: No module named"),
        ("raise ValueError('two\\nlines')\n", "toy.py, line 1: raised ValueError: two lines"),
        ("import sys\nsys.exit(0)\n", "toy.py, line 2: raised SystemExit: 0"),
        ("x = '\0'\n", "toy.py: raised "),
    ],
)
def test_an_error_inside_is_one_sentence(pgolf, plugin, text, words):
    path = plugin(text)
    done = pgolf("--plugin", path, "measure", "missing.safetensors", "--json")
    assert (done.returncode, done.stderr.count("\n")) == (3, 1), done.stderr
    assert words in done.stderr
    failure = json.loads(done.stdout)
    assert (failure["exit_code"], failure["error"]["kind"]) == (3, "InputError")
    assert failure["error"]["where"].startswith(str(path))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("json.py", "json.py: there is another module `json`; give the file another name"),
        ("sys.py", "sys.py: there is another module `sys`"),
        ("codec.py", "codec.py: there is another module `codec`"),
        ("sqlite3.py", "sqlite3.py: there is another module `sqlite3`"),
        ("my-toy.py", "my-toy.py: is not a file named like a module; call it NAME.py"),
        ("toy.txt", "toy.txt: is not a file named like a module"),
    ],
)
def test_a_name_that_it_cannot_have_is_one_sentence(pgolf, plugin, name, words):
    done = pgolf("--plugin", plugin("x = 1\n", name), "pack", "--help")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert words in done.stderr


def test_two_files_of_one_name_are_refused(pgolf, plugin):
    done = pgolf("--plugin", plugin("x = 1\n"), "--plugin", plugin("x = 2\n", "other/toy.py"), "pack", "--help")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "other/toy.py: there is another module `toy`" in done.stderr


@pytest.mark.parametrize("path", ["missing.py", "."])
def test_a_missing_file_is_a_mistake_in_the_command(pgolf, tmp_path, path):
    done = pgolf("--plugin", path, "pack", "--help", cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert path in done.stderr


def test_a_file_in_the_working_folder_may_be_importable_too(pgolf, plugin):
    done = pgolf("--plugin", "toy.py", "pack", "--help", cwd=plugin("print(__file__)\n").parent)
    assert done.returncode == 0, done.stderr


def test_loading_one_is_light(plugin):
    """What a plugin does not import itself is not loaded for it."""
    check = (
        "import sys; from pgolf.__main__ import main; main(['--plugin', sys.argv[1], 'nonsense']);"
        "sys.exit(len({'torch', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", check, plugin("x = 1\n")], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "No such command 'nonsense'" in done.stderr


def test_behind_the_command_it_says_where_it_stands(pgolf_process, plugin):
    done = pgolf_process("pack", "--plugin", plugin("x = 1\n"))
    assert (done.returncode, done.stderr) == (
        2,
        "Error: No such option '--plugin'; it stands before the command: pgolf --plugin FILE.py COMMAND\n",
    )
