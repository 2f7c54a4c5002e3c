"""Products of matrices: cuBLAS, and cuBLASLt inside recorded steps.

Half precision is added up in float32; batches are strided, transposes are not copied. Not yet
measured on a GPU.
"""

import math

import numpy as np

from xbackprop.backend.array_module import Array
from xbackprop.backend.capture import is_recording
from xbackprop.dispatch import ArraySpec
from xbackprop.kernels.cuda.libraries import cublas, cublaslt
from xbackprop.kernels.cuda.libraries.layout import lay_out
from xbackprop.ops.matmul import product as op

_MOST = 2**31 - 1  # cuBLAS counts in 32 bits


def can_serve(a: ArraySpec, b: ArraySpec) -> bool:
    """Tell whether cuBLAS can do it: matrices of one float dtype, none of them empty."""
    if a.dtype != b.dtype or a.dtype.name not in cublas.DATA_TYPES:
        return False
    if min(len(a.shape), len(b.shape)) < 2 or a.shape[-1] != b.shape[-2]:
        return False
    sizes = (*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), *a.shape[-2:], b.shape[-1])
    return all(sizes) and max(sizes) <= _MOST and math.prod(sizes[:-3]) <= _MOST


def count_bytes(a: ArraySpec, b: ArraySpec) -> int:
    """Return the bytes read and written when each factor is read once."""
    lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    written = math.prod(lead) * a.shape[-2] * b.shape[-1]
    return a.dtype.itemsize * (math.prod(a.shape) + math.prod(b.shape) + written)


@op.kernel("cuda", when=can_serve, launches=1, bytes_moved=count_bytes)
def product(a: Array, b: Array) -> Array:
    """Multiply the matrices in the last two axes, as :func:`xbackprop.ops.matmul.product`.

    Parameters
    ----------
    a : cupy.ndarray, shape (..., n, k)
        float16, bfloat16, float32 or float64.
    b : cupy.ndarray, shape (..., k, m)
        Of the dtype of ``a``.

    Returns
    -------
    cupy.ndarray, shape (..., n, m)
    """
    problem = lay_out(a, b)
    (cublaslt if is_recording() else cublas).run(problem)
    output: Array = problem.output
    return output
