"""A bias and an activation in one launch, and backward the gradient of both in one pass.

Not yet measured on a GPU. The tests run the source beside this file on the CPU and compare it with
the reference.
"""

import math
from typing import Any

import numpy as np

from xbackprop.backend.array_module import Array
from xbackprop.dispatch import ArraySpec
from xbackprop.kernels.cuda import columns, elementwise
from xbackprop.kernels.cuda.sources import (
    ALIGNED,
    MOST_BLOCKS,
    TYPES,
    Source,
    count_bytes,
    expand,
    is_aligned,
    is_float,
    pack_size,
)
from xbackprop.nn import fusion as ops

_THREADS = 256
_COLUMNS = 32  # packs of a block, in the backward
_CHOICES = {"T": TYPES.values(), "A": ALIGNED.values()}
SOURCE = Source(
    __file__,
    [
        *expand("bias_forward<{F}, {T}, {A}>", F=("Relu", "GeluTanh"), **_CHOICES),
        *expand("bias_backward<{F}, {T}, {A}>", F=("ReluGradient", "GeluTanhGradient"), **_CHOICES),
        "join_columns<float>",
    ],
)


def can_serve(x: ArraySpec, bias: ArraySpec) -> bool:
    """Tell whether a bias is added to rows of its dtype, side by side."""
    size = math.prod(x.shape)
    return (
        bias.shape == x.shape[-1:]
        and 0 < size <= _THREADS * MOST_BLOCKS
        and is_float(x, bias)
    )  # fmt: skip


def can_serve_relu_backward(
    grad_output: ArraySpec, output: ArraySpec, bias_grad: bool = True
) -> bool:
    """Tell whether both are of one dtype and shape, side by side."""
    return len(output.shape) > 0 and elementwise.can_serve(grad_output, output)


def can_serve_gelu_backward(
    grad_output: ArraySpec, x: ArraySpec, bias: ArraySpec, bias_grad: bool = True
) -> bool:
    """Tell whether all are of one dtype, side by side."""
    return can_serve_relu_backward(grad_output, x) and can_serve(x, bias)


def bytes_forward(x: ArraySpec, bias: ArraySpec) -> int:
    """Return the bytes of the inputs and of the result."""
    return count_bytes(x, bias, x)


def launches_backward(grad_output: ArraySpec, *rest: Any) -> int:
    """Return one launch, and one more where blocks share a column of the bias's gradient."""
    rows, _ = _layout(grad_output.shape)
    return columns.count_launches(rows, np.dtype(np.float32)) if _is_sum_wanted(rest) else 1


def bytes_backward(grad_output: ArraySpec, *rest: Any) -> int:
    """Return the bytes of the gradients and of what was saved."""
    rows, n = _layout(grad_output.shape)
    saved = [value for value in rest if isinstance(value, ArraySpec)]
    sums = columns.count_column_bytes(rows, n, 0, 0, 1, 4) if _is_sum_wanted(rest) else 0
    return count_bytes(grad_output, grad_output, *saved) + sums


def _is_sum_wanted(rest: tuple[Any, ...]) -> bool:
    return rest[-1] is not False


@ops.bias_relu_forward.kernel("cuda", when=can_serve, launches=1, bytes_moved=bytes_forward)
def bias_relu_forward(x: Array, bias: Array) -> tuple[Array, Any]:
    """Compute ``y = max(x + b, 0)``, as the reference."""
    output = _launch_forward("Relu", x, bias)
    return output, (output,)


@ops.bias_relu_backward.kernel(
    "cuda", when=can_serve_relu_backward, launches=launches_backward, bytes_moved=bytes_backward
)
def bias_relu_backward(
    grad_output: Array, output: Array, bias_grad: bool = True
) -> tuple[Array, Array | None]:
    """Return ``g`` where ``y > 0``, else 0, and its sum over the rows, as the reference."""
    return _launch_backward("ReluGradient", grad_output, output, None, bias_grad)


@ops.bias_gelu_tanh_forward.kernel("cuda", when=can_serve, launches=1, bytes_moved=bytes_forward)
def bias_gelu_tanh_forward(x: Array, bias: Array) -> tuple[Array, Any]:
    """Compute ``gelu_tanh(x + b)``, as the reference."""
    return _launch_forward("GeluTanh", x, bias), (x, bias)


@ops.bias_gelu_tanh_backward.kernel(
    "cuda", when=can_serve_gelu_backward, launches=launches_backward, bytes_moved=bytes_backward
)
def bias_gelu_tanh_backward(
    grad_output: Array, x: Array, bias: Array, bias_grad: bool = True
) -> tuple[Array, Array | None]:
    """Return the gradient of ``x`` and its sum over the rows, as the reference."""
    return _launch_backward("GeluTanhGradient", grad_output, x, bias, bias_grad)


def _layout(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return the number of rows and their length."""
    return math.prod(shape[:-1]), shape[-1]


def _launch_forward(function: str, x: Array, bias: Array) -> Array:
    import cupy

    output = cupy.empty(x.shape, dtype=x.dtype)
    n = x.shape[-1]
    aligned = is_aligned(n, x, bias)
    SOURCE.launch(
        f"bias_forward<{function}, {TYPES[x.dtype.name]}, {ALIGNED[aligned]}>",
        -(-x.size // (pack_size(x.dtype, aligned) * _THREADS)), _THREADS,
        x, bias, np.int64(x.size), np.int64(n), output,
    )  # fmt: skip
    return output


def _launch_backward(
    gradient: str, grad_output: Array, x: Array, bias: Array | None, bias_grad: bool
) -> tuple[Array, Array | None]:
    import cupy

    rows, n = _layout(x.shape)
    blocks = columns.block_count(rows)
    grad_input = cupy.empty(x.shape, dtype=x.dtype)
    sums = cupy.empty((blocks, n), dtype=np.float32) if bias_grad else None
    aligned = is_aligned(n, grad_output, x, bias)
    strips = -(-n // (pack_size(x.dtype, aligned) * _COLUMNS))
    SOURCE.launch(
        f"bias_backward<{gradient}, {TYPES[x.dtype.name]}, {ALIGNED[aligned]}>",
        (strips, blocks), 256, grad_output, x, bias, np.int64(rows), np.int64(n),
        np.int64(columns.rows_of_block(rows)), grad_input, sums,
    )  # fmt: skip
    if sums is None or blocks == 1:
        return grad_input, None if sums is None else sums.reshape(n)
    grad_bias = cupy.empty(n, dtype=np.float32)
    SOURCE.launch(
        "join_columns<float>", -(-n // 256), 256,
        None, sums, np.int64(blocks), np.int64(n), None, grad_bias,
    )  # fmt: skip
    return grad_input, grad_bias
