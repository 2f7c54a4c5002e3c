"""The figure as SVG: cards, labels, and two lines for every connection."""

import math
from collections.abc import Iterable, Iterator, Mapping
from html import escape

from xbackprop.observe.page.layout import FONT, SMALL, Label, Layout, Line

_APART = 2.0  # the forward line from the backward one, from the middle


def draw(layout: Layout, title: str, known: Mapping[str, int]) -> str:
    """Return the figure.

    Parameters
    ----------
    layout : Layout
        Its places.
    title : str
        What it shows, for who cannot see it.
    known : mapping
        From symbols to the number of the frame that computes them; others are given.

    Returns
    -------
    str
    """
    width, height = _number(layout.width), _number(layout.height)
    parts = [
        f'<svg class="network" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        # On a narrow screen it is scrolled rather than made illegible.
        f'style="min-width:{0.8 * layout.width:.0f}px;max-width:{1.2 * layout.width:.0f}px" '
        f'role="img" aria-label="{escape(title)}">',
        *_lines(layout.lines, known),
        *(
            f'<rect class="card" x="{_number(card.left)}" y="{_number(card.top)}" '
            f'width="{_number(card.width)}" height="{_number(card.height)}" rx="10"/>'
            for card in layout.cards
        ),
        *(_label(label, known) for label in layout.labels),
        "</svg>",
    ]
    return "\n".join(parts)


def thickness(number: float | None, largest: float) -> float:
    """Return how thick a line is drawn: between 0.7 and 5 by the number's size."""
    if number is None or math.isnan(number) or not largest:
        return 0.7
    return 0.7 + 4.3 * min(1.0, abs(number) / largest)


def _lines(lines: Iterable[Line], known: Mapping[str, int]) -> Iterator[str]:
    lines = list(lines)
    weights = [line for line in lines if line.symbol.startswith("w")]
    for kind, offset in (("value", -_APART), ("gradient", _APART)):
        largest = _largest(getattr(line, kind) for line in weights)
        for line in lines:
            number = getattr(line, kind)
            if number is None:
                continue
            (x, y), (to_x, to_y) = line.start, line.end
            bend = (to_x - x) * 0.45
            path = (
                f"M{_number(x)} {_number(y + offset)}"
                f"C{_number(x + bend)} {_number(y + offset)} {_number(to_x - bend)} "
                f"{_number(to_y + offset)} {_number(to_x)} {_number(to_y + offset)}"
            )
            # Outputs have no weight to the loss, so these lines are thin.
            wide = thickness(number if line in weights else None, largest)
            sign = " negative" if number < 0 else ""
            yield (
                f'<path class="line {kind}{sign}" {_marks(line.symbol, kind, known)} '
                f'stroke-width="{wide:.2f}" d="{path}"/>'
            )


def _largest(numbers: Iterable[float | None]) -> float:
    return max((abs(n) for n in numbers if n is not None and math.isfinite(n)), default=0.0)


def _label(label: Label, known: Mapping[str, int]) -> str:
    box = label.box
    is_name = label.kind == "name"
    anchor = "" if is_name else ' text-anchor="end"'
    index = ""
    if label.index:
        index = f'<tspan dy="3" font-size="{SMALL:g}">{escape(label.index)}</tspan>'
    number = "" if label.number is None else f' data-value="{label.number!r}"'
    return (
        f'<text class="{label.kind}" {_marks(label.symbol, label.kind, known)}{number} '
        f'x="{_number(box.left if is_name else box.right)}" '
        f'y="{_number(box.top + box.height / 2 + 0.35 * FONT)}" font-size="{FONT:g}"'
        f"{anchor}>{escape(label.text)}{index}</text>"
    )


def _marks(symbol: str, kind: str, known: Mapping[str, int]) -> str:
    """Return the attributes by which the page finds what a number belongs to."""
    quantity = {"gradient": f"dLoss/d{symbol}", "new": f"{symbol}_new"}.get(kind, symbol)
    since = "" if kind == "name" else f' data-since="{known.get(quantity, 0)}"'
    return f'data-symbol="{escape(quantity)}"{since}'


def _number(value: float) -> str:
    return f"{value:.1f}".rstrip("0").rstrip(".")
