"""Sums of squares of up to 64 arrays in one launch, and one launch that joins the blocks' sums.

Not yet measured on a GPU. The tests run the source beside this file on the CPU and compare it with
the reference.
"""

import math

import numpy as np

from xbackprop.backend.array_module import Array
from xbackprop.dispatch import ArraySpec
from xbackprop.kernels.cuda.sources import Source
from xbackprop.kernels.cuda.sources import count_bytes as bytes_of
from xbackprop.optim.norms import sums_of_squares as op

SOURCE = Source(__file__, ["sum_squares", "join_squares"])
_THREADS = 256
_MOST_ARRAYS = 64  # their addresses and sizes are an argument of 1,024 bytes
_MOST_BLOCKS = 64  # of an array


def can_serve(*arrays: ArraySpec) -> bool:
    """Tell whether all are float32, with their elements side by side."""
    return all(array.dtype == np.float32 and array.is_contiguous for array in arrays)


def count_launches(*arrays: ArraySpec) -> int:
    """Return one launch for each 64 arrays, and one."""
    return -(-len(arrays) // _MOST_ARRAYS) + 1


def count_bytes(*arrays: ArraySpec) -> int:
    """Return the bytes of the arrays, of the blocks' sums there and back, and of the results."""
    blocks = _count_blocks([math.prod(array.shape) for array in arrays])
    return bytes_of(*arrays) + 4 * len(arrays) * (2 * blocks + 1)


@op.kernel("cuda", when=can_serve, launches=count_launches, bytes_moved=count_bytes)
def sums_of_squares(*arrays: Array) -> Array:
    """Return ``sum(x * x)`` of each array, as the reference."""
    import cupy

    blocks = _count_blocks([array.size for array in arrays])
    partial = cupy.empty((len(arrays), blocks), dtype=np.float32)
    for start in range(0, len(arrays), _MOST_ARRAYS):
        some = arrays[start : start + _MOST_ARRAYS]
        table = np.zeros((2, _MOST_ARRAYS), dtype=np.int64)
        table[:, : len(some)] = [[a.data.ptr for a in some], [a.size for a in some]]
        SOURCE.launch("sum_squares", (blocks, len(some)), _THREADS, table, partial[start:])
    sums = cupy.empty(len(arrays), dtype=np.float32)
    SOURCE.launch("join_squares", len(arrays), 32, partial, np.int32(blocks), sums)
    return sums


def _count_blocks(sizes: list[int]) -> int:
    """Return how many blocks share each array."""
    return min(_MOST_BLOCKS, max(1, -(-max(sizes) // (4 * _THREADS))))
