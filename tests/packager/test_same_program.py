"""Two sources are proven to be the same program, or the difference is named."""

import ast
import random

import pytest

from packager.script.minify import minify
from packager.script.same_program import DifferentError, check_same
from tests.conftest import ROOT
from tests.packager.field_scripts import field_script


def same(before, after):
    check_same(ast.parse(before), ast.parse(after))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("'''doc'''\nx = 1\npass\n", "x=1"),
        ("import a\nimport b as c\nfrom d import e\nfrom d import f", "import a,b as c\nfrom d import e,f"),
        ("def f(a):\n    long = a + 1\n    return long", "def f(a):A=a+1;return A"),
        ("def f(number):\n    number += 1\n    return number", "def f(number):A=number;A+=1;return A"),
        ("print(len('a'), len('b'))", "A=len\nprint(A('a'),A('b'))"),
        ("import torch\nx = torch.nn", "import torch as A\nx=A.nn"),
        ("[each for each in x if each]", "[A for A in x if A]"),
        ("class K:\n    def f(self):\n        return self.x", "class K:\n def f(A):return A.x"),
        ("def f(*args, **kw): return args, kw", "def f(*A,**B):return A,B"),
        ("def f():\n    global count\n    count = 1", "def f():global A;A=1"),
        (
            "def f():\n    x = 1\n    def g():\n        nonlocal x\n        x = 2",
            "def f():\n A=1\n def g():nonlocal A;A=2",
        ),
        ("try:\n    f()\nexcept E as error:\n    print(error)", "try:f()\nexcept E as A:print(A)"),
        (
            "match v:\n    case [first, *rest] as whole: print(first, rest, whole)",
            "match v:\n case[A,*B]as C:print(A,B,C)",
        ),
        ("if (n := f()):\n    print(n)", "if A:=f():print(A)"),
    ],
)
def test_names_may_differ_where_they_correspond(before, after):
    same(before, after)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("x = 1", "x = 2"),
        ("x = 1", "x = True"),
        ("x = 0.0", "x = -0.0"),
        ("f(a, b)", "f(b, a)"),
        ("a = 1\nb = 2\nprint(a)", "A = 1\nB = 2\nprint(B)"),
        ("a = 1\nb = 2", "A = 1\nA = 2"),
        ("def f(a): return a", "def f(b): return b"),
        ("class K:\n    x = 1", "class K:\n    A = 1"),
        ("x.attribute", "x.other"),
        ("f(key=1)", "f(other=1)"),
        ("def f(n):\n    n += 1\n    return n", "def f(n):A=n;A+=1;return n"),
        ("print(len(a))\nlen = f\nprint(len(b))", "A=len\nprint(A(a))\nlen=f\nprint(A(b))"),
        ("x = 1", "x = 1\ny = 2"),
        ("def f():\n    x = 1\n    return x", "def f():\n    x = 1\n    return y"),
        (
            "def f():\n    x = 1\n    def g():\n        return x",
            "def f():\n    A = 1\n    def g():\n        A = 1\n        return A",
        ),
        ("import a.b", "import a.c"),
        ("assert x", "x"),
        ("x = ...\n...", "x = ..."),
    ],
)
def test_any_other_difference_is_noticed(before, after):
    with pytest.raises(DifferentError):
        same(before, after)


def test_a_changed_token_of_a_minified_script_is_noticed():
    """Names, numbers and operators exchanged at random: what still parses and differs is refused."""
    source = (ROOT / "codec" / "decoder.py").read_text()
    short, rng, noticed = minify(source, "x"), random.Random(3), 0
    tree = ast.parse(short)
    check_same(tree, ast.parse(short))
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    for _ in range(60):
        node, other = rng.sample(names, 2)
        if node.id == other.id:
            continue
        kept, node.id = node.id, other.id
        with pytest.raises(DifferentError):
            check_same(ast.parse(short), tree)
        node.id, noticed = kept, noticed + 1
    assert noticed > 30


def test_the_minifier_is_checked(monkeypatch):
    from packager.script import minify as minifying

    def careless(text, **options):
        return text.replace("1", "2")

    monkeypatch.setattr(minifying, "shorten", careless)
    with pytest.raises(minifying.InputError, match="not the same program after python-minifier"):
        minifying.minify.__wrapped__("x = 1\n", "x")


def test_a_script_of_the_fields_kind_is_proven():
    minify(field_script(50_000), "field", alone=True)
