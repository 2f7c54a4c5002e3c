"""Convolutions of any stride as products of columns that compiled loops copy, a block at a time.

Positions that straddle the end of a line are multiplied too: with gradients of 0, which times
infinity is NaN where the reference has none.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from xbackprop.dispatch import ArraySpec
from xbackprop.kernels.cpu.nn.convolution.convolution.bias import sum_to_channels, write_with_bias
from xbackprop.kernels.cpu.nn.convolution.convolution.blocks import suits_winograd
from xbackprop.kernels.cpu.nn.convolution.convolution.layout import Layout, layout
from xbackprop.kernels.cpu.nn.convolution.convolution.specs import are_of_one_float, as_for_forward
from xbackprop.kernels.loops import HAS_NUMBA, loops
from xbackprop.nn.convolution.base import Widths
from xbackprop.nn.convolution.convolution import NO_PADDING, output_lengths, padded_lengths
from xbackprop.nn.convolution.convolution import convolution_backward as backward_op
from xbackprop.nn.convolution.convolution import convolution_forward as forward_op
from xbackprop.ops.windows import Sizes, window_counts

BLOCK = 1 << 18  # numbers in a block of columns: 1 MB in float32
COPIED = 256  # numbers for a channel of a sample, below which a loop over samples does not pay
POSITIONS = 512  # of all samples, below which the weight is larger than what it is multiplied with
SMALLEST = 4096  # elements


def can_serve(
    x: ArraySpec,
    weight: ArraySpec,
    bias: ArraySpec | None,
    stride: Sizes = (1, 1),
    padding: Widths = NO_PADDING,
    dilation: Sizes = (1, 1),
    groups: int = 1,
    padding_mode: str = "zeros",
) -> bool:
    """Tell whether it moves over one or two axes with zeros around, and there is enough to copy."""
    is_ours = (
        HAS_NUMBA
        and len(x.shape) in (3, 4)
        and padding_mode == "zeros"
        and 0 not in x.shape
        and are_of_one_float(x, weight, bias)
    )
    return is_ours and _is_worth_it(x, weight, stride, padding, dilation, groups)


def _is_worth_it(
    x: ArraySpec, weight: ArraySpec, stride: Sizes, padding: Widths, dilation: Sizes, groups: int
) -> bool:
    lengths = padded_lengths(x.shape[2:], padding)
    positions = math.prod(window_counts(lengths, weight.shape[2:], stride, dilation))
    is_winograds = (
        groups == 1 and set(stride) == {1} and suits_winograd(x, weight, padding, dilation, "zeros")
    )
    elements = math.prod(weight.shape[2:])
    return (
        not is_winograds and elements * positions >= COPIED and positions * x.shape[0] >= POSITIONS
    )


class Blocks:
    """Some samples at a time of one group, and a buffer for the columns of a block.

    Parameters
    ----------
    x, weight : numpy.ndarray
        Of the group; one axis after the channels, or two.
    stride, padding, dilation : tuple
        As for the op.
    """

    def __init__(
        self, x: np.ndarray, weight: np.ndarray, stride: Sizes, padding: Widths, dilation: Sizes
    ) -> None:
        counts = output_lengths(x, weight, stride, padding, dilation)
        self.layout: Layout = layout(x, weight, stride, padding, dilation)
        self.counts = (1, *counts)[-2:]
        self.positions = (self.counts[0] - 1) * self.layout.lengths[1] + self.counts[1]
        self.height = weight[0].size
        self.batch = len(x)
        self.samples = max(1, min(self.batch, BLOCK // (self.height * self.positions)))
        self.shape = weight.shape[1], len(self.layout.places)
        self.buffer = np.empty(self.height * self.samples * self.positions, x.dtype)

    def __iter__(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield which samples, and the buffer ``(channels, elements, samples, positions)``."""
        for start in range(0, self.batch, self.samples):
            samples = min(self.samples, self.batch - start)
            shape = (*self.shape, samples, self.positions)
            size = self.height * samples * self.positions
            yield slice(start, start + samples), self.buffer[:size].reshape(shape)

    def view(self, rows: np.ndarray) -> np.ndarray:
        """View rows ``(channels, samples, positions)`` as ``(samples, channels, *counts)``."""
        strides = *rows.strides[:2], self.layout.lengths[1] * rows.itemsize, rows.itemsize
        return as_strided(rows, (*rows.shape[:2], *self.counts), strides).swapaxes(0, 1)

    def rows(self, grad: np.ndarray) -> np.ndarray:
        """Lay gradients ``(samples, channels, *counts)`` in rows ``(channels, positions)``."""
        rows = np.zeros((grad.shape[1], len(grad), self.positions), grad.dtype)
        self.view(rows)[...] = grad
        return rows.reshape(len(rows), -1)


