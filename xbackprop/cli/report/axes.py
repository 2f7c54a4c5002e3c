"""Axes: from numbers to places, and the ticks between them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

_LOG_FROM = 20.0  # largest by smallest number, from which a linear axis shows a corner only


@dataclass(frozen=True)
class Axis:
    """One direction of a chart.

    Attributes
    ----------
    low, high : float
        The numbers at its ends; their logarithms where it is logarithmic.
    start, end : float
        Where these are in the picture.
    is_log : bool
        Whether it shows powers of ten at equal distances.
    """

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def place(self, value: float) -> float:
        """Return where a number is."""
        number = math.log10(value) if self.is_log else value
        share = (number - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self, most: int, *, whole: bool = False) -> list[tuple[float, str]]:
        """Return places and texts of at most about so many ticks; of whole numbers only on wish."""
        if self.is_log:
            return [(self.place(value), f"{value:g}") for value in self._log_steps(most)]
        values = _steps(self.low, self.high, most)
        if whole:
            return [(self.place(v), f"{round(v):,}") for v in values if v == round(v)]
        return [(self.place(value), f"{value:.6g}") for value in values]

    def _log_steps(self, most: int) -> list[float]:
        last = min(307, math.floor(self.high + 1e-9))  # what a float reaches
        powers = range(math.ceil(self.low - 1e-9), last + 1)
        if len(powers) > 1:
            stride = max(1, math.ceil(len(powers) / most))
            return [10.0**power for power in powers if power % stride == 0]
        around = range(math.floor(self.low), math.ceil(self.high))
        steps = [factor * 10.0**power for power in around for factor in (1, 2, 5)]
        return [step for step in steps if self.low <= math.log10(step) <= self.high]


def make_axis(
    values: Sequence[float], start: float, end: float, *, log: bool | None = None
) -> Axis:
    """Return an axis that has room for numbers.

    Parameters
    ----------
    values : sequence of float
        Finite ones.
    start, end : float
        Its ends in the picture.
    log : bool, optional
        Whether it is logarithmic; None leaves it to the numbers. Without positive ones it is not.

    Returns
    -------
    Axis
    """
    positive = [value for value in values if value > 0]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    is_log = bool(positive) and (low > 0 and high > _LOG_FROM * low if log is None else log)
    if is_log:
        low, high = math.log10(min(positive)), math.log10(max(positive))
        low, high = (math.floor(low), math.ceil(high)) if high - low < 1 else (low, high)
    if high - low <= 1e-9 * max(abs(high), abs(low), 1e-300):
        room = abs(high) * 0.1 or 1.0
        low, high = low - room, high + room
    elif start > end:  # upwards: numbers do not touch the frame
        room = 0.06 * (high - low)
        low, high = (0.0 if 0 <= low < room and not is_log else low - room), high + room
    return Axis(low, high, start, end, is_log)


def power_text(power: int) -> str:
    """Return a power of ten as one reads it."""
    return f"{10.0**power:g}" if -3 <= power <= 3 else f"1e{power}"


def _steps(low: float, high: float, most: int) -> list[float]:
    """Return round numbers between two."""
    raw = (high - low) / most
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]
