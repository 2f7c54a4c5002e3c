"""Products through cuBLAS: gemmEx, and gemmStridedBatchedEx for many matrices.

CuPy's own product beyond two dimensions copies transposes; it widens float16 and fails on bfloat16.
Not yet measured on a GPU.
"""

from typing import NamedTuple

import numpy as np

from xbackprop.backend.tf32 import is_tf32
from xbackprop.kernels.cuda.libraries.layout import Problem

# cudaDataType and cublasComputeType_t, numbers of library_types.h and cublas_api.h.
DATA_TYPES = {"float32": 0, "float64": 1, "float16": 2, "bfloat16": 14}
COMPUTE_TYPES = {"float32": 68, "float64": 70, "float16": 68, "bfloat16": 68}  # halves in float32
_TF32 = 77
_DEFAULT_ALGORITHM = -1


class Factors(NamedTuple):
    """``alpha = 1`` and ``beta = 0`` on the host, of the type that a product adds up in."""

    alpha: np.ndarray
    beta: np.ndarray


FACTORS = {
    name: Factors(np.ones(1, accumulator), np.zeros(1, accumulator))
    for name, accumulator in (
        ("float32", np.float32), ("float64", np.float64),
        ("float16", np.float32), ("bfloat16", np.float32),
    )
}  # fmt: skip


def compute_type(dtype: str) -> int:
    """Return what a product is computed in; float32 follows CuPy's choice of TF32."""
    return _TF32 if dtype == "float32" and is_tf32() else COMPUTE_TYPES[dtype]


def run(problem: Problem) -> None:
    """Start the product on the current stream."""
    from cupy.cuda import device
    from cupy_backends.cuda.libs import cublas

    shape = problem.geometry
    kind, result = DATA_TYPES[shape.dtype], DATA_TYPES[shape.result]
    compute = compute_type(shape.dtype)
    alpha, beta = FACTORS[shape.dtype]
    (a_transposed, a_leading, a_stride), (b_transposed, b_leading, b_stride) = shape.a, shape.b
    handle = device.get_cublas_handle()
    # The result's transpose by columns is the result by rows, so the factors change places.
    sizes = (handle, int(b_transposed), int(a_transposed), shape.columns, shape.rows, shape.inner)
    a, b, output = (array.data.ptr for array in (problem.a, problem.b, problem.output))
    scales = alpha.ctypes.data, beta.ctypes.data
    if shape.batch == 1:
        cublas.gemmEx(
            *sizes, scales[0], b, kind, b_leading, a, kind, a_leading,
            scales[1], output, result, shape.columns, compute, _DEFAULT_ALGORITHM,
        )  # fmt: skip
    else:
        cublas.gemmStridedBatchedEx(
            *sizes, scales[0], b, kind, b_leading, b_stride, a, kind, a_leading, a_stride,
            scales[1], output, result, shape.columns, shape.rows * shape.columns, shape.batch,
            compute, _DEFAULT_ALGORITHM,
        )  # fmt: skip
