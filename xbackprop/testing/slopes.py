"""How far a gradient is from central differences: measured, and the first wrong element found."""

from dataclasses import dataclass

import numpy as np

from xbackprop.testing.repeatable import RepeatableCall, Subject, unit_direction

# Shorter steps pass by a kink that a longer one crosses, and a large third derivative matters less
# (of a normalization over few values); a wrong gradient is wrong at all of them.
STEPS = (1e-5, 1e-6, 1e-7, 1e-8)
_SHORTEST = 1e-9  # where the gradient is so large that rounding does not matter
TOLERANCE = 1e-5
_GOOD = 1e-7  # no need for a shorter step
_SMALL = 1e-2  # of the largest element: what smaller ones are compared with


@dataclass(frozen=True)
class Deviation:
    """What comparing one array's gradient gave.

    Attributes
    ----------
    subject : str
        The input or parameter.
    worst : float
        The largest relative error: beside the larger of both numbers, beside a hundredth of the
        array's largest where both are smaller, or beside what rounding drowns.
    place : str or None
        The first element that is wrong; None where all are right.
    expected, received : float
        There: by central differences, and by ``backward``.
    kinks : int
        Elements left out, since the function has no derivative there.
    """

    subject: str
    worst: float
    place: str | None = None
    expected: float = 0.0
    received: float = 0.0
    kinks: int = 0


