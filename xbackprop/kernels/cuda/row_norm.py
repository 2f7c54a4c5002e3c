"""Launching the normalizations of rows of ``include/row_norm.cuh``."""

import math
from typing import Any

import numpy as np

from xbackprop.backend.array_module import Array
from xbackprop.dispatch import ArraySpec
from xbackprop.kernels.cuda import columns
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
    threads_for,
)

_LEAST_EPS = 1e-12  # the squares are floats: eps must be greater than what they lose


def instances(centered: bool) -> list[str]:
    """Return what a source with these kernels instantiates."""
    kernels = expand(
        "row_norm_{D}<{T}, {C}, {A}>", D=("forward", "backward"), T=TYPES.values(),
        C=("true" if centered else "false",), A=ALIGNED.values(),
    )  # fmt: skip
    return [*kernels, *columns.INSTANCES]


def is_row_norm(x: ArraySpec, scales: tuple[ArraySpec | None, ...], axes: tuple[int, ...]) -> bool:
    """Tell whether the last axes are normalized, and weight and bias vary along these only."""
    first = len(x.shape) - len(axes)
    inner = x.shape[first:]
    return (
        axes == tuple(range(first, len(x.shape)))
        and 0 < math.prod(x.shape[:first]) <= MOST_BLOCKS
        and math.prod(inner) > 0
        and is_float(x, *scales)
        and all(s is None or s.shape == (1,) * first + inner for s in scales)
    )


def is_eps(eps: float) -> bool:
    """Tell whether eps is great enough for sums of squares in float."""
    return eps >= _LEAST_EPS


def run_forward(
    source: Source, x: Array, weight: Array | None, bias: Array | None, axes: tuple[int, ...],
    eps: float, *, centered: bool,
) -> tuple[Array, Array | None, list[Array]]:  # fmt: skip
    """Return the output, ``x_hat`` where it is wanted and another array, and the moments.

    These are ``rstd`` and, where the mean is taken off (``centered``), mean and variance.
    """
    import cupy

    rows, n, kept = _layout(x, axes)
    output = cupy.empty(x.shape, dtype=x.dtype)
    has_hat = centered and weight is not None
    x_hat = cupy.empty(x.shape, dtype=x.dtype) if has_hat else None
    moments = [cupy.empty(kept, dtype=x.dtype) for _ in range(3 if centered else 1)]
    rstd, mean, var = moments if centered else (*moments, None, None)
    aligned = is_aligned(n, x)
    source.launch(
        f"row_norm_forward<{TYPES[x.dtype.name]}, {ALIGNED[centered]}, {ALIGNED[aligned]}>",
        rows, threads_for(n // pack_size(x.dtype, aligned)),
        x, weight, bias, np.int64(n), np.float32(eps), output, x_hat, mean, var, rstd,
    )  # fmt: skip
    return output, x_hat, moments


def run_backward(
    source: Source, grad_output: Array, x: Array, rstd: Array, weight: Array | None,
    axes: tuple[int, ...], wanted: tuple[bool, bool, bool], *, centered: bool,
) -> tuple[Array | None, Array | None, Array | None]:  # fmt: skip
    """Return the gradients of input, weight and bias, as far as they are wanted.

    ``x`` is ``x_hat`` where the mean was taken off (``centered``).
    """
    import cupy

    rows, n, _ = _layout(x, axes)
    grad_input = None
    if wanted[0]:
        grad_input = cupy.empty(x.shape, dtype=x.dtype)
        aligned = is_aligned(n, grad_output, x)
        source.launch(
            f"row_norm_backward<{TYPES[x.dtype.name]}, {ALIGNED[centered]}, {ALIGNED[aligned]}>",
            rows, threads_for(n // pack_size(x.dtype, aligned)),
            grad_output, x, rstd, weight, np.int64(n), grad_input,
        )  # fmt: skip
    if weight is None or not any(wanted[1:]):
        return grad_input, None, None
    factors = None if centered else rstd
    grads = columns.sum_columns(
        source, grad_output.reshape(rows, n), x.reshape(rows, n), factors, *wanted[1:], x.dtype
    )
    shaped = [None if grad is None else grad.reshape(weight.shape) for grad in grads]
    return grad_input, shaped[0], shaped[1]


def launches_backward(
    x: ArraySpec, weight: Any, axes: tuple[int, ...], wanted: tuple[bool, bool, bool]
) -> int:
    """Return how often :func:`run_backward` launches."""
    if weight is None or not any(wanted[1:]):
        return int(wanted[0])
    return wanted[0] + columns.count_launches(_layout(x, axes)[0], x.dtype)


def bytes_forward(
    x: ArraySpec, weight: ArraySpec | None, bias: ArraySpec | None, axes: tuple[int, ...],
    *, centered: bool,
) -> int:  # fmt: skip
    """Return the bytes of input and output, what is saved, weight and bias."""
    rows, _, _ = _layout(x, axes)
    arrays = 3 if centered and weight is not None else 2
    moments = rows * x.dtype.itemsize * (3 if centered else 1)
    return arrays * count_bytes(x) + count_bytes(weight, bias) + moments


def bytes_backward(
    x: ArraySpec, weight: ArraySpec | None, axes: tuple[int, ...], wanted: tuple[bool, bool, bool]
) -> int:
    """Return the bytes of both inputs, read once for each part, and of the gradients."""
    rows, n, _ = _layout(x, axes)
    size = x.dtype.itemsize
    number = 3 * count_bytes(x) + rows * size + count_bytes(weight) if wanted[0] else 0
    if weight is not None and any(wanted[1:]):
        number += columns.count_column_bytes(rows, n, size, 1 + wanted[1], sum(wanted[1:]), size)
    return number


def _layout(x: Any, axes: tuple[int, ...]) -> tuple[int, int, tuple[int, ...]]:
    """Return the number of rows, their length, and the shape of one number for each."""
    first = len(x.shape) - len(axes)
    lead, inner = x.shape[:first], x.shape[first:]
    return math.prod(lead), math.prod(inner), lead + (1,) * len(inner)
