"""Interpolation along one axis, as taps: which elements an output reads, and how much of each.

Read the other way round, an element is read by a run of outputs, since the elements that outputs
read lie in order. So the adjoint is a list of taps as well, and nothing is written twice.
"""

import functools
from typing import Any, NamedTuple

import numpy as np

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.ops.broadcast import as_axis

# The curvature of the cubic, as PyTorch and OpenCV have it.
_CUBIC_A = -0.75


class Resampling(NamedTuple):
    """How an axis of ``length`` elements becomes one of ``outputs``: plain values only.

    ``ratio`` is the distance of two outputs in elements. ``kind`` is "nearest", "nearest-exact",
    "linear" or "cubic"; ``is_aligned`` lets the first and last outputs fall on the end elements.
    """

    length: int
    outputs: int
    ratio: float
    kind: str
    is_aligned: bool


class Tap(NamedTuple):
    """What every result reads along an axis: the element, its weight, and whether there is one.

    Vectors, one entry a result; None is a weight of 1, or one that is there for all.
    """

    place: Array
    weight: Array | None
    is_there: Array | None


def interpolate_axis(x: Array, axis: int, how: Resampling) -> Array:
    """Interpolate along an axis counted from the end; a copy's worth of memory per tap is in use.

    Parameters
    ----------
    x : array of float
        At least float32.
    axis : int
        Below 0.
    how : Resampling
        Length, outputs and kind.

    Returns
    -------
    array
    """
    return _gather(x, axis, _taps(get_array_module(x), how, x.dtype))


def interpolate_axis_back(grad: Array, axis: int, how: Resampling) -> Array:
    """Return the adjoint of `interpolate_axis`: sums over the outputs that read an element.

    Parameters
    ----------
    grad : array of float
        At least float32.
    axis : int
        Below 0.
    how : Resampling
        As for `interpolate_axis`.

    Returns
    -------
    array
    """
    xp = get_array_module(grad)
    taps = _taps(xp, how, grad.dtype)
    first, last = _readers(xp, taps, how.length)
    elements, turned = xp.arange(how.length), []
    for step in range(_longest_run(how, grad.dtype)):
        output = xp.minimum(first + step, how.outputs - 1)
        weight = None if len(taps) == 1 else _weight_of(elements, output, taps)
        turned.append(Tap(output, weight, first + step < last))
    return _gather(grad, axis, turned)


def _gather(x: Array, axis: int, taps: list[Tap]) -> Array:
    xp = get_array_module(x)
    total: Any = None
    for place, weight, is_there in taps:
        part = xp.take(x, place, axis=axis)
        if weight is not None:
            part *= as_axis(weight, axis)
        if is_there is not None:  # a weight of 0 would make NaN of what is infinite elsewhere
            part = xp.where(as_axis(is_there, axis), part, 0)
        if total is None:
            total = part
        else:
            total += part
    return total


def _taps(xp: Any, how: Resampling, dtype: Any) -> list[Tap]:
    """Return the taps of the outputs; along the list and along each, places do not fall."""
    source = _sources(xp, how, dtype)
    # PyTorch rounds float64 sources to float32 as well before it takes the floor.
    place = xp.floor(source.astype(np.float32)).astype(np.int64)
    place = xp.minimum(place, how.length - 1)
    if how.kind.startswith("nearest"):
        return [Tap(place, None, None)]
    t = xp.clip(source - place.astype(dtype), 0, 1)
    if how.kind == "linear":
        return [Tap(place, 1 - t, None), Tap(xp.minimum(place + 1, how.length - 1), t, None)]
    weights = (_far(1 + t), _near(t), _near(1 - t), _far(2 - t))
    return [
        Tap(xp.clip(place + shift, 0, how.length - 1), weight, None)
        for shift, weight in enumerate(weights, start=-1)
    ]


def _sources(xp: Any, how: Resampling, dtype: Any) -> Array:
    """Return where in the input the outputs lie, in elements."""
    # The ratio is rounded to the dtype, what follows only at its end: as a fused multiply-add does.
    number, ratio = xp.arange(how.outputs, dtype=np.float64), float(dtype.type(how.ratio))
    if how.is_aligned or how.kind == "nearest":
        return (number * ratio).astype(dtype)
    source = ((number + 0.5) * ratio - 0.5).astype(dtype)
    if how.kind == "cubic":
        return source
    source = xp.maximum(source, 0)
    return source + 0.5 if how.kind == "nearest-exact" else source


def _near(t: Array) -> Array:
    return ((_CUBIC_A + 2) * t - (_CUBIC_A + 3)) * t * t + 1


def _far(t: Array) -> Array:
    return ((_CUBIC_A * t - 5 * _CUBIC_A) * t + 8 * _CUBIC_A) * t - 4 * _CUBIC_A


def _readers(xp: Any, taps: list[Tap], length: int) -> tuple[Array, Array]:
    """Return for every element the first output that reads it, and the one after the last."""
    elements = xp.arange(length)
    return (
        xp.searchsorted(taps[-1].place, elements, side="left"),
        xp.searchsorted(taps[0].place, elements, side="right"),
    )


def _weight_of(elements: Array, output: Array, taps: list[Tap]) -> Array:
    """Return the weight that each output gives to an element: clamped taps meet in one."""
    xp = get_array_module(elements)
    parts = [
        xp.where(xp.take(place, output) == elements, xp.take(weight, output), 0)
        for place, weight, _ in taps
    ]
    return sum(parts[1:], parts[0])


@functools.lru_cache(maxsize=256)
def _longest_run(how: Resampling, dtype: Any) -> int:
    """Return the most outputs that read one element, from plain sizes: nothing is downloaded."""
    first, last = _readers(np, _taps(np, how, dtype), how.length)
    return int((last - first).max())
