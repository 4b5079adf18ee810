"""What a script that adapts by itself states about how: its stretches, and the order in which they are scored.

A stretch is what is scored by one state of the script; when its scores are fixed, its tokens are revealed.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from codec.errors import InputError
from verify.scoring.token_bytes import BOS
from verify.scoring.ttt import by_chunk
from verify.scoring.windows import Window, plan

Unit = Literal["window", "chunk", "document"]
Order = Literal["stream", "shortest", "longest"]
HINT = "state it as {'stretch': 'chunk', 'targets': 32768}; docs/extending.md, A script that adapts itself"


class Stretch(NamedTuple):
    """Positions start .. stop - 1; their tokens, with the one before the first target, are tokens[start : stop + 1].

    windows: counted from the start of their part, in order; those that score the stretch.  reach: positions that each
    is asked for, more than it scores where a document ends: the size of a request must not tell where that is.
    """

    start: int
    stop: int
    windows: list[Window]
    reach: int = 0


class Part(NamedTuple):
    """Positions start .. stop - 1 of a text: one document, or all of it.  No window sees what is before its start."""

    start: int
    stop: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnStatement:
    """What `adaptation` of a model that offers `reveal` says.

    stretch: a window, a chunk of so many `targets`, or a document.  documents: windows and stretches stay inside
    documents, which begin with BOS; always so for stretches that are documents.  order: of the documents; `shortest`
    and `longest` first are queues, which the lengths of all documents decide.
    """

    stretch: Unit
    targets: int | None = None
    documents: bool = False
    order: Order = "stream"

    @classmethod
    def read(cls, stated: Any) -> "OwnStatement":
        """A script's own word, from JSON.

        Raises: InputError for anything but such a statement.
        """
        if not isinstance(stated, dict):
            kind = type(stated).__name__
            raise InputError(f"`adaptation` of a model with `reveal` is a {kind}, need a dict", hint=HINT)
        names = [field.name for field in fields(cls)]
        if unknown := [name for name in stated if name not in names]:
            raise InputError(f"`adaptation` states {unknown[0]!r:.40}, known are {', '.join(names)}", hint=HINT)
        for name, known in (("stretch", get_args(Unit)), ("order", get_args(Order))):
            value = stated.get(name, "stream" if name == "order" else None)
            if value not in known:
                raise InputError(f"`adaptation` states {name} {value!r:.40}, need {', '.join(known)}", hint=HINT)
        stretch, targets = stated["stretch"], stated.get("targets")
        if stretch == "chunk" and not (type(targets) is int and targets > 0):
            raise InputError(f"`adaptation` states chunks of {targets!r:.40} targets, need 1 or more", hint=HINT)
        if stretch != "chunk" and targets is not None:
            raise InputError(f"`adaptation` states targets of a {stretch}, only chunks have so many", hint=HINT)
        documents = stated.get("documents", stretch == "document")
        if type(documents) is not bool or (stretch == "document" and not documents):
            raise InputError(f"`adaptation` states documents {documents!r:.40} with stretch {stretch}", hint=HINT)
        if stated.get("order", "stream") != "stream" and not documents:
            raise InputError(f"`adaptation` states the order {stated['order']}, which is one of documents", hint=HINT)
        return cls(**{**stated, "documents": documents})

    @property
    def queue(self) -> bool:
        """Whether the order needs the lengths of documents that nobody has read yet."""
        return self.order != "stream"

    def to_dict(self) -> dict[str, Any]:
        """For JSON; `read` takes it."""
        return asdict(self)

    def __str__(self) -> str:
        unit = f"chunks of {self.targets:,} targets" if self.targets else f"{self.stretch}s"
        inside = " inside documents" * (self.documents and self.stretch != "document")
        return f"{unit}{inside}, {f'{self.order} document first' if self.queue else 'in the order of the text'}"

    def parts(self, tokens: np.ndarray) -> list[Part]:
        """The parts of a text, integers (n + 1,), in the order in which they are scored."""
        targets = len(tokens) - 1
        if not self.documents:
            return [Part(0, targets)]
        starts = np.union1d([0], np.flatnonzero(np.asarray(tokens[:-1]) == BOS))
        ends = np.append(starts[1:], targets)
        lengths = {"stream": starts, "shortest": ends - starts, "longest": starts - ends}[self.order]
        return [Part(int(starts[at]), int(ends[at])) for at in np.argsort(lengths, kind="stable")]

    def stretches(self, targets: int, length: int, stride: int) -> Iterator[Stretch]:
        """Those of a part of so many targets.  length, stride: of the windows, in tokens.

        A chunk that is shorter than a window is all that one window scores, from the first window on.  So is a stride
        inside documents.
        """
        step = min(stride, self.targets or stride)
        short = self.documents or (self.targets or length) < length
        windows, reach = (growing if short else plan)(targets, length, step), step if self.documents else 0
        if self.stretch == "chunk" and self.targets:
            for number, some in enumerate(by_chunk(windows, targets, self.targets)):
                yield Stretch(number * self.targets, min((number + 1) * self.targets, targets), some, reach)
        elif self.stretch == "window":
            yield from (Stretch(each.first_scored, each.stop, [each], reach) for each in windows)
        else:
            yield Stretch(0, targets, windows, reach)


def growing(targets: int, length: int, stride: int) -> list[Window]:
    """Windows that score `stride` positions each, the first ones too: they grow up to `length` and slide then."""
    return [
        Window(max(first + stride - length, 0), min(first + stride, targets), first)
        for first in range(0, targets, stride)
    ]
