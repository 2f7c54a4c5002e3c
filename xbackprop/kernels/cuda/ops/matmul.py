"""Products of matrices, and sums over the first axis, such as the gradient of a bias.

Products go through cuBLAS, and through cuBLASLt inside recorded steps: halves are added up in
float32, batches are strided, transposes are not copied. CuPy is slow at the sums; the tests run the
source beside this file on the CPU. Not yet measured on a GPU.
"""

import math
from typing import Any

import numpy as np

from xbackprop.backend.array_module import Array
from xbackprop.backend.capture import is_recording
from xbackprop.backend.half import is_half
from xbackprop.dispatch import ArraySpec
from xbackprop.kernels.cuda import columns
from xbackprop.kernels.cuda.libraries import cublas, cublaslt
from xbackprop.kernels.cuda.libraries.layout import lay_out
from xbackprop.kernels.cuda.sources import Source, is_float, name_of
from xbackprop.ops.matmul import product as product_op
from xbackprop.ops.matmul import sum_rows as sum_op

SOURCE = Source(__file__, columns.INSTANCES)
_MOST = 2**31 - 1  # cuBLAS counts in 32 bits


def can_multiply(a: ArraySpec, b: ArraySpec, dtype: Any = None) -> bool:
    """Tell whether cuBLAS can do it: matrices of one float dtype, none of them empty."""
    if a.dtype != b.dtype or name_of(a.dtype) not in cublas.DATA_TYPES:
        return False
    is_other = dtype is not None and dtype != a.dtype
    if is_other and not (is_half(a.dtype) and dtype == np.float32):
        return False
    if min(len(a.shape), len(b.shape)) < 2 or a.shape[-1] != b.shape[-2]:
        return False
    sizes = (*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), *a.shape[-2:], b.shape[-1])
    return all(sizes) and max(sizes) <= _MOST and math.prod(sizes[:-3]) <= _MOST


def count_product_bytes(a: ArraySpec, b: ArraySpec, dtype: Any = None) -> int:
    """Return the bytes read and written when each factor is read once."""
    lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    written = math.prod(lead) * a.shape[-2] * b.shape[-1]
    read = a.dtype.itemsize * (math.prod(a.shape) + math.prod(b.shape))
    return read + np.dtype(a.dtype if dtype is None else dtype).itemsize * written


@product_op.kernel("cuda", when=can_multiply, launches=1, bytes_moved=count_product_bytes)
def product(a: Array, b: Array, dtype: Any = None) -> Array:
    """Multiply the matrices in the last two axes, as :func:`xbackprop.ops.matmul.product`.

    Parameters
    ----------
    a : cupy.ndarray, shape (..., n, k)
        float16, bfloat16, float32 or float64.
    b : cupy.ndarray, shape (..., k, m)
        Of the dtype of ``a``.
    dtype : dtype, optional
        Of the result; for halves float32, too.

    Returns
    -------
    cupy.ndarray, shape (..., n, m)
    """
    problem = lay_out(a, b, dtype)
    (cublaslt if is_recording() else cublas).run(problem)
    output: Array = problem.output
    return output


def can_sum(rows: ArraySpec) -> bool:
    """Tell whether there are rows of floats side by side."""
    return len(rows.shape) > 1 and math.prod(rows.shape) > 0 and is_float(rows)


def count_sum_launches(rows: ArraySpec) -> int:
    """Return one launch, and one more where several blocks share a column."""
    return columns.count_launches(rows.shape[0], np.dtype(np.float32))


def count_sum_bytes(rows: ArraySpec) -> int:
    """Return the bytes of the rows, of the blocks' sums, and of the result."""
    n = math.prod(rows.shape[1:])
    return columns.count_column_bytes(rows.shape[0], n, rows.dtype.itemsize, 1, 1, 4)


@sum_op.kernel("cuda", when=can_sum, launches=count_sum_launches, bytes_moved=count_sum_bytes)
def sum_rows(rows: Array) -> Array:
    """Sum over the first axis; halves give a float32 sum."""
    flat = rows.reshape(rows.shape[0], -1)
    dtype = np.dtype(np.float32)
    total: Array
    _, total = columns.sum_columns(SOURCE, flat, None, None, False, True, dtype)
    return total.reshape(rows.shape[1:])
