"""Sequences of several lengths as rows, one step after the other, without the padding."""

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.dispatch import op


@op
def pack_rows(x: Array, batch_sizes: tuple[int, ...]) -> Array:
    """Take the first ``batch_sizes[t]`` sequences of every step; the adjoint of :func:`pad_rows`.

    Parameters
    ----------
    x : array, shape (time, batch, ...)
        Longest sequences first; steps after the last of ``batch_sizes`` are left out.
    batch_sizes : tuple of int
        At least one, none larger than the one before it.

    Returns
    -------
    array, shape (sum(batch_sizes), ...)
    """
    parts = [x[step, :count] for step, count in enumerate(batch_sizes)]
    return get_array_module(x).concatenate(parts)


@op
def pad_rows(
    rows: Array, batch_sizes: tuple[int, ...], total_length: int, padding_value: float
) -> Array:
    """Put rows back to their steps; the adjoint of :func:`pack_rows` when padded by zeros.

    Parameters
    ----------
    rows : array, shape (sum(batch_sizes), ...)
        One step after the other.
    batch_sizes : tuple of int
        As for :func:`pack_rows`.
    total_length : int
        Steps of the result, at least as many as there are batch sizes.
    padding_value : float
        Stands behind the ends.

    Returns
    -------
    array, shape (total_length, batch_sizes[0], ...)
    """
    shape = (total_length, batch_sizes[0], *rows.shape[1:])
    padded = get_array_module(rows).full(shape, padding_value, dtype=rows.dtype)
    start = 0
    for step, count in enumerate(batch_sizes):
        padded[step, :count] = rows[start : start + count]
        start += count
    return padded