class Measurement:
    """Compares the gradients of one call.

    Parameters
    ----------
    call : RepeatableCall
        The function.
    max_elements : int
        Up to this size each element of an array is moved on its own; a larger array is moved along
        random directions.
    directions : int
        How many of them.
    """

    def __init__(self, call: RepeatableCall, max_elements: int, directions: int) -> None:
        self._call = call
        self._max_elements = max_elements
        self._directions = directions

    def compare(self, subject: Subject, gradient: np.ndarray | None) -> Deviation:
        """Compare the gradient of one array; None for one that backward did not give."""
        if gradient is None:
            gradient = np.zeros(subject.values.shape)
        try:
            if subject.values.size <= self._max_elements:
                return self._each_element(subject, gradient)
            return self._along_directions(subject, gradient)
        finally:
            subject.put(subject.values)

    def _each_element(self, subject: Subject, gradient: np.ndarray) -> Deviation:
        slopes = {
            index: self._slope(subject, unit_direction(subject.values, index), STEPS[0])
            for index in np.ndindex(gradient.shape)
        }
        scale = max(
            [abs(float(slope)) for slope in (*slopes.values(), *gradient.flat)], default=0.0
        )
        worst, first, kinks = 0.0, None, 0
        for index in np.ndindex(gradient.shape):
            unit = unit_direction(subject.values, index)
            received = float(gradient[index])
            length = float(unit[index])
            slope, relative = self._best(subject, unit, slopes[index], received * length, scale)
            if relative > TOLERANCE and self._is_kink(subject, unit, received * length):
                kinks += 1
                continue
            worst = max(worst, relative)
            if relative > TOLERANCE and first is None:
                first = (_place(index), slope / length, received)
        place, expected, received = first or (None, 0.0, 0.0)
        return Deviation(subject.name, worst, place, expected, received, kinks)

    def _along_directions(self, subject: Subject, gradient: np.ndarray) -> Deviation:
        worst, kinks = 0.0, 0
        for _ in range(self._directions):
            direction = self._call.rng.choice([-1.0, 1.0], size=gradient.shape)
            _, relative = self._compared(subject, gradient, direction)
            if relative <= TOLERANCE:
                worst = max(worst, relative)
                continue
            if self._is_kink(subject, direction, float(np.vdot(gradient, direction))):
                kinks += 1
                continue
            place, expected, received = self._first_wrong(subject, gradient, direction)
            return Deviation(subject.name, relative, place, expected, received, kinks)
        return Deviation(subject.name, worst, kinks=kinks)

    def _first_wrong(
        self, subject: Subject, gradient: np.ndarray, direction: np.ndarray
    ) -> tuple[str, float, float]:
        """Halve the elements that are moved, until the first wrong one is left."""
        low, high = 0, gradient.size
        while high - low > 1:
            middle = (low + high) // 2
            first_half = _between(direction, low, middle)
            _, relative = self._compared(subject, gradient, first_half)
            low, high = (low, middle) if relative > TOLERANCE else (middle, high)
        index = tuple(int(place) for place in np.unravel_index(low, gradient.shape))
        unit = _between(direction, low, high)
        slope, _ = self._compared(subject, gradient, unit)
        return _place(index), slope / float(direction[index]), float(gradient[index])

    def _compared(
        self, subject: Subject, gradient: np.ndarray, direction: np.ndarray
    ) -> tuple[float, float]:
        received = float(np.vdot(gradient, direction))
        # Along a direction the terms may cancel, their rounding errors do not.
        scale = float(np.linalg.norm(gradient * direction))
        return self._best(
            subject, direction, self._slope(subject, direction, STEPS[0]), received, scale
        )

    def _best(
        self, subject: Subject, direction: np.ndarray, slope: float, received: float, scale: float
    ) -> tuple[float, float]:
        """Return a slope and its relative error, with a shorter step while it is too large."""
        slopes = [slope]
        relative = self._relative(slope, received, scale, STEPS[0])
        is_steep = self._rounding(_SHORTEST) < TOLERANCE * abs(received)
        for step in (*STEPS[1:], *([_SHORTEST] if is_steep else [])):
            if relative <= _GOOD:
                return slopes[-1], relative
            slopes.append(self._slope(subject, direction, step))
            # Richardson: the error of a difference is that of a step ten times as long, by 100.
            extrapolated = (100 * slopes[-1] - slopes[-2]) / 99
            for candidate in (slopes[-1], extrapolated):
                relative = min(relative, self._relative(candidate, received, scale, step))
        return slopes[1], relative  # where curvature and rounding both are small

    def _relative(self, slope: float, received: float, scale: float, step: float) -> float:
        error = float(abs(slope - received))
        if not np.isfinite(error):
            return float("inf")
        if error == 0:
            return 0.0
        noise = self._rounding(step) / TOLERANCE  # what rounding alone makes counts as tolerable
        return error / max(abs(slope), abs(received), _SMALL * scale, noise)

    def _rounding(self, step: float) -> float:
        return 8 * float(np.finfo(np.float64).eps) * self._call.terms / step

    def _slope(self, subject: Subject, direction: np.ndarray, step: float) -> float:
        ahead = self._value_at(subject, step * direction)
        behind = self._value_at(subject, -step * direction)
        return (ahead - behind) / (2 * step)

    def _value_at(self, subject: Subject, change: np.ndarray) -> float:
        subject.put(subject.values + change)
        return self._call.value()

    def _is_kink(self, subject: Subject, direction: np.ndarray, received: float) -> bool:
        """Tell whether the slopes of the two sides stay apart, with the gradient among them."""
        gaps, bounds = [], (0.0, 0.0)
        for step in (STEPS[0], STEPS[-1]):
            here = self._value_at(subject, 0 * direction)
            behind = (here - self._value_at(subject, -step * direction)) / step
            ahead = (self._value_at(subject, step * direction) - here) / step
            gaps.append(abs(ahead - behind))
            bounds = (min(ahead, behind), max(ahead, behind))
        slack = 2 * self._rounding(STEPS[-1]) + TOLERANCE * max(map(abs, bounds))
        is_rough = gaps[1] > slack and gaps[1] > 0.3 * gaps[0]
        return is_rough and bounds[0] - slack <= received <= bounds[1] + slack


def _between(direction: np.ndarray, low: int, high: int) -> np.ndarray:
    part = np.zeros(direction.size)
    part[low:high] = direction.reshape(-1)[low:high]
    return part.reshape(direction.shape)


def _place(index: tuple[int, ...]) -> str:
    return f"[{', '.join(str(number) for number in index)}]" if index else "[]"
