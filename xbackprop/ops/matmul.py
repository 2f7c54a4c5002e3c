"""Matrix products over the last axes: the one op through which all products of layers go.

Two ops of layers, those of Linear, multiply two-dimensional NumPy arrays without it, since nested
ops cost a small network's step a third; their kernels for other devices come back to it.
"""

import math

import numpy as np

from xbackprop.backend.array_module import Array, get_array_module
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


def multiply(a: Array, b: Array) -> Array:
    """Return ``a @ b`` without an op: half precision adds up in float32 and is rounded once.

    Parameters
    ----------
    a : array, shape (..., n, k) or (k,)
        Of the float dtype of ``b``.
    b : array, shape (..., k, m)
        Leading axes broadcast; one of 2 axes beside one of 1 or 2 is a plain product.

    Returns
    -------
    array, shape (..., n, m) or (m,)
    """
    if a.dtype.itemsize == 2:
        return multiply(a.astype(np.float32), b.astype(np.float32)).astype(a.dtype)
    if a.ndim <= 2 and b.ndim <= 2:
        return a.dot(b)
    return get_array_module(a).matmul(a, b)


def _product_flops(a: ArraySpec, b: ArraySpec) -> int:
    lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    return 2 * math.prod(lead) * a.shape[-2] * a.shape[-1] * b.shape[-1]


@op(formula="output = a @ b", flops=_product_flops)
def product(a: Array, b: Array) -> Array:
    """Multiply the matrices in the last two axes, ``y_ij = sum_k a_ik b_kj``.

    Parameters
    ----------
    a : array, shape (..., n, k)
        Of the float dtype of ``b``. Half precision is added up in float32 and rounded once.
    b : array, shape (..., k, m)
        Leading axes broadcast.

    Returns
    -------
    array, shape (..., n, m)
    """
    return multiply(a, b)


def product_rows(x: Array, matrix: Array) -> Array:
    """Multiply the rows of ``x`` ``(..., n)`` by ``matrix`` ``(n, m)``; gives ``(..., m)``."""
    rows: Array = product(flatten_rows(x), matrix)
    return rows.reshape(*x.shape[:-1], matrix.shape[1])


def dot_rows(x: Array, matrix: Array) -> Array:
    """Return what :func:`product_rows` does, without the op."""
    if x.ndim <= 2:
        return multiply(x, matrix)
    return multiply(flatten_rows(x), matrix).reshape(*x.shape[:-1], matrix.shape[1])
