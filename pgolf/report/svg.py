"""Pictures as text: elements, axes and labels of SVG, everything that is quoted escaped.

Colours are classes of the page's style sheet, so that one picture serves the light page and the dark one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

CHARACTER = 7.3  # pixels that a character of 12-pixel text takes in wide fonts, on average; 6.4 in others
BOLD = 8.3


@dataclass(frozen=True, slots=True)
class Drawing:
    """An SVG element and its width in pixels, which may be more than was asked for: the page then lets it scroll."""

    svg: str
    width: float


def node(tag: str, *content: str, **attributes: object) -> str:
    """An element.  content: markup.  attributes: escaped; `class_` is class, stroke_width stroke-width."""
    words = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(_value(value))}"' for name, value in attributes.items()
    )
    return f"<{tag}{words}>{''.join(content)}</{tag}>" if content else f"<{tag}{words}/>"


def picture(width: float, height: float, label: str, *content: str) -> Drawing:
    """The whole picture.  label: what it shows, for those who do not see it."""
    box = f"0 0 {_value(width)} {_value(height)}"
    svg = node("svg", *content, viewBox=box, width=width, height=height, role="img", aria_label=label)
    return Drawing(svg, width)


def rectangle(x: float, y: float, width: float, height: float, class_: str, title: str = "", **more: object) -> str:
    """title: what a mouse over it tells."""
    inside = [node("title", escape(title))] if title else []
    shape = {"x": x, "y": y, "width": max(width, 0.0), "height": max(height, 0.0)}
    return node("rect", *inside, **shape, class_=class_, **more)


def words(x: float, y: float, text: str, anchor: str = "start", class_: str = "") -> str:
    """A line of text, y its base line."""
    more = {"text_anchor": anchor} if anchor != "start" else {}
    return node("text", escape(text), x=x, y=y, **more, **({"class_": class_} if class_ else {}))


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> str:
    """A straight one."""
    return node("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def path(points: Sequence[tuple[float, float]], class_: str, title: str = "") -> str:
    """Straight from point to point.  title: as of a rectangle."""
    steps = " ".join(f"{'L' if place else 'M'}{_value(x)} {_value(y)}" for place, (x, y) in enumerate(points))
    return node("path", *([node("title", escape(title))] if title else []), d=steps, class_=class_)


def text_width(text: str, *, strong: bool = False) -> float:
    """About, in pixels."""
    return (BOLD if strong else CHARACTER) * len(text)


def shortened(text: str, width: float, *, strong: bool = False) -> str:
    """The end of a name, which tells tensors apart, as far as it fits; "" where not even three characters do."""
    room = int(width / (BOLD if strong else CHARACTER))
    if len(text) <= room:
        return text
    return f"…{text[-(room - 1) :]}" if room >= 4 else ""


@dataclass(frozen=True, slots=True)
class Axis:
    """Values low .. high to pixels start .. end.  logarithmic: of positive values."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def at(self, value: float) -> float:
        """The pixel of a value, which is kept inside."""
        low, high, value = (
            math.log(max(each, 1e-300)) if self.logarithmic else each for each in (self.low, self.high, value)
        )
        part = (value - low) / (high - low) if high > low else 0.5
        return self.start + (self.end - self.start) * min(max(part, 0.0), 1.0)

    def ticks(self, most: int) -> list[float]:
        """At most so many round values inside."""
        return decades(self.low, self.high, most) if self.logarithmic else round_values(self.low, self.high, most)


def round_values(low: float, high: float, most: int) -> list[float]:
    """As many multiples of 1, 2 or 5 times a power of ten as are allowed."""
    if not high > low:
        return [low]
    found: list[float] = []
    exponent = math.floor(math.log10((high - low) / max(most, 1)))
    for factor in (1, 2, 5, 10, 20, 50):
        step = factor * 10.0**exponent
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        found = [round(step * place, 12) for place in range(first, last + 1)]
        if len(found) <= most:
            break
    return found


def decades(low: float, high: float, most: int) -> list[float]:
    """Powers of ten, with twice and five times each where there is room for them."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for factors in ((1, 2, 5), (1, 3), (1,)):
        found = [factor * 10.0**exponent for exponent in range(first, last + 1) for factor in factors]
        found = [each for each in found if low <= each <= high]
        if len(found) <= most:
            return found
    return found[:: -(-len(found) // max(most, 1))]


def shown(value: float, step: float) -> str:
    """A tick's value, with the digits that its neighbour at a distance of `step` needs."""
    digits = max(0, -math.floor(math.log10(step) + 1e-9)) if step > 0 else 0
    return f"{value:,.{min(digits, 9)}f}"


def tick_labels(axis: Axis, most: int) -> list[tuple[float, str]]:
    """(pixel, text) of each tick."""
    ticks = axis.ticks(most)
    if axis.logarithmic:
        return [(axis.at(each), f"{each:.0e}".replace("e-0", "e-").replace("e+0", "e+")) for each in ticks]
    step = ticks[1] - ticks[0] if len(ticks) > 1 else (axis.high - axis.low) / 10 or 1.0
    return [(axis.at(each), shown(each, step)) for each in ticks]


def short_bytes(size: float) -> str:
    """`15.9 MB`, decimal."""
    for unit, name in ((1e6, "MB"), (1e3, "kB")):
        if size >= 0.9995 * unit:
            return f"{size / unit:.3g} {name}"
    return f"{size:.0f} B"


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.1f}".removesuffix(".0")
    return str(value)
