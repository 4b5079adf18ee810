"""What long work says while it runs, and to whom: one type for all packages."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

Progress = Callable[[int, str], None]  # (units done so far, a short note such as "bpb 2.31")
Bar = Callable[[str, int], AbstractContextManager[Progress]]  # (label, total units) -> where progress is reported


def silent(done: int, note: str) -> None:
    """A progress callback that says nothing."""


@contextmanager
def silent_bar(label: str, total: int) -> Iterator[Progress]:
    """A bar that shows nothing."""
    yield silent
