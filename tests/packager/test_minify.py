"""Minified sources: shorter, same behaviour, readable by Python 3.11, names that others import kept."""

import ast
import builtins

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codec.errors import InputError
from packager.reference import Training, reference_bundle
from packager.script.minify import minify


def carried():
    found = reference_bundle(Training(preset="a preset", recipe="a recipe"))
    return {**found.modules, "train_gpt.py": found.main}


def run(text):
    names = {"__name__": "under_test"}
    exec(text, names)
    return names


def top_names(text):
    """Names a module binds at its top level."""
    names = set()
    for node in ast.parse(text).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
    return names


@pytest.mark.parametrize("name", list(carried()))
def test_carried_modules_shrink_and_keep_their_names(name):
    text = carried()[name]
    short = minify(text, name)
    assert len(short) < len(text)
    assert top_names(short) == top_names(text)
    assert '"""' not in short


def test_dataclasses_keep_their_fields():
    text = (
        '"""doc"""\nfrom dataclasses import dataclass, fields\n@dataclass(frozen=True)\nclass A:\n'
        '    """doc"""\n    size: int\n    name: str = "x"\n    def twice(self, value: int) -> int:\n'
        '        """doc"""\n        result: int = value * 2\n        return result\n'
    )
    names = run(minify(text, "x"))
    assert [(f.name, f.type) for f in names["fields"](names["A"])] == [("size", int), ("name", str)]
    assert names["A"](3).twice(value=4) == 8
    assert names.get("__doc__") is None
    assert "doc" not in minify(text, "x")
    assert "->" not in minify(text, "x")


@pytest.mark.parametrize("decorator", ["@triton.jit", "@torch.library.custom_op('a::b', mutates_args=())", "@f[0]"])
def test_functions_that_compile_their_own_source_stay_readable(decorator):
    text = f"{decorator}\ndef kernel(pointer, block_size: tl.constexpr) -> None:\n    offsets = block_size + pointer\n"
    short = minify(text, "x")
    assert "block_size:tl.constexpr" in short.replace(" ", "")
    assert "offsets=block_size+pointer" in short


def test_harmless_decorators_do_not_prevent_shortening():
    short = minify("@torch.no_grad()\ndef f(x: int):\n    long_name = x + 1\n    return long_name * long_name\n", "x")
    assert "long_name" not in short
    assert "int" not in short


VALUES = {"a": 3.14159, "b": "it's", "c": [1, "two"], "w": 9}
FIELDS = st.sampled_from(
    [
        "{d['a']}",
        "{d['a']:.3f}",
        "{d['b']!r}",
        "{d['b']:>{d['w']}}",
        "{d['b']!r:^{12}}",
        "{d['c'][1]}",
        "{x}",
        "{x!s:>5}",
        "{'lit'}",
        "{f'{d[chr(97)]} in'}",
        "{', '.join(map(str, d['c']))}",
        "{d['w']=}",
        "{{",
        "}}",
        "{x=:{'>'}6}",
        "{'a' 'b'}",
    ]
)
LITERALS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters='{}\0\\"\r\n'), max_size=5)


@given(st.lists(st.one_of(FIELDS, LITERALS), max_size=6))
def test_f_strings_mean_the_same_and_never_nest_strings(parts):
    text = f'd = {VALUES!r}\nx = 7\nresult = f"{"".join(parts)}"\n'
    short = minify(text, "x")
    assert run(short)["result"] == run(text)["result"]
    # On Python 3.12+ the minifier would reuse quotes only where a field holds a string.
    for node in ast.walk(ast.parse(short)):
        if isinstance(node, ast.FormattedValue):
            assert not [
                inner
                for inner in ast.walk(node.value)
                if isinstance(inner, ast.Constant) and isinstance(inner.value, str)
            ]


@pytest.mark.parametrize("text", ["type X = int\n", "def f[T](x: T): pass\n", "x = = 1\n", "x = '\0'\n"])
def test_what_python_3_11_cannot_read_is_refused(text):
    with pytest.raises(InputError, match=r"cannot be minified for Python 3\.11"):
        minify(text, "x.py")


def test_what_a_console_leaves_among_the_builtins_changes_no_byte(monkeypatch):
    """A console keeps its last value there as `_`, and the minifier leaves names of builtins as they are."""
    source = "def function(pairs):\n    return sum(first for first, _ in pairs)\n"
    before = minify.__wrapped__(source, "x.py")
    monkeypatch.setattr("builtins._", 42, raising=False)
    assert minify.__wrapped__(source, "x.py") == before
    assert vars(builtins)["_"] == 42


@pytest.mark.parametrize(
    "look_up",
    [
        "import builtins as hidden\n",
        "from __main__ import first_setting as other\n",
        "from sys import modules\n",
        "import sys as s\nseen = s.modules\n",
        "seen = __builtins__\n",
    ],
)
def test_names_stay_where_a_script_may_look_them_up(look_up):
    text = f"{look_up}first_setting = 7\ndef second_setting():\n    return first_setting\nprint(second_setting())\n"
    assert "first_setting = 7".replace(" ", "") in minify(text, "x", alone=True)
    assert "first_setting=7" not in minify(text.removeprefix(look_up), "x", alone=True)
