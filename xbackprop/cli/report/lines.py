"""Charts of lines as SVG, coloured by the page's style."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from xbackprop.cli.report.axes import Axis, make_axis
from xbackprop.cli.report.html import number_text

_MOST_POINTS = 400  # of a line; no screen shows more
Point = tuple[float, float | None]
Ticks = Sequence[tuple[float, str]]


@dataclass(frozen=True)
class Line:
    """Numbers over updates or epochs.

    Attributes
    ----------
    name : str
        What they are.
    kind : str
        Class of the style: ``value``, ``gradient`` or ``new``.
    points : list of tuple
        Pairs of x and a finite y; a y of None is a gap.
    """

    name: str
    kind: str
    points: list[Point]


@dataclass(frozen=True)
class Frame:
    """The rectangle between the axes.

    Attributes
    ----------
    width, height : float
        Of the whole picture.
    left, right, top, bottom : float
        Of the rectangle.
    """

    width: float
    height: float
    left: float
    right: float
    top: float
    bottom: float


LARGE = Frame(380, 220, 50, 314, 10, 186)
SMALL = Frame(300, 150, 46, 282, 8, 122)


def line_chart(
    lines: Sequence[Line],
    label: str,
    *,
    across: str,
    frame: Frame = LARGE,
    log: bool | None = None,
    guide: float | None = None,
) -> str:
    """Return a chart.

    Parameters
    ----------
    lines : sequence of Line
        What it shows.
    label : str
        For who cannot see it.
    across : str
        What x counts.
    frame : Frame
        Its size.
    log : bool, optional
        As for :func:`xbackprop.cli.report.axes.make_axis`.
    guide : float, optional
        A number with a dotted line of its own.

    Returns
    -------
    str
    """
    shown = [Line(line.name, line.kind, thin(line.points)) for line in lines]
    xs = [x for line in shown for x, _ in line.points]
    ys = [y for line in shown for _, y in line.points if y is not None]
    x_axis = make_axis(xs, frame.left, frame.right, log=False)
    y_axis = make_axis([*ys, *([] if guide is None else [guide])], frame.bottom, frame.top, log=log)
    most = (5, 5) if frame is LARGE else (4, 4)
    parts = [*draw_axes(frame, x_axis.ticks(most[0], whole=True), y_axis.ticks(most[1]), across)]
    if guide is not None:
        y = y_axis.place(guide)
        parts.append(f'<path class="guide" d="M{frame.left:g} {y:.1f}H{frame.right:g}"/>')
    for line in shown:
        parts += _draw_line(line, x_axis, y_axis)
    if frame is LARGE:
        parts += _end_labels(shown, frame, x_axis, y_axis)
    return svg(frame, label, parts)


def svg(frame: Frame, label: str, parts: Sequence[str]) -> str:
    """Return a picture of a frame's size."""
    return "\n".join(
        [
            f'<svg class="chart" viewBox="0 0 {frame.width:g} {frame.height:g}" role="img" '
            f'aria-label="{escape(label)}">',
            *parts,
            "</svg>",
        ]
    )


def draw_axes(frame: Frame, x_ticks: Ticks, y_ticks: Ticks, across: str) -> Iterator[str]:
    """Yield the grid, the numbers at it, and what x counts."""
    for y, text in y_ticks:
        yield f'<path class="grid" d="M{frame.left:g} {y:.1f}H{frame.right:g}"/>'
        yield f'<text x="{frame.left - 6:g}" y="{y + 4:.1f}" text-anchor="end">{text}</text>'
    yield f'<path class="axis" d="M{frame.left:g} {frame.bottom:g}H{frame.right:g}"/>'
    for x, text in x_ticks:
        yield (f'<text x="{x:.1f}" y="{frame.bottom + 15:g}" text-anchor="middle">{text}</text>')
    yield (
        f'<text class="faint" x="{(frame.left + frame.right) / 2:g}" y="{frame.height - 3:g}" '
        f'text-anchor="middle">{escape(across)}</text>'
    )


def thin(points: Sequence[Point]) -> list[Point]:
    """Return at most 400 points: of each stretch the smallest and the largest, in their order."""
    if len(points) <= _MOST_POINTS:
        return list(points)
    kept: list[Point] = []
    stretches = _MOST_POINTS // 2
    for number in range(stretches):
        start, end = (n * len(points) // stretches for n in (number, number + 1))
        part = range(start, end)
        heights = {place: y for place in part if (y := points[place][1]) is not None}
        extremes = {start}  # a gap
        if heights:
            extremes = {pick(heights, key=heights.__getitem__) for pick in (min, max)}
        kept += [points[place] for place in sorted(extremes)]
    if kept[-1] != points[-1]:
        kept.append(points[-1])
    return kept


def _draw_line(line: Line, x_axis: Axis, y_axis: Axis) -> Iterator[str]:
    stretch: list[str] = []
    for x, y in [*line.points, (0.0, None)]:
        if y is not None and (y > 0 or not y_axis.is_log):
            stretch.append(f"{x_axis.place(x):.1f} {y_axis.place(y):.1f}")
            continue
        if len(stretch) == 1:  # a line of one point cannot be seen
            x_place, y_place = stretch[0].split()
            yield f'<circle class="dot {line.kind}" cx="{x_place}" cy="{y_place}" r="3"/>'
        elif stretch:
            yield f'<path class="line {line.kind}" d="M{"L".join(stretch)}"/>'
        stretch = []


def _end_labels(lines: Sequence[Line], frame: Frame, x_axis: Axis, y_axis: Axis) -> Iterator[str]:
    """Yield the last number of each line, apart from each other."""
    ends = []
    for line in lines:
        x, y = line.points[-1] if line.points else (0.0, None)
        if y is not None and (y > 0 or not y_axis.is_log):
            ends.append((y_axis.place(y), x_axis.place(x), line, y))
    below = -math.inf
    for place, x, line, value in sorted(ends, key=lambda end: end[0]):
        below = max(place + 4, below + 13)
        yield f'<circle class="dot {line.kind}" cx="{x:.1f}" cy="{place:.1f}" r="3"/>'
        yield (
            f'<text class="end {line.kind}" x="{frame.right + 8:g}" y="{below:.1f}">'
            f"{number_text(value, 4 if abs(value) >= 1e-3 else 3)}</text>"
        )