def _images(x: np.ndarray) -> np.ndarray:
    """Return ``(samples, channels, ...)`` as ``(samples, channels, height, width)``."""
    return np.ascontiguousarray(x).reshape(*x.shape[:2], *(1, *x.shape[2:])[-2:])


def _groups(weight: np.ndarray, groups: int) -> Iterator[tuple[slice, slice]]:
    """Go through the channels of the input and of the output that belong to each other."""
    channels, outputs = weight.shape[1], len(weight) // groups
    for g in range(groups):
        yield slice(g * channels, (g + 1) * channels), slice(g * outputs, (g + 1) * outputs)


@forward_op.kernel("cpu", when=can_serve, smallest=SMALLEST)
def convolution_forward(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None,
    stride: Sizes = (1, 1),
    padding: Widths = NO_PADDING,
    dilation: Sizes = (1, 1),
    groups: int = 1,
    padding_mode: str = "zeros",
) -> tuple[np.ndarray, Any]:
    """Return output and saved, as the op of this name."""
    counts = output_lengths(x, weight, stride, padding, dilation)
    output = np.empty((len(x), len(weight), *counts), x.dtype)
    images, results = _images(x), _images(output)
    offsets = None if bias is None else bias[:, None, None]
    blocks = Blocks(x, weight, stride, padding, dilation)
    for inputs, outputs in _groups(weight, groups):
        matrix = weight[outputs].reshape(-1, blocks.height)
        for block, columns in blocks:
            first = block.start, inputs.start
            loops("phases").gather(images, first, *blocks.layout, columns)
            product = matrix.dot(columns.reshape(blocks.height, -1))
            picked = blocks.view(product.reshape(len(matrix), -1, blocks.positions))
            added = None if offsets is None else offsets[outputs]
            write_with_bias(picked, added, results[block, outputs])
    return output, (x, weight, stride, padding, dilation, groups, padding_mode)


@backward_op.kernel("cpu", when=as_for_forward(can_serve), smallest=SMALLEST)
def convolution_backward(
    grad_output: np.ndarray,
    x: np.ndarray,
    weight: np.ndarray,
    stride: Sizes = (1, 1),
    padding: Widths = NO_PADDING,
    dilation: Sizes = (1, 1),
    groups: int = 1,
    padding_mode: str = "zeros",
    input_grad: bool = True,
    weight_grad: bool = True,
    bias_grad: bool = True,
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    """Return the gradients, as the op of this name."""
    grad_input = np.empty(x.shape, x.dtype) if input_grad else None
    grad_weight = np.empty(weight.shape, weight.dtype) if weight_grad else None
    images, grads = _images(x), _images(grad_output)
    blocks = Blocks(x, weight, stride, padding, dilation)
    for inputs, outputs in _groups(weight, groups):
        matrix = weight[outputs].reshape(-1, blocks.height)
        total = np.zeros(matrix.T.shape, weight.dtype)
        for block, columns in blocks:
            first, flat = (block.start, inputs.start), columns.reshape(blocks.height, -1)
            rows = blocks.rows(grads[block, outputs])
            if weight_grad:
                loops("phases").gather(images, first, *blocks.layout, columns)
                total += flat.dot(rows.T)  # BLAS takes twice as long for the transpose of it
            if grad_input is not None:
                np.dot(matrix.T, rows, out=flat)
                loops("phases").put_back(columns, first, *blocks.layout, _images(grad_input))
        if grad_weight is not None:
            grad_weight[outputs] = total.T.reshape(grad_weight[outputs].shape)
    return grad_input, grad_weight, sum_to_channels(grad_output) if bias_grad else None
