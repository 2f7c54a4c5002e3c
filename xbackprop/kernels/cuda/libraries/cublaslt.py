"""Products inside recorded steps: cuBLASLt through nvmath-python (extra ``cuda13-fast``).

CuPy refuses cuBLAS while a stream is capturing. A plan is made once for each geometry, while the
step warms up, so that nothing is asked of the library during the capture but the product. The one
workspace of a stream is never given back: recorded graphs hold its address. Not yet measured on a
GPU.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from xbackprop.backend.capture import CaptureError
from xbackprop.kernels.cuda.libraries.cublas import DATA_TYPES, FACTORS, compute_type
from xbackprop.kernels.cuda.libraries.layout import Geometry, Problem

_WORKSPACE_BYTES = 32 * 2**20
_SURE_ALIGNMENT = 16  # bytes; views into the flat storage of parameters begin anywhere


class Plan(NamedTuple):
    """Descriptors of a product, and the algorithm that the library chose."""

    description: int
    first: int
    second: int
    output: int
    algorithm: Any  # nvmath's array of one struct


def is_available() -> bool:
    """Tell whether nvmath-python can be imported."""
    try:
        _library()
    except ImportError:
        return False
    return True


def run(problem: Problem) -> None:
    """Start the product on the current stream, which may be capturing.

    Parameters
    ----------
    problem : Problem
        The factors, and where the result goes.

    Raises
    ------
    CaptureError
        When nvmath-python is missing, or the library has no algorithm for this product.
    """
    import cupy

    try:
        library = _library()
    except ImportError as error:
        raise CaptureError(
            "a matrix product inside a recorded step needs nvmath-python, since CuPy refuses "
            f"cuBLAS while a stream is capturing ({error}). Install xbackprop[cuda13-fast]."
        ) from error
    device, stream = cupy.cuda.Device().id, cupy.cuda.get_current_stream().ptr
    align = min(_alignment(array) for array in (problem.a, problem.b))
    compute = compute_type(problem.geometry.dtype)
    plan, workspace = _plan(problem.geometry, compute, device, align), _workspace(device, stream)
    alpha, beta = FACTORS[problem.geometry.dtype]
    output = problem.output.data.ptr
    library.matmul(
        _handle(device), plan.description, alpha.ctypes.data,
        problem.b.data.ptr, plan.first, problem.a.data.ptr, plan.second,
        beta.ctypes.data, output, plan.output, output, plan.output,
        plan.algorithm.ptr, workspace.data.ptr, workspace.nbytes, stream,
    )  # fmt: skip


def _alignment(array: Any) -> int:
    """Return the largest power of two up to 16 that divides the address, at least the item's."""
    pointer: int = array.data.ptr
    return min(pointer & -pointer, _SURE_ALIGNMENT) if pointer else _SURE_ALIGNMENT


@functools.cache
def _library() -> Any:
    from nvmath.bindings import cublasLt

    return cublasLt


@functools.cache
def _handle(device: int) -> int:
    handle: int = _library().create()
    return handle


@functools.cache
def _workspace(device: int, stream: int) -> Any:
    """Return the scratch memory of a stream, where one product runs after the other."""
    import cupy

    return cupy.empty(_WORKSPACE_BYTES, dtype=np.uint8)


@functools.cache
def _plan(shape: Geometry, compute: int, device: int, alignment: int) -> Plan:
    """Describe a product and let the library choose; descriptors live as long as the process."""
    library = _library()
    kind, result = DATA_TYPES[shape.dtype], DATA_TYPES[shape.result]
    scale_kind = DATA_TYPES["float64" if shape.dtype == "float64" else "float32"]
    description = library.matmul_desc_create(compute, scale_kind)
    of_product, of_matrix = library.MatmulDescAttribute, library.MatrixLayoutAttribute
    describe = functools.partial(_set, library.matmul_desc_set_attribute, description)
    (a_transposed, a_leading, a_stride), (b_transposed, b_leading, b_stride) = shape.a, shape.b
    describe(of_product.TRANSA, np.int32(b_transposed))
    describe(of_product.TRANSB, np.int32(a_transposed))

    def layout(
        kind: int, rows: int, columns: int, is_transposed: bool, leading: int, stride: int
    ) -> int:
        size = (columns, rows) if is_transposed else (rows, columns)
        made: int = library.matrix_layout_create(kind, *size, leading)
        if shape.batch > 1:
            set_attribute = functools.partial(_set, library.matrix_layout_set_attribute, made)
            set_attribute(of_matrix.BATCH_COUNT, np.int32(shape.batch))
            set_attribute(of_matrix.STRIDED_BATCH_OFFSET, np.int64(stride))
        return made

    # The factors change places, and each is seen by columns: (columns of y, inner) comes first.
    first = layout(kind, shape.columns, shape.inner, b_transposed, b_leading, b_stride)
    second = layout(kind, shape.inner, shape.rows, a_transposed, a_leading, a_stride)
    output = layout(
        result, shape.columns, shape.rows, False, shape.columns, shape.rows * shape.columns
    )
    algorithm = _choose(description, first, second, output, device, alignment)
    return Plan(description, first, second, output, algorithm)


def _choose(
    description: int, first: int, second: int, output: int, device: int, alignment: int
) -> Any:
    library = _library()
    preference = library.matmul_preference_create()
    of = library.MatmulPreferenceAttribute
    prefer = functools.partial(_set, library.matmul_preference_set_attribute, preference)
    prefer(of.MAX_WORKSPACE_BYTES, np.uint64(_WORKSPACE_BYTES))
    for name in ("MIN_ALIGNMENT_A_BYTES", "MIN_ALIGNMENT_B_BYTES"):
        prefer(getattr(of, name), np.uint32(alignment))
    found, number = library.MatmulHeuristicResult(1), np.zeros(1, np.int32)
    library.matmul_algo_get_heuristic(
        _handle(device), description, first, second, output, output, preference, 1,
        found.ptr, number.ctypes.data,
    )  # fmt: skip
    library.matmul_preference_destroy(preference)
    if not number[0]:
        raise CaptureError("cuBLASLt has no algorithm for a product of this step")
    return found


def _set(setter: Callable[..., None], owner: int, attribute: int, value: np.generic) -> None:
    held = np.asarray(value)
    setter(owner, int(attribute), held.ctypes.data, held.nbytes)
