"""Matrix products over the last axes, and those in half precision.

A layer calls :func:`product` wherever its operands may be float16 or bfloat16.
"""

from typing import Any

import numpy as np

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.backend.half import is_half
from xbackprop.dispatch import op


@op(formula="output = (first.astype(float32) @ second.astype(float32)).astype(dtype)")
def half_product(first: Array, second: Array, dtype: Any) -> Array:
    """Multiply matrices in half precision: half operands, sums in float32, one rounding at the end.

    Parameters
    ----------
    first : array of float16 or bfloat16, shape (..., n, k)
        Any strides: transposes come as views.
    second : array, shape (..., k, m)
        Of the same dtype; two-dimensional as ``first``, or with leading axes that broadcast.
    dtype : dtype
        Of the result: the operands' dtype or float32.

    Returns
    -------
    array, shape (..., n, m)

    Notes
    -----
    As tensor cores do: products of halves are exact in float32, and summed in it. CuPy's own
    product widens float16, and fails on bfloat16 beyond two dimensions.
    """
    xp, wide = get_array_module(first), np.float32
    output = xp.matmul(first.astype(wide), second.astype(wide))
    return output if dtype == wide else output.astype(dtype)


def product(first: Array, second: Array, *, half: Any = None, dtype: Any = None) -> Array:
    """Multiply matrices, ``(..., n, k)`` by ``(..., k, m)``, in half precision where one is half.

    Parameters
    ----------
    first, second : array
        If one is half, the other is rounded to its dtype.
    half : dtype, optional
        A half dtype to which both are rounded; float32 and float64 ask for nothing.
    dtype : dtype, optional
        Of a half product's result; None is float32, unless both operands came as halves.

    Returns
    -------
    array
    """
    low = None
    for given in (first.dtype, second.dtype) if half is None else (first.dtype, second.dtype, half):
        if is_half(given):
            low = given
            break
    if low is None:
        is_plain = first.ndim == second.ndim == 2
        return first.dot(second) if is_plain else get_array_module(first).matmul(first, second)
    if dtype is None:
        dtype = low if first.dtype == second.dtype == low else np.dtype(np.float32)
    return half_product(first.astype(low, copy=False), second.astype(low, copy=False), dtype)


def flatten_rows(x: Array) -> Array:
    """View ``(..., n)`` as ``(rows, n)``; a single 1-D sample becomes one row.

    CuPy's products beyond two dimensions copy transposes, and NumPy's leave BLAS, so layers flatten
    their leading axes first.
    """
    return x if x.ndim == 2 else x.reshape(_row_count(x.shape), x.shape[-1])


def _row_count(shape: tuple[int, ...]) -> int:
    # Counted, since reshape(-1, n) cannot infer it when a batch is empty.
    rows = 1
    for length in shape[:-1]:
        rows *= length
    return rows


def dot_rows(x: Array, matrix: Array) -> Array:
    """Multiply the rows of ``x`` ``(..., n)`` by ``matrix`` ``(n, m)``; gives ``(..., m)``."""
    if is_half(matrix.dtype):
        rows = product(flatten_rows(x), matrix)
        return rows if x.ndim == 2 else rows.reshape(*x.shape[:-1], matrix.shape[1])
    if x.ndim <= 2:
        return x.dot(matrix)
    return flatten_rows(x).dot(matrix).reshape(*x.shape[:-1], matrix.shape[1])


@op(formula="total = rows.sum(0)")
def sum_rows(rows: Array) -> Array:
    """Sum over the first axis; halves give a float32 sum."""
    return rows.sum(axis=0, dtype=np.float32) if is_half(rows.dtype) else rows.sum(axis=0)
