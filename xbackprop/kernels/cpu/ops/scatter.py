"""Sums of the rows of one index, with the bits of the reference and the work of one addition each.

Of the reference's rounds only those sums are made that the last row of an index is made of: pairs
counted from the end of its rows, then pairs of pairs. What was joined is dropped after each round.
"""

import numpy as np

from xbackprop.ops.scatter import sum_by_index as op


@op.kernel("cpu", when=lambda rows, *_: rows.dtype.isnative)
def sum_by_index(rows: np.ndarray, indices: np.ndarray, length: int) -> np.ndarray:
    """Add up the rows of each index, as :func:`xbackprop.ops.scatter.sum_by_index`.

    Parameters
    ----------
    rows : numpy.ndarray of float, shape (n, width)
        What is added up.
    indices : numpy.ndarray of int64, shape (n,)
        The index of each row.
    length : int
        Number of indices.

    Returns
    -------
    numpy.ndarray, shape (length, width)
    """
    order = indices.argsort(kind="stable")
    indices = indices[order]
    inside = slice(*np.searchsorted(indices, (0, length)))
    order, indices = order[inside], indices[inside]
    rows = rows[order]
    while (is_followed := indices[1:] == indices[:-1]).any():
        from_end = _count_from_end(is_followed)
        kept = np.flatnonzero(from_end % 2 == 0)
        joins = kept[kept > 0]
        joins = joins[is_followed[joins - 1]]  # those that have a partner before them
        rows[joins] = rows[joins - 1] + rows[joins]
        rows, indices = rows[kept], indices[kept]
    totals = np.zeros((length, *rows.shape[1:]), rows.dtype)
    totals[indices] = rows
    return totals


def _count_from_end(is_followed: np.ndarray) -> np.ndarray:
    """Return how many rows of the same index stand after each."""
    places = np.arange(is_followed.size + 1)
    ends = np.append(np.flatnonzero(~is_followed), is_followed.size)
    return ends[np.searchsorted(ends, places)] - places
