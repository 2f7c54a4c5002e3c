"""The windows that a kernel sees as it moves over an array, and the way back.

The loops go over the kernel's elements; each step copies or adds one strided slice. No element is
addressed twice within a step, so sums are deterministic on every device.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from xbackprop.backend.array_module import Array, get_array_module

Sizes = Sequence[int]


def kernel_span(kernel_size: int, dilation: int) -> int:
    """Return how many elements of its axis a dilated kernel reaches over."""
    return dilation * (kernel_size - 1) + 1


def window_counts(
    lengths: Sizes, kernel_size: Sizes, stride: Sizes, dilation: Sizes
) -> tuple[int, ...]:
    """Return how many windows fit along each axis; less than one where the kernel is too long."""
    axes = zip(lengths, kernel_size, stride, dilation, strict=True)
    return tuple((n - kernel_span(k, d)) // s + 1 for n, k, s, d in axes)


def gather_windows(
    x: Array, kernel_size: Sizes, counts: Sizes, stride: Sizes, dilation: Sizes
) -> Array:
    """Copy the first ``counts`` windows of every axis.

    Parameters
    ----------
    x : array, shape (batch, channels, *lengths)
        Any number of axes after the channels.
    kernel_size : sequence of int
        One number an axis.
    counts : sequence of int
        At least one and at most :func:`window_counts` an axis.
    stride, dilation : sequence of int
        One number an axis.

    Returns
    -------
    array, shape (channels, *kernel_size, batch, *counts)
        Element ``[c, k, n, i]`` is ``x[n, c, i * stride + k * dilation]``.
    """
    shape = (x.shape[1], *kernel_size, x.shape[0], *counts)
    windows = get_array_module(x).empty(shape, dtype=x.dtype)
    by_channel = x.swapaxes(0, 1)
    for offset, slices in _offsets(kernel_size, counts, stride, dilation):
        windows[(slice(None), *offset)] = by_channel[(slice(None), slice(None), *slices)]
    return windows


def scatter_windows(windows: Array, lengths: Sizes, stride: Sizes, dilation: Sizes) -> Array:
    """Add every element of the windows to where it came from: the adjoint of `gather_windows`.

    Parameters
    ----------
    windows : array, shape (channels, *kernel_size, batch, *counts)
        As `gather_windows` returns them.
    lengths : sequence of int
        Of the result's axes; no window may reach beyond.
    stride, dilation : sequence of int
        One number an axis.

    Returns
    -------
    array, shape (batch, channels, *lengths)
        A fresh one; elements that no window saw are 0.
    """
    axes = len(lengths)
    kernel_size, counts = windows.shape[1 : 1 + axes], windows.shape[2 + axes :]
    shape = (windows.shape[1 + axes], windows.shape[0], *lengths)
    x = get_array_module(windows).zeros(shape, dtype=windows.dtype)
    by_channel = x.swapaxes(0, 1)
    for offset, slices in _offsets(kernel_size, counts, stride, dilation):
        by_channel[(slice(None), slice(None), *slices)] += windows[(slice(None), *offset)]
    return x


def _offsets(
    kernel_size: Sizes, counts: Sizes, stride: Sizes, dilation: Sizes
) -> Iterator[tuple[tuple[int, ...], tuple[slice, ...]]]:
    """Yield each element of the kernel with the slices of what all windows hold there."""
    for offset in np.ndindex(*kernel_size):
        axes = zip(offset, counts, stride, dilation, strict=True)
        yield offset, tuple(slice(k * d, k * d + s * (n - 1) + 1, s) for k, n, s, d in axes)
