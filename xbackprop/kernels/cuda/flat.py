"""What the updates of flat arrays ask of their arguments, and how they are launched."""

import math
from typing import Any

import numpy as np

from xbackprop.backend.array_module import Array
from xbackprop.backend.half import is_half
from xbackprop.dispatch import ArraySpec
from xbackprop.kernels.cuda.sources import (
    ALIGNED,
    MOST_BLOCKS,
    TYPES,
    Source,
    count_bytes,
    expand,
)

_THREADS = 256
_COUNT = 4  # elements of a thread, where arrays are aligned


def instances(kernel: str) -> list[str]:
    """Return a kernel for every type of the rounded copy; float where there is none."""
    return expand(f"{kernel}<{{H}}, {{A}}>", H=TYPES.values(), A=ALIGNED.values())


def are_flat(half: ArraySpec | None, data: ArraySpec, *others: ArraySpec | None) -> bool:
    """Tell whether all are float32 of one size, side by side, and the copy is in half precision."""
    size = math.prod(data.shape)
    same = all(
        array is None
        or (array.dtype == np.float32 and array.is_contiguous and array.shape == data.shape)
        for array in (data, *others)
    )
    return (
        same
        and 0 < size <= MOST_BLOCKS * _THREADS
        and (
            half is None
            or (is_half(half.dtype) and half.is_contiguous and half.shape == data.shape)
        )
    )


def are_scalars(dtype: Any, *values: Any) -> bool:
    """Tell whether all that are there are numbers of a dtype on the device."""
    return all(
        value is None
        or (isinstance(value, ArraySpec) and value.shape == () and value.dtype == dtype)
        for value in values
    )


def launch(
    source: Source,
    kernel: str,
    half: Array | None,
    data: Array,
    others: list[Array | None],
    *rest: Any,
) -> None:
    """Update flat arrays in one launch; ``rest`` is what the kernel takes before the size."""
    arrays = (data, *others)
    aligned = all(
        array is None or array.data.ptr % (_COUNT * array.dtype.itemsize) == 0
        for array in (*arrays, half)
    )
    name = "float" if half is None else TYPES[half.dtype.name]
    groups = -(-data.size // _COUNT) if aligned else data.size
    source.launch(
        f"{kernel}<{name}, {ALIGNED[aligned]}>", -(-groups // _THREADS), _THREADS,
        *arrays, *rest, np.int64(data.size),
    )  # fmt: skip


def count_update_bytes(
    grad: ArraySpec, written: tuple[ArraySpec | None, ...], half: ArraySpec | None, *scalars: Any
) -> int:
    """Return the bytes of what is read and written back, of the gradient, the copy and scalars."""
    given = [value for value in scalars if isinstance(value, ArraySpec)]
    return count_bytes(grad, half, *given) + 2 * count_bytes(*written)
