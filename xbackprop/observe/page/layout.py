"""Where everything in the figure stands, computed so that no two labels can meet.

A unit is a card with its numbers; left of it stand the weights that lead to it, a row for each,
and the line from the unit before ends at its row. So lines cross between the columns only, where
there are no labels, and every row and column is as large as what it holds.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from xbackprop.observe.page.network import Row, Unit

FONT = 12.0
SMALL = 9.0  # of an index
ROW = 18.0
_GAP = 9.0  # between what stands beside each other
_PAD = 9.0  # within a card
_BETWEEN = 16.0  # units of a layer
_MARGIN = 10.0

# Shares of the font size, of DejaVu Sans Bold, which is wider than what browsers mostly take.
_WIDTHS = {".": 0.38, ",": 0.38, "−": 0.84, "∞": 0.84, "w": 0.93, "m": 1.05, "N": 0.84, "a": 0.68}
_OTHERS = 0.72  # digits are 0.70


@dataclass(frozen=True)
class Box:
    """A rectangle.

    Attributes
    ----------
    left, top, width, height : float
        In units of the figure.
    """

    left: float
    top: float
    width: float
    height: float

    @property
    def right(self) -> float:
        """The right side."""
        return self.left + self.width

    @property
    def bottom(self) -> float:
        """The lower side."""
        return self.top + self.height

    def meets(self, other: "Box") -> bool:
        """Tell whether the two overlap."""
        across = self.left < other.right and other.left < self.right
        return across and self.top < other.bottom and other.top < self.bottom


@dataclass(frozen=True)
class Label:
    """A text in the figure.

    Attributes
    ----------
    symbol : str
        The quantity whose number it is.
    kind : str
        ``name``, ``value``, ``gradient`` or ``new``.
    text, index : str
        What is written, and its index.
    number : float or None
        The whole number; None for a name.
    box : Box
        What it covers; numbers end at its right side, names start at its left.
    """

    symbol: str
    kind: str
    text: str
    index: str
    number: float | None
    box: Box


@dataclass(frozen=True)
class Line:
    """A connection.

    Attributes
    ----------
    symbol : str
        The weight; to the loss, the output.
    start, end : tuple of float
        Its points.
    value, gradient : float or None
        How thick it is drawn, forward and backward.
    """

    symbol: str
    start: tuple[float, float]
    end: tuple[float, float]
    value: float | None
    gradient: float | None


@dataclass
class Layout:
    """A figure.

    Attributes
    ----------
    width, height : float
        Of the whole.
    cards : list of Box
        Of units.
    labels : list of Label
        Texts.
    lines : list of Line
        Connections.
    """

    width: float = 0.0
    height: float = 0.0
    cards: list[Box] = field(default_factory=list)
    labels: list[Label] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)


def short(number: float) -> str:
    """Return a number in four significant digits, as it is printed."""
    mantissa, _, exponent = f"{number + 0.0:.4g}".partition("e")
    text = mantissa.replace("inf", "∞").replace("nan", "NaN")
    return (f"{text}e{int(exponent)}" if exponent else text).replace("-", "−")


def text_width(text: str, size: float = FONT) -> float:
    """Return an upper bound of a text's width."""
    return size * sum(_WIDTHS.get(letter, _OTHERS) for letter in text)


class _Table:
    """Rows of name, value, gradient and new value, below each other in columns."""

    def __init__(self, groups: Sequence[Sequence[Row]]) -> None:
        rows = [row for group in groups for row in group]
        self.widths = {
            "name": max((_name_width(row) for row in rows), default=0.0),
            **{
                kind: max(
                    (text_width(short(number)) for row in rows if (number := _of(row, kind))
                     is not None), default=0.0,
                )
                for kind in ("value", "gradient", "new")
            },
        }  # fmt: skip
        present = [width for width in self.widths.values() if width]
        self.width = sum(present) + _GAP * (len(present) - 1) if present else 0.0

    def place(self, rows: Sequence[Row], left: float, top: float) -> Iterator[Label]:
        """Return the labels of some rows, from a corner on."""
        for number, row in enumerate(rows):
            x = left
            for kind, width in self.widths.items():
                if not width:
                    continue
                text, index = row.name if kind == "name" else ("", "")
                value = None if kind == "name" else _of(row, kind)
                if kind == "name" or value is not None:
                    box = Box(x, top + number * ROW, width, ROW)
                    yield Label(
                        row.symbol, kind, text if value is None else short(value), index, value, box
                    )
                x += width + _GAP


def _of(row: Row, kind: str) -> float | None:
    number: float | None = getattr(row, kind)
    return number


def _name_width(row: Row) -> float:
    name, index = row.name
    return text_width(name) + text_width(index, SMALL)


def lay_out(columns: Sequence[Sequence[Unit]]) -> Layout:
    """Give every unit, weight and line its place.

    Parameters
    ----------
    columns : sequence of sequence of Unit
        From the inputs to the loss.

    Returns
    -------
    Layout
    """
    heights = [[_height(unit) for unit in units] for units in columns]
    totals = [sum(column) + _BETWEEN * (len(column) - 1) for column in heights]
    layout = Layout(height=max(totals) + 2 * _MARGIN)
    x = _MARGIN
    before: list[Box] = []
    for position, units in enumerate(columns):
        weights = _Table([unit.weights for unit in units])
        table = _Table([unit.rows for unit in units])
        if position:
            x += 48 + 8 * max(len(units), len(before))  # room for the lines' slopes
        y = _MARGIN + (max(totals) - totals[position]) / 2
        cards = []
        for unit, height in zip(units, heights[position], strict=True):
            middle = y + height / 2
            top = middle - len(unit.weights) * ROW / 2
            layout.labels += weights.place(unit.weights, x, top)
            layout.lines += _lines(unit, before, columns[position - 1], (x - 4, top, middle))
            left = x + (weights.width + _GAP + 4 if weights.width else 0)
            tall = len(unit.rows) * ROW + 2 * _PAD
            cards.append(Box(left, middle - tall / 2, table.width + 2 * _PAD, tall))
            layout.labels += table.place(unit.rows, left + _PAD, middle - tall / 2 + _PAD)
            y += height + _BETWEEN
        layout.cards += cards
        before, x = cards, cards[0].right
    layout.width = x + _MARGIN
    return layout


def _height(unit: Unit) -> float:
    return max(len(unit.weights) * ROW, len(unit.rows) * ROW + 2 * _PAD)


def _lines(
    unit: Unit, before: Sequence[Box], sources: Sequence[Unit], end: tuple[float, float, float]
) -> Iterator[Line]:
    """Return the lines that lead to a unit; to the loss, from each output."""
    x, top, middle = end
    if unit.weights:
        for number, row in enumerate(unit.weights):
            if row.source is not None:
                start = _exit(before[row.source - 1])
                yield Line(
                    row.symbol, start, (x, top + (number + 0.5) * ROW), row.value, row.gradient
                )
        return
    for card, source in zip(before, sources, strict=bool(before)):
        output = source.rows[-1]
        yield Line(output.symbol, _exit(card), (x, middle), output.value, output.gradient)


def _exit(card: Box) -> tuple[float, float]:
    return card.right, card.top + card.height / 2
