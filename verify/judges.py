"""Lists of judges: pure functions from facts to findings."""

from collections.abc import Callable, Iterable
from traceback import extract_tb
from typing import Generic, TypeVar

from codec.errors import InputError, PgolfError
from verify.finding import Finding
from verify.rules import find

Measured = TypeVar("Measured")
Judged = Finding | Iterable[Finding] | None
Function = TypeVar("Function", bound=Callable[..., Judged])


class Judges(Generic[Measured]):
    """The judges of one kind of facts, in the order of their findings.

    A judge takes the facts and gives a finding, several, or None where its rule does not apply.  It starts no process
    and opens no file: whatever it needs was measured before.

    >>> of_sizes = Judges[int]()
    >>> @of_sizes("bytes.cap")
    ... def check_cap(size: int) -> Finding:
    ...     return Finding(rule="bytes.cap", level="pass" if size <= 10 else "fail", message=f"{size} of 10 bytes")
    >>> [finding.message for finding in of_sizes.judge(12)]
    ['12 of 10 bytes']
    """

    def __init__(self) -> None:
        self._judges: list[tuple[tuple[str, ...], Callable[[Measured], Judged]]] = []

    def __call__(self, *rules: str) -> Callable[[Function], Function]:
        """Register the function below as a judge of these rules.  Raises: UsageError for one outside the table."""
        for rule in rules:
            find(rule)

        def register(function: Function) -> Function:
            self._judges.append((rules, function))
            return function

        return register

    @property
    def rules(self) -> tuple[str, ...]:
        """The ids of the rules they judge, each once."""
        return tuple(dict.fromkeys(rule for rules, _ in self._judges for rule in rules))

    def judge(self, facts: Measured) -> tuple[Finding, ...]:
        """What all of them find.

        Raises: InputError naming the judge that failed: without its finding there is no verdict.
        """
        return tuple(finding for rules, function in self._judges for finding in _findings(rules, function, facts))


def _findings(rules: tuple[str, ...], function: Callable[[Measured], Judged], facts: Measured) -> tuple[Finding, ...]:
    try:
        return tuple(_listed(function(facts)))
    except PgolfError:
        raise
    except Exception as error:  # a judge from outside may fail in any way
        file, line = _place(error)
        raise InputError(
            f"the judge of {', '.join(rules)} raised {type(error).__name__}: {error}", where=f"{file}, line {line}"
        ) from error


def _place(error: Exception) -> tuple[str, int | None]:
    last = extract_tb(error.__traceback__)[-1]
    return last.filename, last.lineno


def _listed(judged: Judged) -> Iterable[Finding]:
    if judged is None:
        return ()
    return (judged,) if isinstance(judged, Finding) else judged
