"""How a new value enters a running average."""

import functools
from collections.abc import Callable, Sequence

import numpy as np

from xbackprop.backend.array_module import Array

AverageFunction = Callable[[Array, Array, Array], Array]
MultiAverageFunction = Callable[[Sequence[Array], Sequence[Array], Array], None]


def exponential_average(
    averaged: Array, current: Array, num_averaged: Array, *, decay: float
) -> Array:
    """Compute ``decay * averaged + (1 - decay) * current``."""
    return as_float(averaged) * decay + as_float(current) * (1 - decay)


def equal_average(averaged: Array, current: Array, num_averaged: Array) -> Array:
    """Compute ``averaged + (current - averaged) / (num_averaged + 1)``."""
    averaged = as_float(averaged)
    return averaged + (as_float(current) - averaged) / (num_averaged + 1).astype(averaged.dtype)


def as_float(array: Array) -> Array:
    """Return whole numbers (a count of batches) as float32, in which PyTorch averages them."""
    return array if array.dtype.kind == "f" else array.astype(np.float32)


def average_all(
    averaged: Sequence[Array],
    current: Sequence[Array],
    num_averaged: Array,
    *,
    average: AverageFunction,
) -> None:
    """Write the average of each pair into the first of it."""
    for target, value in zip(averaged, current, strict=True):
        target[...] = average(target, value, num_averaged).astype(target.dtype)


def get_ema_avg_fn(decay: float = 0.999) -> AverageFunction:
    """Return the exponential moving average ``decay * averaged + (1 - decay) * current``.

    Parameters
    ----------
    decay : float, default 0.999
        Share of the average that is kept, in [0, 1].

    Returns
    -------
    callable
        For ``AveragedModel(avg_fn=...)``: maps averaged, current and the count to the new average.

    Raises
    ------
    ValueError
        For a ``decay`` out of range.
    """
    if not 0 <= decay <= 1:
        raise ValueError(f"an exponential average expects decay in [0, 1]; got {decay}")
    return functools.partial(exponential_average, decay=decay)


def get_ema_multi_avg_fn(decay: float = 0.999) -> MultiAverageFunction:
    """Return the exponential moving average of lists of arrays, written into the first list.

    Parameters
    ----------
    decay : float, default 0.999
        Share of the average that is kept, in [0, 1].

    Returns
    -------
    callable
        For ``AveragedModel(multi_avg_fn=...)``.

    Raises
    ------
    ValueError
        For a ``decay`` out of range.
    """
    return functools.partial(average_all, average=get_ema_avg_fn(decay))


def get_swa_avg_fn() -> AverageFunction:
    """Return the average of equal weights, ``averaged + (current - averaged) / (count + 1)``."""
    return equal_average


def get_swa_multi_avg_fn() -> MultiAverageFunction:
    """Return the average of equal weights of lists of arrays, written into the first list."""
    return functools.partial(average_all, average=equal_average)
