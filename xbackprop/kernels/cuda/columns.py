"""Launching the sums over rows of ``include/columns.cuh``."""

from typing import Any

import numpy as np

from xbackprop.backend.array_module import Array
from xbackprop.kernels.cuda.sources import TYPES, Source, expand

INSTANCES = expand("{K}<{T}>", K=("sum_columns", "join_columns"), T=TYPES.values())
_COLUMNS = 32  # of a block
_ROWS_OF_BLOCK = 128


def sum_columns(
    source: Source,
    grad: Array,
    x: Array | None,
    factors: Array | None,
    products: bool,
    plain: bool,
    dtype: np.dtype,
) -> tuple[Array | None, Array | None]:
    """Return the sums of ``grad * x`` and of ``grad`` over the rows.

    Parameters
    ----------
    source : Source
        One that includes ``columns.cuh``.
    grad : cupy.ndarray, shape (rows, n)
        What is added up.
    x : cupy.ndarray, shape (rows, n), or None
        What it is multiplied by for the first sum.
    factors : cupy.ndarray, shape (rows,), or None
        What each row of ``x`` is multiplied by.
    products, plain : bool
        Which sums are wanted.
    dtype : dtype
        Of the sums.

    Returns
    -------
    tuple of cupy.ndarray or None, shape (n,)
    """
    import cupy

    rows, n = grad.shape
    blocks = block_count(rows)

    def empty(shape: Any, dtype: Any) -> list[Array | None]:
        return [cupy.empty(shape, dtype) if wanted else None for wanted in (products, plain)]

    partial = empty((blocks, n), np.float32)
    source.launch(
        f"sum_columns<{TYPES[grad.dtype.name]}>", (-(-n // _COLUMNS), blocks), 256,
        grad, x, factors, np.int64(rows), np.int64(n), np.int64(rows_of_block(rows)), *partial,
    )  # fmt: skip
    if count_launches(rows, dtype) == 1:
        first, second = (None if sums is None else sums.reshape(n) for sums in partial)
        return first, second
    results = empty(n, dtype)
    source.launch(
        f"join_columns<{TYPES[dtype.name]}>", -(-n // 256), 256,
        *partial, np.int64(blocks), np.int64(n), *results,
    )  # fmt: skip
    return results[0], results[1]


def count_launches(rows: int, dtype: np.dtype) -> int:
    """Return how often :func:`sum_columns` launches: once where one block's sum is the result."""
    return 1 if block_count(rows) == 1 and dtype == np.float32 else 2


def rows_of_block(rows: int) -> int:
    """Return how many rows one block adds up, so that at most 1,024 blocks share a column."""
    return max(_ROWS_OF_BLOCK, -(-rows // 1024))


def block_count(rows: int) -> int:
    """Return how many blocks share a column."""
    return -(-rows // rows_of_block(rows))


def count_column_bytes(
    rows: int, n: int, itemsize: int, reads: int, sums: int, size_of_sum: int
) -> int:
    """Return the bytes that are moved: ``reads`` arrays of all rows, partial sums, and results."""
    is_joined = count_launches(rows, np.dtype(f"f{size_of_sum}")) == 2
    partial = 2 * 4 * block_count(rows) if is_joined else 0
    return rows * n * itemsize * reads + sums * n * (partial + size_of_sum)
