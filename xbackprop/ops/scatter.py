"""What the rows of one index come to: their sum, their greatest, their number; deterministic.

A stable sort by index brings such rows side by side, in the order they came in. Then each row joins
with the one that stands 1, 2, 4, ... before it while both have one index: after `log2(n)` rounds
the last row of an index holds the result of all, as a balanced tree has it, whose rounding errors
grow with the logarithm of the rows. No size depends on the data, so no device is waited for.
(CuPy's `add.at` adds in any order, and its `add.reduceat` is a difference of cumulative sums, which
loses digits, and every row after a NaN.)

An index outside `0 .. length - 1` names no result: its rows are left out.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.dispatch import op


@op(formula="totals = (arange(length)[:, None] == indices) @ rows")
def sum_by_index(rows: Array, indices: Array, length: int) -> Array:
    """Add up the rows of each index: the adjoint of ``rows = totals[indices]``.

    Parameters
    ----------
    rows : array of float, shape (n, width)
        What is added up.
    indices : array of int64, shape (n,)
        The index of each row.
    length : int
        Number of indices.

    Returns
    -------
    array, shape (length, width)
        Zeros for an index without rows.
    """
    xp = get_array_module(rows)
    if indices.size == 0:
        return xp.zeros((length, *rows.shape[1:]), dtype=rows.dtype)
    runs = _sort(indices, length)

    def add(earlier: list[Array], later: list[Array]) -> list[Array]:
        return [earlier[0] + later[0]]

    (totals,) = _join(runs.indices, [rows[runs.order]], add)
    return xp.where(runs.counts[:, None] > 0, totals[runs.last], 0)


@op(formula="counts = (arange(length)[:, None] == indices).sum(1)")
def count_by_index(indices: Array, length: int) -> Array:
    """Return how often each index comes: int64, shape (length,)."""
    return _sort(indices, length).counts


@op
def max_by_index(rows: Array, indices: Array, length: int) -> tuple[Array, Array]:
    """Return the greatest element of each column among the rows of an index, and its row.

    Parameters
    ----------
    rows : array of float, shape (n, width)
        What is compared. NaN is greater than every number.
    indices : array of int64, shape (n,)
        The index of each row.
    length : int
        Number of indices.

    Returns
    -------
    values : array, shape (length, width)
        Zeros for an index without rows.
    positions : array of int64, shape (length, width)
        The first of several rows that are equally great; -1 for an index without rows.
    """
    xp = get_array_module(rows)
    if indices.size == 0:
        shape = (length, *rows.shape[1:])
        return xp.zeros(shape, dtype=rows.dtype), xp.full(shape, -1, dtype=np.int64)
    runs = _sort(indices, length)
    positions = runs.order[:, None] + xp.zeros(rows.shape, dtype=np.int64)

    def take_greater(earlier: list[Array], later: list[Array]) -> list[Array]:
        stays = (earlier[0] >= later[0]) | xp.isnan(earlier[0])
        return [xp.where(stays, *pair) for pair in zip(earlier, later, strict=True)]

    values, positions = _join(runs.indices, [rows[runs.order], positions], take_greater)
    has_rows = runs.counts[:, None] > 0
    return xp.where(has_rows, values[runs.last], 0), xp.where(has_rows, positions[runs.last], -1)


class _Runs(NamedTuple):
    """Indices in order, so that equal ones stand side by side."""

    order: Array  # (n,): sorts the rows
    indices: Array  # (n,): sorted
    counts: Array  # (length,): of each index
    last: Array  # (length,): place of an index' last row, and anything where it has none


def _sort(indices: Array, length: int) -> _Runs:
    xp = get_array_module(indices)
    order = indices.argsort(kind="stable")
    in_order = indices[order]
    bounds = xp.searchsorted(in_order, xp.arange(length + 1))  # where each index begins
    return _Runs(order, in_order, bounds[1:] - bounds[:-1], xp.maximum(bounds[1:] - 1, 0))


def _join(
    indices: Array,
    arrays: list[Array],
    join: Callable[[list[Array], list[Array]], list[Array]],
) -> list[Array]:
    """Join each row with all before it that have its index, by doubling the distance."""
    xp = get_array_module(indices)
    distance = 1
    while distance < indices.size:
        has_same = (indices[distance:] == indices[:-distance])[:, None]
        later = [array[distance:] for array in arrays]
        joined = join([array[:-distance] for array in arrays], later)
        arrays = [
            xp.concatenate([array[:distance], xp.where(has_same, new, old)])
            for array, new, old in zip(arrays, joined, later, strict=True)
        ]
        distance *= 2
    return arrays
