"""Matrix products over the last axes: the one op through which all products of layers go.

A layer calls :func:`mixed_product`, whose operands may be float16 or bfloat16. The two ops of
Linear multiply NumPy arrays of full precision without it, since nested ops cost a small network's
step a third; their kernels for other devices come back to it.
"""

import math
from typing import Any

import numpy as np

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.backend.half import is_half
from xbackprop.dispatch import ArraySpec, op


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


def _product_flops(a: ArraySpec, b: ArraySpec, dtype: Any = None) -> int:
    lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    return 2 * math.prod(lead) * a.shape[-2] * a.shape[-1] * b.shape[-1]


@op(formula="output = a @ b", flops=_product_flops)
def product(a: Array, b: Array, dtype: Any = None) -> Array:
    """Multiply the matrices in the last two axes, ``y_ij = sum_k a_ik b_kj``.

    Parameters
    ----------
    a : array, shape (..., n, k)
        Of the float dtype of ``b``; any strides: transposes come as views.
    b : array, shape (..., k, m)
        Leading axes broadcast.
    dtype : dtype, optional
        Of the result: float32 is possible for halves; None is the operands' dtype.

    Returns
    -------
    array, shape (..., n, m)

    Notes
    -----
    Halves are multiplied as tensor cores do: their products are exact in float32, are added up in
    float32, and rounded once, at the end. CuPy's own product widens float16, and fails on bfloat16
    beyond two dimensions.
    """
    if is_half(a.dtype):
        output = _multiply(a.astype(np.float32), b.astype(np.float32))
        return output.astype(a.dtype if dtype is None else dtype, copy=False)
    return _multiply(a, b)


def mixed_product(first: Array, second: Array, *, half: Any = None, dtype: Any = None) -> Array:
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
        return product(first, second)
    if dtype is None:
        dtype = low if first.dtype == second.dtype == low else np.dtype(np.float32)
    return product(first.astype(low, copy=False), second.astype(low, copy=False), dtype)


def product_rows(x: Array, matrix: Array) -> Array:
    """Multiply the rows of ``x`` ``(..., n)`` by ``matrix`` ``(n, m)``; gives ``(..., m)``."""
    rows: Array = mixed_product(flatten_rows(x), matrix)
    return rows.reshape(*x.shape[:-1], matrix.shape[1])


def direct_product(first: Array, second: Array, out: Array | None = None) -> Array:
    """Return what :func:`mixed_product` does, without the op where nothing is half.

    It is written into ``out`` where one is given and nothing is half.
    """
    if first.dtype.itemsize == 2 or second.dtype.itemsize == 2:
        return mixed_product(first, second)
    return first.dot(second) if out is None else first.dot(second, out)


def dot_rows(x: Array, matrix: Array) -> Array:
    """Return what :func:`product_rows` does, without the op where nothing is half."""
    if x.dtype.itemsize == 2 or matrix.dtype.itemsize == 2:
        return product_rows(x, matrix)
    if x.ndim <= 2:
        return x.dot(matrix)
    return flatten_rows(x).dot(matrix).reshape(*x.shape[:-1], matrix.shape[1])


@op(formula="total = rows.sum(0)")
def sum_rows(rows: Array) -> Array:
    """Sum over the first axis; halves give a float32 sum."""
    return rows.sum(axis=0, dtype=np.float32) if is_half(rows.dtype) else rows.sum(axis=0)


def direct_sum_rows(rows: Array) -> Array:
    """Return what :func:`sum_rows` does, without the op where nothing is half."""
    return sum_rows(rows) if rows.dtype.itemsize == 2 else rows.sum(axis=0)


def _multiply(a: Array, b: Array) -> Array:
    if a.ndim <= 2 and b.ndim <= 2:
        return a.dot(b)
    return get_array_module(a).matmul(a, b)
