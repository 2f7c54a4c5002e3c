"""Convolutions of stride 1 as products of columns, some samples at a time; NumPy alone.

Where numba is installed, kernels of 3x3 between enough channels go Winograd's way, which takes 16
products for 36: :mod:`xbackprop.kernels.cpu.nn.convolution.convolution.winograd`.
"""

from typing import Any

import numpy as np

from xbackprop.dispatch import ArraySpec
from xbackprop.kernels.cpu.nn.convolution.convolution import winograd
from xbackprop.kernels.cpu.nn.convolution.convolution.bias import sum_to_channels, write_with_bias
from xbackprop.kernels.cpu.nn.convolution.convolution.columns import Columns, Grid, view
from xbackprop.kernels.loops import HAS_NUMBA
from xbackprop.nn.convolution.base import Widths
from xbackprop.nn.convolution.convolution import NO_PADDING, output_lengths, padded_lengths
from xbackprop.nn.convolution.convolution import convolution_backward as backward_op
from xbackprop.nn.convolution.convolution import convolution_forward as forward_op
from xbackprop.ops.padding import pad_axes, unpad_axes
from xbackprop.ops.windows import Sizes

CHANNELS = 8  # from which on Winograd's products are worth its sums
FLIPPED = 2  # outputs for an input, up to which their columns cost less than the input's
SMALLEST = 4096  # elements from which on blocks are worth their calls


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
    """Tell whether the kernel moves by ones, in one group, over something in native floats."""
    arrays = [spec for spec in (x, weight, bias) if spec is not None]
    is_plain = all(spec.dtype.isnative and spec.dtype.char in "fd" for spec in arrays)
    return set(stride) == {1} and groups == 1 and 0 not in x.shape and is_plain


def can_go_back(
    grad_output: ArraySpec,
    x: ArraySpec,
    weight: ArraySpec,
    stride: Sizes = (1, 1),
    padding: Widths = NO_PADDING,
    dilation: Sizes = (1, 1),
    groups: int = 1,
    padding_mode: str = "zeros",
    input_grad: bool = True,
    *_: bool,
) -> bool:
    """Tell the same of a backward, but not where many outputs are looked back at."""
    looks_at_few = not input_grad or weight.shape[0] <= FLIPPED * weight.shape[1]
    return can_serve(x, weight, grad_output, stride, padding, dilation, groups, padding_mode) and (
        looks_at_few or suits_winograd(x, weight, padding, dilation, padding_mode)
    )


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
    saved = (x, weight, stride, padding, dilation, groups, padding_mode)
    if suits_winograd(x, weight, padding, dilation, padding_mode):
        counts = output_lengths(x, weight, stride, padding, dilation)
        before = padding[0][0], padding[1][0]
        with winograd.sharing(weight, len(x), counts) as threads:
            return winograd.convolve(x, weight, bias, before, counts, threads), saved
    if padding_mode != "zeros":
        x, padding = pad_axes(x, padding, padding_mode), ((0, 0),) * len(padding)
    grid = Grid(padded_lengths(x.shape[2:], padding), weight.shape[2:], dilation)
    matrix = weight.reshape(len(weight), -1)
    output = np.empty((len(x), len(weight), *grid.counts), x.dtype)
    offsets = None if bias is None else bias.reshape(-1, *(1,) * len(padding))
    start = grid.place([before for before, _ in padding])
    columns = Columns(grid, x, grid.size, start, 0, grid.span, len(weight))
    for block in columns.blocks():
        picked = _multiply(matrix, columns, block, grid.counts)
        write_with_bias(picked, offsets, output[block])
    return output, saved


@backward_op.kernel("cpu", when=can_go_back, smallest=SMALLEST)
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
    if suits_winograd(x, weight, padding, dilation, padding_mode):
        wanted = input_grad, weight_grad, bias_grad
        return _by_winograd(grad_output, x, weight, padding, *wanted)
    grad_bias = sum_to_channels(grad_output) if bias_grad else None
    widths = padding
    if padding_mode != "zeros":
        x, widths = pad_axes(x, padding, padding_mode), ((0, 0),) * len(padding)
    grid = Grid(padded_lengths(x.shape[2:], widths), weight.shape[2:], dilation)
    start = grid.place([before for before, _ in widths])
    grad_input = grad_weight = None
    if input_grad:
        grad_input, grad_weight = _both(grad_output, x, weight, grid, start, weight_grad)
        if padding_mode != "zeros":
            grad_input = unpad_axes(grad_input, padding, padding_mode)
    elif weight_grad:
        grad_weight = _weight_alone(grad_output, x, weight, grid, start)
    return grad_input, grad_weight, grad_bias


