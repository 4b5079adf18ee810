"""The embedded text: what is taken from a module, and that there is enough of it, without repeats."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from trainer.data.stdlib_text import module_text, stdlib_documents

SOURCE = '''#!/usr/bin/env python
# First comment,
# second line.
#
# New paragraph.
# ----------
"""Module text.

More of it."""

x = "# not a comment"  # trailing, not taken

class C:
    """Class text."""
    # inside the class
    async def f(self):
        "Method text."
        return """
# inside a string
"""
'''


def test_module_text_is_docstrings_and_comments_in_order():
    paragraphs = [" ".join(p.split()) for p in module_text(SOURCE).split("\n\n") if p.strip()]
    assert paragraphs == [
        "/usr/bin/env python First comment, second line.",
        "New paragraph.",
        "Module text.",
        "More of it.",
        "Class text.",
        "inside the class",
        "Method text.",
    ]


def test_module_text_of_what_is_no_python():
    with pytest.raises(SyntaxError):
        module_text("def (:")


@pytest.fixture(scope="module")
def documents():
    return stdlib_documents()


@pytest.mark.slow
def test_there_is_enough_of_it(documents):
    assert len(documents) > 300
    assert sum(len(d.encode()) for d in documents) > 2_000_000
    assert any("naming and binding" in d.lower() for d in documents), "help topics are in"
    assert any("JSON (JavaScript Object Notation)" in d for d in documents), "module docstrings are in"


def test_no_paragraph_repeats(documents):
    counts = Counter(p for d in documents for p in d.split("\n\n"))
    assert max(counts.values()) == 1


@pytest.mark.slow
def test_another_process_with_other_hash_seeds_gets_the_same(documents):
    code = "from trainer.data.stdlib_text import stdlib_documents as d; print(ascii(d()))"
    environment = {**os.environ, "PYTHONHASHSEED": "77", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == ascii(documents)
