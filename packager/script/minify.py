"""Shorter source text that behaves the same; python-minifier does the work, this module picks what is safe.

The settings, by LZMA bytes of whole scripts: docstrings and comments out (the largest gain), local names short (5 to
9 %), names of the top level short (2 %, where nothing looks them up), literals not hoisted (hoisting costs 60 to 190
bytes after LZMA), nothing folded or rewritten (0 to 12 bytes, and what is not rewritten needs no proof).
"""

import ast
import builtins
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

from python_minifier import UnstableMinification
from python_minifier import minify as shorten

from codec.errors import InputError
from packager.script.plain_tree import plain_tree, without_vars
from packager.script.same_program import DifferentError, check_same
from packager.script.watched_names import watched

OLDEST = (3, 11)  # the output must parse on this Python


@lru_cache(maxsize=256)  # the reference script and its modules are 69 sources, 2.4 s
def minify(text: str, where: str, *, alone: bool = False) -> str:
    """Source text -> shorter source text of the same program, valid on Python 3.11 and later.

    Class attributes keep their annotations: dataclasses read them.  Functions that something compiles from their source
    keep all names and annotations (see `watched`).

    alone: nothing imports this source, so that most names of its top level may be shortened too.

    Raises: InputError when the text is not valid Python, uses syntax newer than 3.11, or the shorter text cannot be
    proven to be the same program.
    """
    try:
        tree = without_vars(ast.parse(text, feature_version=OLDEST))
        seen = watched(tree)
        plain = plain_tree(tree, seen)
        with _own_builtins():
            short = shorten(
                ast.unparse(plain),
                remove_annotations=False,
                remove_literal_statements=True,
                preserve_locals=sorted(seen.names),
                rename_globals=alone and not seen.global_lookups,
                preserve_globals=sorted(seen.global_names),
                hoist_literals=False,
                remove_object_base=False,
                convert_posargs_to_args=False,
                preserve_shebang=False,
                remove_explicit_return_none=False,
                remove_builtin_exception_brackets=False,
                constant_folding=False,
                remove_dead_branches=False,
            )
        check_same(plain, ast.parse(short, feature_version=OLDEST))
    except (SyntaxError, ValueError, RecursionError, UnstableMinification) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
        reason = getattr(error, "msg", error)
        raise InputError(
            f"cannot be minified for Python {OLDEST[0]}.{OLDEST[1]} ({reason})",
            where=where + line,
            hint="correct it, or pack it with --no-minify",
        ) from None
    except DifferentError as error:
        raise InputError(
            f"is not the same program after python-minifier ({error})", where=where, hint="pack it with --no-minify"
        ) from None
    return short


@contextmanager
def _own_builtins() -> Iterator[None]:
    """Hides `_` among the builtins, where a console, doctest and gettext put it: the minifier renames no builtin.

    Without this the reference script took 3 bytes more in such a process.
    """
    hidden = {name: value for name, value in vars(builtins).items() if name == "_"}
    vars(builtins).pop("_", None)
    try:
        yield
    finally:
        vars(builtins).update(hidden)