def suits_winograd(
    x: np.ndarray | ArraySpec,
    weight: np.ndarray | ArraySpec,
    padding: Widths,
    dilation: Sizes,
    padding_mode: str,
) -> bool:
    """Tell whether it is a dense kernel of 3x3 with zeros around, between enough channels."""
    return (
        HAS_NUMBA
        and x.dtype == np.float32
        and weight.shape[2:] == (3, 3)
        and min(weight.shape[:2]) >= CHANNELS
        and set(dilation) == {1}
        and padding_mode == "zeros"
        and max(map(max, padding)) <= 2  # the gradient is padded with what is left of 2
    )


def _by_winograd(
    grad: np.ndarray,
    x: np.ndarray,
    weight: np.ndarray,
    padding: Widths,
    input_grad: bool,
    weight_grad: bool,
    bias_grad: bool,
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    """Return the gradients; that of the input is a convolution of ``grad``."""
    before = padding[0][0], padding[1][0]
    grad_input = grad_weight = grad_bias = None
    with winograd.sharing(weight, len(grad), grad.shape[2:]) as threads:
        if bias_grad:
            grad_bias = sum_to_channels(grad)
        if weight_grad:  # before grad_input, which need not lie beside the sums of both
            grad_weight = winograd.weight_gradient(grad, x, before, threads)
        if input_grad:
            flipped, rest = np.flip(weight, (2, 3)).swapaxes(0, 1), (2 - before[0], 2 - before[1])
            grad_input = winograd.convolve(grad, flipped, None, rest, x.shape[2:], threads)
    return grad_input, grad_weight, grad_bias


def _both(
    grad: np.ndarray, x: np.ndarray, weight: np.ndarray, grid: Grid, start: int, weight_grad: bool
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the gradients of input and weight; both multiply what flipped kernels see of ``grad``.

    Every element of the input was seen by those positions from which a kernel reaches it, and looks
    back at them. So ``grad`` lies in the row with the reach of a kernel before it.
    """
    axes = tuple(range(2, weight.ndim))
    flipped = np.flip(weight, axes)
    matrix = flipped.swapaxes(0, 1).reshape(weight.shape[1], -1)
    count = grid.place([length - 1 for length in x.shape[2:]]) + 1
    columns = Columns(grid, grad, grid.size + grid.reach, grid.reach, start, count, x.shape[1])
    grad_input = np.empty(x.shape, x.dtype)
    if not weight_grad:
        for block in columns.blocks():
            grad_input[block] = _multiply(matrix, columns, block, x.shape[2:])
        return grad_input, None
    rows = np.zeros((x.shape[1], columns.samples, count), x.dtype)
    grad_weight = np.zeros(matrix.shape, x.dtype)
    for block in columns.blocks():
        samples = block.stop - block.start
        rows = rows if samples == columns.samples else np.zeros_like(rows[:, :samples])
        view(rows, 0, rows.shape[:2], grid, x.shape[2:])[...] = x[block].swapaxes(0, 1)
        seen = rows.reshape(len(rows), -1)
        grad_input[block] = _multiply(matrix, columns, block, x.shape[2:], seen, grad_weight)
    parts = grad_weight.reshape(weight.shape[1], len(weight), *grid.kernel_size)
    return grad_input, np.ascontiguousarray(np.flip(parts.swapaxes(0, 1), axes))


def _weight_alone(
    grad: np.ndarray, x: np.ndarray, weight: np.ndarray, grid: Grid, start: int
) -> np.ndarray:
    """Return the gradient of the weight: of what kernels saw in ``x``."""
    columns = Columns(grid, x, grid.size, start, 0, grid.span, len(weight))
    rows = np.zeros((len(weight), columns.samples, grid.span), x.dtype)
    total = np.zeros((len(weight), weight[0].size), x.dtype)
    for block in columns.blocks():
        samples = block.stop - block.start
        rows = rows if samples == columns.samples else np.zeros_like(rows[:, :samples])
        view(rows, 0, rows.shape[:2], grid, grid.counts)[...] = grad[block].swapaxes(0, 1)
        flat = rows.reshape(len(rows), -1)
        for piece, matrix in columns.pieces(samples):
            total += flat[:, piece].dot(matrix.T)
    return total.reshape(weight.shape)


def _multiply(
    matrix: np.ndarray,
    columns: Columns,
    block: slice,
    lengths: tuple[int, ...],
    seen: np.ndarray | None = None,
    total: np.ndarray | None = None,
) -> np.ndarray:
    """Multiply a block of columns; return the view of the result that has the wanted axes.

    With ``seen``, add its product with the columns to ``total`` on the way.
    """
    samples = block.stop - block.start
    result = np.empty((len(matrix), samples * columns.count), matrix.dtype)
    for piece, part in columns.pieces(samples):
        np.matmul(matrix, part, out=result[:, piece])
        if seen is not None and total is not None:
            total += seen[:, piece].dot(part.T)
    rows = result.reshape(len(matrix), samples, columns.count)
    return view(rows, 0, rows.shape[:2], columns.grid, lengths).swapaxes(0, 1)
