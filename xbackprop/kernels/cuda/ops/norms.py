"""Sums of squares as a reduction, which a step may record: CuPy refuses cuBLAS there.

Not yet measured on a GPU.
"""

import functools
import math
from typing import Any

from xbackprop.backend.array_module import Array
from xbackprop.dispatch import ArraySpec
from xbackprop.ops.norms import sum_of_squares as op


def can_serve(x: ArraySpec) -> bool:
    """Tell whether the kernel adds up in what it is given: float32 or float64."""
    return x.dtype.name in ("float32", "float64")


def count_bytes(x: ArraySpec) -> int:
    """Return the bytes read, and the result written."""
    return x.dtype.itemsize * (math.prod(x.shape) + 1)


@op.kernel("cuda", when=can_serve, launches=1, bytes_moved=count_bytes)
def sum_of_squares(x: Array) -> Array:
    """Add up the squares of all elements, as :func:`xbackprop.ops.norms.sum_of_squares`."""
    return _compiled()(x)


@functools.cache
def _compiled() -> Any:
    import cupy

    return cupy.ReductionKernel(
        "T x", "T total", "x * x", "a + b", "total = a", "0", "xbackprop_sum_of_squares"
    )
