"""Launching the functions of one or two arrays of ``include/elementwise.cuh``."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from xbackprop.backend.array_module import Array
from xbackprop.dispatch import ArraySpec
from xbackprop.kernels.cuda.sources import (
    ALIGNED,
    MOST_BLOCKS,
    TYPES,
    Source,
    count_bytes,
    expand,
    is_float,
    pack_size,
)

_THREADS = 256


def instances(one: Iterable[str] = (), two: Iterable[str] = ()) -> list[str]:
    """Return what a source instantiates for its functions of one and of two arrays."""
    choices = {"T": TYPES.values(), "A": ALIGNED.values()}
    return [
        *expand("map_one<{F}, {T}, {A}>", F=one, **choices),
        *expand("map_two<{F}, {T}, {A}>", F=two, **choices),
    ]


def can_serve(*arrays: ArraySpec) -> bool:
    """Tell whether all are floats of one dtype and shape, side by side."""
    shape = arrays[0].shape
    return (
        all(isinstance(array, ArraySpec) and array.shape == shape for array in arrays)
        and 0 < math.prod(shape) <= _THREADS * MOST_BLOCKS
        and is_float(*arrays)
    )


def bytes_moved(*arrays: ArraySpec) -> int:
    """Return the bytes of all inputs, and of the result."""
    return count_bytes(*arrays, arrays[0])


def launch(source: Source, function: str, *arrays: Array) -> Array:
    """Return a function of one array, or of a gradient and an array."""
    import cupy

    x = arrays[0]
    result = cupy.empty(x.shape, dtype=x.dtype)
    aligned = all(array.data.ptr % 16 == 0 for array in arrays)
    groups = -(-x.size // pack_size(x.dtype, aligned))
    kernel = "map_one" if len(arrays) == 1 else "map_two"
    given: tuple[Any, ...] = (*arrays, result, np.int64(x.size))
    source.launch(
        f"{kernel}<{function}, {TYPES[x.dtype.name]}, {ALIGNED[aligned]}>",
        -(-groups // _THREADS), _THREADS, *given,
    )  # fmt: skip
    return result
