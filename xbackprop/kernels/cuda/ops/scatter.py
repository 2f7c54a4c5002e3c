"""Sums of the rows of one index: a sort, then one launch that adds up what stands side by side.

Not yet measured on a GPU. The tests run the source beside this file on the CPU and compare it with
the reference.
"""

import math

import numpy as np

from xbackprop.backend.array_module import Array
from xbackprop.dispatch import ArraySpec
from xbackprop.kernels.cuda.sources import MOST_BLOCKS, TYPES, Source, expand, is_float
from xbackprop.kernels.cuda.sources import count_bytes as bytes_of
from xbackprop.ops.scatter import sum_by_index as op

SOURCE = Source(__file__, expand("sum_rows<{T}>", T=TYPES.values()))
_COLUMNS = 32  # of a block
_MOST_STRIPS = 65535  # blocks of a launch, along y
_LAUNCHES = 3  # CuPy's sort (itself several), the sorted indices, the sums


def can_serve(rows: ArraySpec, indices: ArraySpec, length: int) -> bool:
    """Tell whether there are rows of floats side by side, and int64 indices."""
    return (
        len(rows.shape) == 2
        and is_float(rows)
        and indices.dtype == np.int64
        and indices.is_contiguous
        and math.prod(indices.shape) > 0
        and 0 < length <= MOST_BLOCKS
        and 0 < rows.shape[1] <= _COLUMNS * _MOST_STRIPS
    )


def count_bytes(rows: ArraySpec, indices: ArraySpec, length: int) -> int:
    """Return the bytes of rows and results, and of the indices, which the sort moves four times."""
    written = length * rows.shape[1] * rows.dtype.itemsize
    return bytes_of(rows) + 4 * bytes_of(indices) + written


@op.kernel("cuda", when=can_serve, launches=_LAUNCHES, bytes_moved=count_bytes)
def sum_by_index(rows: Array, indices: Array, length: int) -> Array:
    """Add up the rows of each index, as :func:`xbackprop.ops.scatter.sum_by_index`.

    Parameters
    ----------
    rows : cupy.ndarray of float, shape (n, width)
        What is added up, in float.
    indices : cupy.ndarray of int64, shape (n,)
        The index of each row.
    length : int
        Number of indices.

    Returns
    -------
    cupy.ndarray, shape (length, width)
    """
    import cupy

    order = indices.argsort(kind="stable")
    width = rows.shape[1]
    totals = cupy.empty((length, width), dtype=rows.dtype)
    SOURCE.launch(
        f"sum_rows<{TYPES[rows.dtype.name]}>", (length, -(-width // _COLUMNS)), 256,
        rows, order, indices[order], np.int64(indices.size), np.int64(width), totals,
    )  # fmt: skip
    return totals
