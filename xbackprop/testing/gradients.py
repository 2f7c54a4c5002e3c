"""Gradients compared with central differences."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from xbackprop.initializers import RandomSource, as_generator
from xbackprop.module import Module
from xbackprop.testing.repeatable import RepeatableCall, Subject, unit_direction
from xbackprop.testing.tolerances import TOLERANCES

_DIFFERENCES = TOLERANCES["float64"].differences


def check_gradients(
    module: Module,
    *inputs: Any,
    eps: float = 1e-5,
    atol: float = _DIFFERENCES,
    rtol: float = _DIFFERENCES,
    rng: RandomSource = 0,
    max_elements: int = 200,
    directions: int = 3,
    options: Mapping[str, Any] | None = None,
) -> None:
    """Compare ``backward`` with central differences, ``(f(x + eps) - f(x - eps)) / (2 eps)``.

    Every float input and every parameter is checked apart from the others, in float64, on the
    device where it lives. ``f`` is the sum of the output's elements times random factors, so that
    errors cannot cancel by symmetry. The module itself stays as it is: a copy does the work.

    Parameters
    ----------
    module : Module
        With float64 parameters, or none.
    *inputs : array
        What ``forward`` takes; float inputs of dtype float64. Integer inputs are passed on.
    eps : float, default 1e-5
        Step of the differences, for values of magnitude one; larger values get larger steps.
    atol, rtol : float
        Allowed difference, absolute and relative to the gradient. What differences of a large
        ``f`` lose to rounding is allowed on top.
    rng : Generator, int or None
        Draws factors and directions.
    max_elements : int, default 200
        Up to this size every element is moved on its own; a larger array is moved along random
        directions.
    directions : int, default 3
        How many of them.
    options : mapping, optional
        Keyword arguments of ``forward``.

    Raises
    ------
    AssertionError
        For a wrong gradient: names the input or parameter, the index, and both numbers. Also when
        ``f`` has a kink there, which no gradient describes.
    TypeError
        For float32 arrays: their differences are rounding noise.

    Examples
    --------
    >>> import numpy as np
    >>> import xbackprop as xb
    >>> layer = xb.nn.Linear(3, 2, dtype=np.float64, device="cpu")
    >>> xb.testing.check_gradients(layer, np.ones((4, 3)))
    """
    call = RepeatableCall(
        copy.deepcopy(module), list(inputs), dict(options or {}), as_generator(rng)
    )
    comparison = _Comparison(call, eps, atol, rtol, max_elements, directions)
    gradients = call.gradients()
    for subject, gradient in gradients:
        comparison.check(subject, gradient)


@dataclass
class _Comparison:
    """Moves one array at a time and compares the slope of ``f`` with the gradient."""

    call: RepeatableCall
    eps: float
    atol: float
    rtol: float
    max_elements: int
    directions: int

    def check(self, subject: Subject, gradient: np.ndarray | None) -> None:
        """Compare the gradient of one array; put its values back at the end."""
        if subject.frozen:
            if gradient is not None:
                raise AssertionError(
                    f"{self.call.layer}: {subject.name} is frozen (requires_grad=False) and "
                    "received a gradient"
                )
            return
        if gradient is not None and gradient.shape != subject.values.shape:
            raise AssertionError(
                f"{self.call.layer}: the gradient of {subject.name} has shape {gradient.shape}; "
                f"expected {subject.values.shape}"
            )
        try:
            if subject.values.size <= self.max_elements:
                self._check_elements(subject, gradient)
            else:
                self._check_directions(subject, gradient)
        finally:
            subject.put(subject.values)

    def _check_elements(self, subject: Subject, gradient: np.ndarray | None) -> None:
        expected = np.empty(subject.values.shape)
        for index in np.ndindex(subject.values.shape):
            direction = unit_direction(subject.values, index)
            expected[index] = self._slope(subject, direction) / direction[index]
        received = np.zeros(expected.shape) if gradient is None else gradient
        magnitude = np.maximum(np.abs(expected), np.abs(received))
        allowed = self.atol + self.rtol * magnitude + self._rounding()
        error = np.abs(received - expected)
        wrong = ~(error <= allowed)  # NaN is wrong too
        if not wrong.any():
            return
        worst = np.unravel_index(np.argmax(np.where(np.isnan(error), np.inf, error)), error.shape)
        direction = unit_direction(subject.values, worst)
        place = f"[{', '.join(str(number) for number in worst)}]" if worst else "its only element"
        self._explain_roughness(subject, direction, place)
        told = "no gradient at all" if gradient is None else f"{received[worst]:.10g}"
        raise AssertionError(
            f"{self.call.layer} on {self.call.device}: wrong gradient of {subject.name} in "
            f"{np.count_nonzero(wrong)} of {wrong.size} elements. At {place}: expected "
            f"{expected[worst]:.10g} (central differences), received {told} (backward); "
            f"allowed difference {allowed[worst]:.1e}.{_hint(received, expected)}"
        )

    def _check_directions(self, subject: Subject, gradient: np.ndarray | None) -> None:
        for _ in range(self.directions):
            direction = self.call.rng.choice([-1.0, 1.0], size=subject.values.shape)
            expected = self._slope(subject, direction)
            received = 0.0 if gradient is None else float(np.vdot(gradient, direction))
            # Along a direction the terms may cancel, their rounding errors do not.
            size = 0.0 if gradient is None else float(np.linalg.norm(gradient))
            allowed = self.atol + self.rtol * max(abs(expected), size) + self._rounding()
            if abs(received - expected) <= allowed:
                continue
            self._explain_roughness(subject, direction, "along a random direction")
            told = "no gradient at all" if gradient is None else f"{received:.10g}"
            raise AssertionError(
                f"{self.call.layer} on {self.call.device}: wrong gradient of {subject.name} along "
                f"a random direction: expected {expected:.10g} (central differences), received "
                f"{told} (backward); allowed difference {allowed:.1e}."
                f"{_hint(np.asarray(received), np.asarray(expected))}"
            )

    def _slope(self, subject: Subject, direction: np.ndarray) -> float:
        ahead = self._value_at(subject, self.eps * direction)
        behind = self._value_at(subject, -self.eps * direction)
        return (ahead - behind) / (2 * self.eps)

    def _value_at(self, subject: Subject, step: np.ndarray) -> float:
        subject.put(subject.values + step)
        return self.call.value()

    def _explain_roughness(self, subject: Subject, direction: np.ndarray, place: str) -> None:
        """Say so where ``f`` has a kink or a jump: the slopes of its two sides stay apart."""
        sides = []
        for step in (self.eps, self.eps / 10):
            here = self._value_at(subject, 0 * direction)
            ahead = self._value_at(subject, step * direction)
            behind = self._value_at(subject, -step * direction)
            sides.append(((here - behind) / step, (ahead - here) / step))
        (left, right), (left_close, right_close) = sides
        gap, gap_close = abs(right - left), abs(right_close - left_close)
        slopes = max(abs(left), abs(right))
        if max(gap, gap_close) <= max(10 * self.atol, 1e-3 * slopes, 100 * self._rounding()):
            return
        # A smooth function's gap shrinks with the step, tenfold. At a kink it stays; beside one,
        # it is gone as soon as the step is shorter than the way there.
        if 0.03 * gap < gap_close < 0.3 * gap:
            return
        rough = "jumps" if gap_close > 3 * gap else "has a kink"
        raise AssertionError(
            f"{self.call.layer}: the function {rough} at {subject.name}, {place}: its slope is "
            f"{left:.6g} on one side and {right:.6g} on the other, so there is no gradient to "
            "compare with. Move that input away from there."
        )

    def _rounding(self) -> float:
        """Return what the differences of ``f`` lose to rounding, however right the gradient."""
        return 8 * float(np.finfo(np.float64).eps) * abs(self.call.base) / self.eps


def _hint(received: np.ndarray, expected: np.ndarray) -> str:
    """Name the commonest mistakes, where all elements agree on one factor."""
    largest = np.abs(expected).max(initial=0.0)
    used = np.abs(expected) > 1e-6 * largest
    if not used.any() or np.abs(received[~used]).max(initial=0.0) > 1e-6 * largest:
        return ""
    factors = received[used] / expected[used]
    factor = float(factors.flat[0])
    if factor == 0 or not np.all(np.abs(factors - factor) <= 1e-4 * abs(factor)):
        return ""
    if abs(factor + 1) < 1e-4:
        return " The sign is wrong."
    return f" Every element is {factor:.4g} times what it should be."


__all__ = ["check_gradients"]
