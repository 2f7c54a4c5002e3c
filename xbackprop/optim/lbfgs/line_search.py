"""A step length that satisfies the strong Wolfe conditions, decided on the host."""

import math
from collections.abc import Callable
from typing import NamedTuple

from xbackprop.backend.array_module import Array

SUFFICIENT_DECREASE = 1e-4
CURVATURE = 0.9


class Point(NamedTuple):
    """A point on the line: how far along, the loss, the gradient (flat), its slope on the line."""

    t: float
    loss: float
    grad: Array
    slope: float


def strong_wolfe(
    evaluate: Callable[[float], Point],
    start: Point,
    t: float,
    largest: float,
    *,
    max_evaluations: int,
    tolerance_change: float = 1e-9,
) -> tuple[Point, int]:
    """Find ``t`` with ``f(t) <= f(0) + c1 t f'(0)`` and ``|f'(t)| <= -c2 f'(0)``.

    Parameters
    ----------
    evaluate : callable
        Gives the point at a step length.
    start : Point
        At 0.
    t : float
        First step length to try.
    largest : float
        Largest element of the direction: an interval that moves no weight by more than
        ``tolerance_change`` is not divided further.
    max_evaluations : int
        After the first evaluation.
    tolerance_change : float, default 1e-9
        See ``largest``.

    Returns
    -------
    point : Point
        The best found.
    evaluations : int
        How many were made.

    References
    ----------
    Nocedal and Wright, "Numerical optimization", 2006, algorithms 3.5 and 3.6, as PyTorch has them.
    """

    def is_too_high(point: Point) -> bool:
        return point.loss > start.loss + SUFFICIENT_DECREASE * point.t * start.slope

    def is_flat(point: Point) -> bool:
        return abs(point.slope) <= -CURVATURE * start.slope

    earlier, point, done = start, evaluate(t), 0
    while done < max_evaluations:
        if is_too_high(point) or (done > 1 and point.loss >= earlier.loss):
            break
        if is_flat(point):
            return point, done + 1
        if point.slope >= 0:
            break
        bounds = point.t + 0.01 * (point.t - earlier.t), point.t * 10
        t = interpolate(earlier, point, bounds)
        earlier, point = point, evaluate(t)
        done += 1
    else:
        earlier = start
    bracket = [earlier, point]
    low, high = _order(bracket)
    has_stalled = False
    while done < max_evaluations and not _is_tiny(bracket, largest, tolerance_change):
        t, has_stalled = keep_inside(
            interpolate(bracket[0], bracket[1]), bracket, has_stalled=has_stalled
        )
        point = evaluate(t)
        done += 1
        if is_too_high(point) or point.loss >= bracket[low].loss:
            bracket[high] = point
            low, high = _order(bracket)
            continue
        if is_flat(point):
            return point, done + 1
        if point.slope * (bracket[high].t - bracket[low].t) >= 0:
            bracket[high] = bracket[low]
        bracket[low] = point
    return bracket[low], done + 1


def _order(bracket: list[Point]) -> tuple[int, int]:
    """Return which end is lower, and which is higher."""
    return (0, 1) if bracket[0].loss <= bracket[1].loss else (1, 0)


def _is_tiny(bracket: list[Point], largest: float, tolerance_change: float) -> bool:
    return abs(bracket[1].t - bracket[0].t) * largest < tolerance_change


def interpolate(first: Point, second: Point, bounds: tuple[float, float] | None = None) -> float:
    """Return the minimum of the cubic through both points' losses and slopes, within bounds."""
    lowest, highest = bounds or sorted((first.t, second.t))
    left, right = (first, second) if first.t <= second.t else (second, first)
    if left.t == right.t:
        return (lowest + highest) / 2.0
    d1 = first.slope + second.slope - 3 * (first.loss - second.loss) / (first.t - second.t)
    square = d1 * d1 - first.slope * second.slope
    if not square >= 0:
        return (lowest + highest) / 2.0
    d2 = math.sqrt(square)
    divisor = right.slope - left.slope + 2 * d2
    if divisor == 0:
        return (lowest + highest) / 2.0
    t = right.t - (right.t - left.t) * ((right.slope + d2 - d1) / divisor)
    return min(max(t, lowest), highest)


def keep_inside(t: float, bracket: list[Point], *, has_stalled: bool) -> tuple[float, bool]:
    """Move ``t`` a tenth of the bracket away from its ends, the second time it comes near one."""
    lowest, highest = sorted(point.t for point in bracket)
    margin = 0.1 * (highest - lowest)
    if not min(highest - t, t - lowest) < margin:
        return t, False
    if has_stalled or t >= highest or t <= lowest:
        is_high = abs(t - highest) < abs(t - lowest)
        return (highest - margin if is_high else lowest + margin), False
    return t, True
