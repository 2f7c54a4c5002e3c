"""Convolutions between few channels: of images of one channel, depthwise, of small groups."""

import math
from typing import Any

import numpy as np

from xbackprop.dispatch import ArraySpec
from xbackprop.kernels.cpu.nn.convolution.convolution.bias import sum_to_channels
from xbackprop.kernels.cpu.nn.convolution.convolution.layout import layout
from xbackprop.kernels.cpu.nn.convolution.convolution.specs import are_of_one_float, as_for_forward
from xbackprop.kernels.loops import HAS_NUMBA, loops
from xbackprop.nn.convolution.base import Widths
from xbackprop.nn.convolution.convolution import NO_PADDING, output_lengths
from xbackprop.nn.convolution.convolution import convolution_backward as backward_op
from xbackprop.nn.convolution.convolution import convolution_forward as forward_op
from xbackprop.ops.windows import Sizes

CHANNELS = 8  # of each group; beyond, products pay
ELEMENTS = 27  # of a kernel, the same where there is one group
POSITIONS = 64  # of an output; loops over less are too short where a product takes all at once
SMALLEST = 256  # elements


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
    """Tell whether few channels meet in an output, over one or two axes with zeros around.

    In one group a product of matrices takes all outputs at once, so there it is stride 1 only.
    """
    return (
        HAS_NUMBA
        and len(x.shape) in (3, 4)
        and weight.shape[1] <= CHANNELS
        and padding_mode == "zeros"
        and 0 not in x.shape
        and are_of_one_float(x, weight, bias)
        and (groups > 1 or _suits_one_group(x, weight, stride, padding, dilation))
    )


def _suits_one_group(
    x: ArraySpec, weight: ArraySpec, stride: Sizes, padding: Widths, dilation: Sizes
) -> bool:
    counts = output_lengths(x, weight, stride, padding, dilation)
    elements = math.prod(weight.shape[1:])
    return set(stride) == {1} and elements <= ELEMENTS and math.prod(counts) >= POSITIONS


def _in_groups(x: np.ndarray, groups: int) -> np.ndarray:
    """Return ``(samples, channels, ...)`` as ``(samples, groups, channels, height, width)``."""
    height, width = (1, *x.shape[2:])[-2:]
    shape = len(x), groups, x.shape[1] // groups, height, width
    return np.ascontiguousarray(x).reshape(shape)


def _kernels(weight: np.ndarray, groups: int) -> np.ndarray:
    """Return a weight as ``(groups, outputs, channels, elements)``."""
    shape = groups, len(weight) // groups, weight.shape[1], math.prod(weight.shape[2:])
    return np.ascontiguousarray(weight).reshape(shape)


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
    offsets = np.zeros(len(weight), x.dtype) if bias is None else np.ascontiguousarray(bias)
    loops("direct").convolve(
        _in_groups(x, groups), _kernels(weight, groups), offsets.reshape(groups, -1),
        *layout(x, weight, stride, padding, dilation), _in_groups(output, groups),
    )  # fmt: skip
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
    where = layout(x, weight, stride, padding, dilation)
    grad, kernels = _in_groups(grad_output, groups), _kernels(weight, groups)
    grad_input = grad_weight = None
    if input_grad:
        grad_input = np.empty(x.shape, x.dtype)
        result = _in_groups(grad_input, groups)
        loops("direct").input_gradient(grad, kernels, *where, result)
    if weight_grad:
        grad_weight = np.zeros(weight.shape, weight.dtype)
        result = _kernels(grad_weight, groups)
        loops("direct").weight_gradient(grad, _in_groups(x, groups), *where, result)
    return grad_input, grad_weight, sum_to_channels(grad_output) if bias_grad else None
