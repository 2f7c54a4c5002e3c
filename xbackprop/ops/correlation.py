"""A kernel that slides over an array, as one matrix product a group, and its two adjoints.

All three have the windows of one group in memory: ``channels / groups * kernel elements`` numbers
for every output position of the batch.
"""

import math
from collections.abc import Sequence

import numpy as np

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.backend.half import is_half, widened
from xbackprop.ops.matmul import product
from xbackprop.ops.windows import Sizes, gather_windows, scatter_windows, window_counts


def correlate(x: Array, weight: Array, stride: Sizes, dilation: Sizes, groups: int) -> Array:
    """Slide kernels over an array: ``y[n, o, i] = sum_ck weight[o, c, k] x[n, c, i s + k d]``.

    Parameters
    ----------
    x : array, shape (batch, channels, *lengths)
        Padded already.
    weight : array, shape (out_channels, channels / groups, *kernel_size)
        Its first axis and the channels of ``x`` are divided into ``groups``, in order.
    stride, dilation : sequence of int
        One number an axis.
    groups : int
        How many products there are.

    Returns
    -------
    array, shape (batch, out_channels, *counts)
        The memory holds channels first.
    """
    counts = window_counts(x.shape[2:], weight.shape[2:], stride, dilation)
    parts = []
    for part, matrix in zip(_split(x, groups, 1), _split(_as_matrix(weight), groups), strict=True):
        windows = gather_windows(part, weight.shape[2:], counts, stride, dilation)
        parts.append(product(matrix, _as_columns(windows, len(counts))))
    output = _join(parts).reshape(weight.shape[0], x.shape[0], *counts)
    return output.swapaxes(0, 1)


def correlate_back(
    grad: Array, weight: Array, lengths: Sizes, stride: Sizes, dilation: Sizes, groups: int
) -> Array:
    """Return the gradient of the input of `correlate`: every product back to where it came from.

    Parameters
    ----------
    grad : array, shape (batch, out_channels, *counts)
        Of the output.
    weight : array, shape (out_channels, channels / groups, *kernel_size)
        As for `correlate`.
    lengths : sequence of int
        Of the input's axes.
    stride, dilation : sequence of int
        One number an axis.
    groups : int
        How many products there are.

    Returns
    -------
    array, shape (batch, channels, *lengths)
    """
    kernel_size, tail = weight.shape[2:], (grad.shape[0], *grad.shape[2:])
    parts = []
    rows, matrices = _split(_channel_rows(grad), groups), _split(_as_matrix(weight), groups)
    for part, matrix in zip(rows, matrices, strict=True):
        windows = product(matrix.T, part, dtype=widened(part.dtype))  # they are added up
        windows = windows.reshape(weight.shape[1], *kernel_size, *tail)
        parts.append(scatter_windows(windows, lengths, stride, dilation))
    return _join(parts, axis=1)


def correlate_weight(
    grad: Array, x: Array, kernel_size: Sizes, stride: Sizes, dilation: Sizes, groups: int
) -> Array:
    """Return the gradient of the weight of `correlate`: the product of ``grad`` and the windows.

    Parameters
    ----------
    grad : array, shape (batch, out_channels, *counts)
        Of the output.
    x : array, shape (batch, channels, *lengths)
        As for `correlate`.
    kernel_size : sequence of int
        The weight's last axes.
    stride, dilation : sequence of int
        One number an axis.
    groups : int
        How many products there are.

    Returns
    -------
    array, shape (out_channels, channels / groups, *kernel_size)
    """
    rows, counts, channels = _channel_rows(grad), grad.shape[2:], x.shape[1] // groups
    parts = []
    for part, row in zip(_split(x, groups, 1), _split(rows, groups), strict=True):
        windows = gather_windows(part, kernel_size, counts, stride, dilation)
        parts.append(product(row, _as_columns(windows, len(counts)).T))
    return _join(parts).reshape(rows.shape[0], channels, *kernel_size)


def sum_to_channels(grad: Array) -> Array:
    """Sum over all axes but that of the channels; half precision gives a float32 sum."""
    axes = (0, *range(2, grad.ndim))
    return grad.sum(axis=axes, dtype=np.float32) if is_half(grad.dtype) else grad.sum(axis=axes)


def _as_matrix(weight: Array) -> Array:
    """View ``(out_channels, ...)`` as one row a channel, in the sizes of an empty array too."""
    return weight.reshape(weight.shape[0], math.prod(weight.shape[1:]))


def _channel_rows(x: Array) -> Array:
    return _as_matrix(x.swapaxes(0, 1))


def _as_columns(windows: Array, kernel_axes: int) -> Array:
    """View windows as a matrix: a row for each element of the kernel, a column for each window."""
    inner, outer = windows.shape[: 1 + kernel_axes], windows.shape[1 + kernel_axes :]
    return windows.reshape(math.prod(inner), math.prod(outer))


def _split(x: Array, groups: int, axis: int = 0) -> Sequence[Array]:
    return [x] if groups == 1 else get_array_module(x).split(x, groups, axis=axis)


def _join(parts: Sequence[Array], axis: int = 0) -> Array:
    return parts[0] if len(parts) == 1 else get_array_module(parts[0]).concatenate(parts, axis=axis)
