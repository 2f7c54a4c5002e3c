"""How a product of arrays is told to cuBLAS, which counts matrices by columns.

What lies row by row in memory is the transpose of what cuBLAS sees, so ``y = a b`` is computed as
``y^T = b^T a^T``: cuBLAS gets ``b`` first, and ``y^T`` by columns is ``y`` by rows.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from xbackprop.backend.array_module import Array, get_array_module


class Operand(NamedTuple):
    """One factor, as cuBLAS sees it.

    Attributes
    ----------
    array : array
        The one whose memory is read: the factor itself, or a copy whose rows lie side by side.
    is_transposed : bool
        Its memory, read by columns, is the factor and not its transpose.
    leading : int
        Elements from one row (column) to the next.
    batch_stride : int
        Elements from one matrix to the next; 0 uses the same one for all.
    """

    array: Array
    is_transposed: bool
    leading: int
    batch_stride: int


class Geometry(NamedTuple):
    """Everything about a product but where the numbers are; equal ones may share a plan.

    ``dtype`` is that of both factors, ``result`` that of ``y = a b``, whose sizes are ``rows`` and
    ``columns``; ``inner`` is the length of the sums, ``batch`` the number of matrices.
    """

    dtype: str
    result: str
    rows: int
    columns: int
    inner: int
    batch: int
    a: tuple[bool, int, int]
    b: tuple[bool, int, int]


class Problem(NamedTuple):
    """A product ready for a library: `geometry`, both factors, and where the result goes."""

    geometry: Geometry
    a: Array
    b: Array
    output: Array


def lay_out(a: Array, b: Array, dtype: Any = None) -> Problem:
    """Return what a library needs for ``a @ b``, with a fresh output ``(..., n, m)`` by rows."""
    dtype = np.dtype(a.dtype if dtype is None else dtype)
    lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    output = get_array_module(a).empty((*lead, a.shape[-2], b.shape[-1]), dtype=dtype)
    first, second = operand(a, lead), operand(b, lead)
    geometry = Geometry(
        a.dtype.name, dtype.name, a.shape[-2], b.shape[-1], a.shape[-1], math.prod(lead),
        first[1:], second[1:],
    )  # fmt: skip
    return Problem(geometry, first.array, second.array, output)


def operand(array: Array, lead: tuple[int, ...]) -> Operand:
    """Return a factor as cuBLAS sees it; copied only where its memory has no such form.

    Parameters
    ----------
    array : array, shape (..., n, m)
        Of any strides.
    lead : tuple of int
        Leading axes of the result, to which those of ``array`` broadcast.
    """
    found = _describe(array, lead)
    if found is None:
        array = array.copy(order="C")
        found = _describe(array, lead)
    if found is None:  # some of its leading axes are broadcast, and others not
        array = get_array_module(array).broadcast_to(array, (*lead, *array.shape[-2:]))
        array = array.copy(order="C")
        found = _describe(array, lead)
    assert found is not None  # contiguous memory of the whole batch always has this form
    return Operand(array, *found)


def _describe(array: Array, lead: tuple[int, ...]) -> tuple[bool, int, int] | None:
    width = array.dtype.itemsize
    if any(stride % width for stride in array.strides):
        return None
    strides = [stride // width for stride in array.strides]
    matrix = _matrix(array.shape[-2:], strides[-2:])
    batch = _batch_stride(array.shape[:-2], strides[:-2], lead)
    return None if matrix is None or batch is None else (*matrix, batch)


def _matrix(shape: tuple[int, ...], strides: list[int]) -> tuple[bool, int] | None:
    """Tell whether one of the axes is dense, and the stride of the other."""
    (rows, columns), (down, across) = shape, strides
    for is_transposed, dense, length, other, count in (
        (False, across, columns, down, rows),
        (True, down, rows, across, columns),
    ):
        leading = max(length, 1) if count == 1 else other
        if (dense == 1 or length == 1) and leading >= max(length, 1):
            return is_transposed, leading
    return None


def _batch_stride(shape: tuple[int, ...], strides: list[int], lead: tuple[int, ...]) -> int | None:
    """Return the one stride that walks through all matrices in order, if there is one."""
    missing = len(lead) - len(shape)
    lengths, steps = (1,) * missing + shape, [0] * missing + strides
    step, size = 0, 1  # of the axes seen so far, from the last to the first
    for length, stride, wanted in zip(
        reversed(lengths), reversed(steps), reversed(lead), strict=True
    ):
        if wanted == 1:
            continue
        stride = 0 if length == 1 else stride
        if size == 1:
            step = stride
        elif stride != step * size:
            return None
        size *= wanted
    return step if step >= 0 else None
