"""Sums over the first axis, such as the gradient of a bias, which CuPy is slow at.

Not yet measured on a GPU. The tests run the source beside this file on the CPU and compare it with
the reference.
"""

import math

import numpy as np

from xbackprop.backend.array_module import Array
from xbackprop.dispatch import ArraySpec
from xbackprop.kernels.cuda import columns
from xbackprop.kernels.cuda.sources import Source, is_float
from xbackprop.ops.matmul import sum_rows as op

SOURCE = Source(__file__, columns.INSTANCES)


def can_serve(rows: ArraySpec) -> bool:
    """Tell whether there are rows of floats side by side."""
    return len(rows.shape) > 1 and math.prod(rows.shape) > 0 and is_float(rows)


def count_launches(rows: ArraySpec) -> int:
    """Return one launch, and one more where several blocks share a column."""
    return columns.count_launches(rows.shape[0], np.dtype(np.float32))


def count_bytes(rows: ArraySpec) -> int:
    """Return the bytes of the rows, of the blocks' sums, and of the result."""
    n = math.prod(rows.shape[1:])
    return columns.count_column_bytes(rows.shape[0], n, rows.dtype.itemsize, 1, 1, 4)


@op.kernel("cuda", when=can_serve, launches=count_launches, bytes_moved=count_bytes)
def sum_rows(rows: Array) -> Array:
    """Sum over the first axis; halves give a float32 sum."""
    flat = rows.reshape(rows.shape[0], -1)
    dtype = np.dtype(np.float32)
    total: Array
    _, total = columns.sum_columns(SOURCE, flat, None, None, False, True, dtype)
    return total.reshape(rows.shape[1:])
