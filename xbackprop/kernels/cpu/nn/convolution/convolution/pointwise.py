"""Convolutions whose kernel is one element: a product of matrices a sample, and no copy."""

import math
from typing import Any

import numpy as np

from xbackprop.dispatch import ArraySpec
from xbackprop.kernels.cpu.nn.convolution.convolution.bias import sum_to_channels
from xbackprop.kernels.cpu.nn.convolution.convolution.specs import are_of_one_float, as_for_forward
from xbackprop.nn.convolution.base import Widths
from xbackprop.nn.convolution.convolution import NO_PADDING
from xbackprop.nn.convolution.convolution import convolution_backward as backward_op
from xbackprop.nn.convolution.convolution import convolution_forward as forward_op
from xbackprop.ops.windows import Sizes

POSITIONS = 64  # of a sample's output; with less, one product of all samples is faster
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
    """Tell whether the kernel is one element, without padding, over enough positions."""
    counts = (-(-n // s) for n, s in zip(x.shape[2:], stride, strict=True))
    return (
        set(weight.shape[2:]) == {1}
        and not any(map(any, padding))
        and 0 not in x.shape
        and math.prod(counts) >= POSITIONS
        and are_of_one_float(x, weight, bias)
    )


def _seen(stride: Sizes) -> tuple[slice, ...]:
    """Return the index of what the kernel sees."""
    return (slice(None), slice(None), *(slice(None, None, step) for step in stride))


def _in_groups(x: np.ndarray, groups: int) -> np.ndarray:
    """Return ``(samples, channels, lengths...)`` as ``(samples, groups, channels, positions)``."""
    return x.reshape(len(x), groups, x.shape[1] // groups, math.prod(x.shape[2:]))


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
    seen = x[_seen(stride)]
    matrices = weight.reshape(groups, len(weight) // groups, weight.shape[1])
    output = np.matmul(matrices, _in_groups(seen, groups))
    output = output.reshape(len(x), len(weight), *seen.shape[2:])
    if bias is not None:
        output += bias.reshape(-1, *(1,) * len(stride))
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
    grad, seen = _in_groups(grad_output, groups), x[_seen(stride)]
    matrices = weight.reshape(groups, len(weight) // groups, weight.shape[1])
    grad_input = grad_weight = None
    if input_grad:
        grad_input = np.matmul(matrices.swapaxes(1, 2), grad).reshape(seen.shape)
        if seen.shape != x.shape:
            grad_seen, grad_input = grad_input, np.zeros(x.shape, x.dtype)
            grad_input[_seen(stride)] = grad_seen
    if weight_grad:
        total = np.zeros(matrices.shape, weight.dtype)
        for g, rows in zip(grad, _in_groups(seen, groups), strict=True):
            total += np.matmul(g, rows.swapaxes(1, 2))
        grad_weight = total.reshape(weight.shape)
    return grad_input, grad_weight, sum_to_channels(grad_output) if bias_grad else None
