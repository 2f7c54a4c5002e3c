"""Entries that each name a place, sorted once, so that every place finds the entries it has.

Writing every entry to its place would leave open who wins where two name one, and adding would
depend on an order. Read from the places' side both are exact, and the same on every device. Beside
the results there are three int64 numbers an entry and three a place.
"""

import numpy as np

from xbackprop.backend.array_module import Array, get_array_module


def last_entries(places: Array, size: int) -> Array:
    """Return for each of ``size`` places the last entry that names it, or -1.

    Parameters
    ----------
    places : array of int64, shape (entries,)
        Each from 0 to ``size - 1``.
    size : int
        How many places there are.

    Returns
    -------
    array of int64, shape (size,)
    """
    xp = get_array_module(places)
    if not places.size:
        return xp.full(size, -1, dtype=np.int64)
    order, first, behind = _sorted(places, size)
    return xp.where(first < behind, xp.take(order, xp.maximum(behind - 1, 0)), -1)


def sum_entries(values: Array, places: Array, size: int, most: int) -> Array:
    """Return for each of ``size`` places the sum of the values that name it, in their order.

    Parameters
    ----------
    values : array of float, shape (entries,)
        What is summed.
    places : array of int64, shape (entries,)
        Each from 0 to ``size - 1``.
    size : int
        How many places there are.
    most : int
        No place is named by more entries: it is known on the host, so nothing is downloaded.

    Returns
    -------
    array, shape (size,)
    """
    xp = get_array_module(values)
    total = xp.zeros(size, dtype=values.dtype.newbyteorder("="))
    if not places.size:
        return total
    order, first, behind = _sorted(places, size)
    for step in range(most):
        entry = xp.take(order, xp.minimum(first + step, places.size - 1))
        total += xp.where(first + step < behind, xp.take(values, entry), 0)
    return total


def _sorted(places: Array, size: int) -> tuple[Array, Array, Array]:
    """Return the entries sorted by place, and where each place's run starts and ends among them."""
    xp = get_array_module(places)
    order = xp.argsort(places, kind="stable")
    in_order, numbers = xp.take(places, order), xp.arange(size)
    first = xp.searchsorted(in_order, numbers, side="left")
    return order, first, xp.searchsorted(in_order, numbers, side="right")
