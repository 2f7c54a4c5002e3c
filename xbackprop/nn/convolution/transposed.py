"""Transposed convolutions: what a convolution does to gradients, as a layer."""

import math
from collections.abc import Sequence
from typing import Any

from xbackprop.backend.array_module import Array
from xbackprop.backend.device import Device
from xbackprop.dispatch import ArraySpec, op
from xbackprop.initializers import RandomSource
from xbackprop.module import describe_layer
from xbackprop.nn.convolution.base import IntOrInts, KernelLayer, Widths
from xbackprop.nn.convolution.convolution import NO_PADDING
from xbackprop.nn.sizes import as_count, as_sizes
from xbackprop.ops.correlation import (
    correlate,
    correlate_back,
    correlate_weight,
    sum_to_channels,
)
from xbackprop.ops.padding import pad_axes, unpad_axes
from xbackprop.ops.windows import Sizes, kernel_span


def spread_lengths(
    lengths: Sizes, kernel_size: Sizes, stride: Sizes, dilation: Sizes
) -> tuple[int, ...]:
    """Return the lengths of the axes that ``lengths`` windows of a convolution cover."""
    axes = zip(lengths, kernel_size, stride, dilation, strict=True)
    return tuple((n - 1) * s + kernel_span(k, d) for n, k, s, d in axes)


def _convolution_transpose_flops(x: ArraySpec, weight: ArraySpec, *_: Any) -> int:
    return 2 * x.shape[0] * math.prod(x.shape[2:]) * math.prod(weight.shape)


def _convolution_transpose_backward_flops(
    grad_output: ArraySpec,
    x: ArraySpec,
    weight: ArraySpec,
    stride: Sizes = (1, 1),
    padding: Widths = NO_PADDING,
    dilation: Sizes = (1, 1),
    groups: int = 1,
    input_grad: bool = True,
    weight_grad: bool = True,
    *_: Any,
) -> int:
    return (input_grad + weight_grad) * _convolution_transpose_flops(x, weight)


@op(
    formula="output = einsum('nchwij,coij->nohw', lib.stride_tricks.sliding_window_view("
    "pad(x, ((0, 0), (0, 0), (weight.shape[2] - 1,) * 2, (weight.shape[3] - 1,) * 2)), "
    "weight.shape[2:], (2, 3)), weight[:, :, ::-1, ::-1]) + bias[:, None, None]",
    flops=_convolution_transpose_flops,
)
def convolution_transpose_forward(
    x: Array,
    weight: Array,
    bias: Array | None,
    stride: Sizes = (1, 1),
    padding: Widths = NO_PADDING,
    dilation: Sizes = (1, 1),
    groups: int = 1,
    output_padding: Sizes = (0, 0),
) -> tuple[Array, Any]:
    """Compute ``y[n, o, j] = b[o] + sum of w[c, o, k] x[n, c, i]``.

    The sum is over the channels ``c`` and all ``i stride + k dilation = j + padding``. Defaults are
    those of two axes.

    Parameters
    ----------
    x : array, shape (batch, in_channels, lengths...)
        Any number of axes after the channels.
    weight : array, shape (in_channels, out_channels / groups, kernel_size...)
        Same float dtype as ``x``.
    bias : array, shape (out_channels,), or None
        Added to every channel.
    stride : tuple of int
        Distance of what neighbours of ``x`` are spread over, one number an axis.
    padding : tuple of (before, after)
        What is cut off at the ends of the axes.
    dilation : tuple of int
        Distance of the kernel's elements, one number an axis.
    groups : int
        Outputs of one group see the inputs of that group only.
    output_padding : tuple of int
        Added to the length of the output, at its end.

    Returns
    -------
    output : array, shape (batch, out_channels, output_lengths...)
    saved : (x, weight, stride, padding, dilation, groups)

    Notes
    -----
    With ``W`` and ``X`` as in :func:`convolution_forward`, a convolution takes ``z`` to ``W X(z)``,
    and the gradient ``h`` of its output to the gradient ``X'(W^T h)`` of its input, where ``X'``
    puts every element back to where ``X`` took it from. This layer computes ``y = X'(W^T x) + b``:
    it adds every element of ``x``, times the kernel, where the kernel would have stood. ``X'`` is
    the adjoint of ``X``, so with ``g = dLoss/dy`` the gradients are products of the convolution
    itself: ``dLoss/dx = W X(g)``, ``dLoss/dW = x X(g)^T``, and ``dLoss/db`` is the sum of ``g``
    over all but its channels.

    The windows of one group are in memory during the call, ``out_channels / groups * kernel
    elements`` numbers a position of ``x``.

    References
    ----------
    Dumoulin, Visin, "A guide to convolution arithmetic for deep learning", arXiv:1603.07285,
    chapter 4.
    """
    covered = spread_lengths(x.shape[2:], weight.shape[2:], stride, dilation)
    lengths = tuple(n + more for n, more in zip(covered, output_padding, strict=True))
    spread = correlate_back(x, weight, lengths, stride, dilation, groups)
    output = unpad_axes(spread, padding, "zeros")
    if bias is not None:
        output += bias.reshape(-1, *(1,) * len(stride))
    return output, (x, weight, stride, padding, dilation, groups)


@op(
    formula="grad_input = einsum('nohwij,coij->nchw', lib.stride_tricks.sliding_window_view("
    "grad_output, weight.shape[2:], (2, 3)), weight); "
    "grad_weight = einsum('nchw,nohwij->coij', x, lib.stride_tricks.sliding_window_view("
    "grad_output, weight.shape[2:], (2, 3))); "
    "grad_bias = grad_output.sum((0, 2, 3))",
    flops=_convolution_transpose_backward_flops,
)
def convolution_transpose_backward(
    grad_output: Array,
    x: Array,
    weight: Array,
    stride: Sizes = (1, 1),
    padding: Widths = NO_PADDING,
    dilation: Sizes = (1, 1),
    groups: int = 1,
    input_grad: bool = True,
    weight_grad: bool = True,
    bias_grad: bool = True,
) -> tuple[Array | None, Array | None, Array | None]:
    """Return ``W X(g)``, ``x X(g)^T`` and the sum of ``g``; None for what is not wanted."""
    kernel_size, options = weight.shape[2:], (stride, dilation, groups)
    grad_input = grad_weight = None
    if input_grad or weight_grad:
        covered = spread_lengths(x.shape[2:], kernel_size, stride, dilation)
        # What output_padding added at the end saw no element of x.
        grad = pad_axes(grad_output, padding, "zeros")[(..., *map(slice, covered))]
        grad_input = correlate(grad, weight, *options) if input_grad else None
        grad_weight = correlate_weight(x, grad, kernel_size, *options) if weight_grad else None
    grad_bias = sum_to_channels(grad_output) if bias_grad else None
    return grad_input, grad_weight, grad_bias


class _ConvolutionTranspose(KernelLayer):
    """A transposed convolution; a subclass says over how many axes."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: IntOrInts,
        stride: IntOrInts = 1,
        padding: IntOrInts = 0,
        output_padding: IntOrInts = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: IntOrInts = 1,
        padding_mode: str = "zeros",
        *,
        device: str | Device | None = None,
        dtype: Any = None,
        rng: RandomSource = None,
    ) -> None:
        name, axes = type(self).__name__, self.spatial_axes
        self.set_channels(in_channels, out_channels, groups)
        self.set_kernel(kernel_size, stride, dilation)
        self.padding = as_sizes(name, "padding", padding, axes, 0)
        self.output_padding = as_sizes(name, "output_padding", output_padding, axes, 0)
        steps = zip(self.output_padding, self.stride, self.dilation, strict=True)
        if any(more >= max(step, distance) for more, step, distance in steps):
            raise ValueError(
                f"{name} expects output_padding less than stride or dilation; got output_padding="
                f"{self.output_padding}, stride={self.stride} and dilation={self.dilation}"
            )
        if padding_mode != "zeros":
            raise ValueError(f"{name} expects padding_mode 'zeros'; got {padding_mode!r}")
        self.padding_mode = padding_mode
        shape = (self.in_channels, self.out_channels // self.groups, *self.kernel_size)
        self.make_parameters(shape, bias, rng, dtype, device)

    def forward(self, x: Array, output_size: Sequence[int] | None = None) -> tuple[Array, Any]:
        """Spread ``(batch, in_channels, ...)``, or one sample; to ``output_size`` if given."""
        batch = self.check_axes(x)
        added = self.output_padding
        kernel = (self.kernel_size, self.stride, self.dilation)
        covered = zip(spread_lengths(batch.shape[2:], *kernel), self.padding, strict=True)
        lengths = tuple(length - 2 * cut for length, cut in covered)
        if output_size is not None:
            added = self._read_output_size(output_size, lengths, x.ndim)
        if any(length + more < 0 for length, more in zip(lengths, added, strict=True)):
            raise ValueError(
                f"{describe_layer(self)}: padding={self.padding} cuts off more than x of shape "
                f"{x.shape} is spread over"
            )
        widths = tuple((cut, cut) for cut in self.padding)
        output, saved = convolution_transpose_forward(
            batch, self.weight.value, self.bias_value(), self.stride, widths,
            self.dilation, self.groups, added,
        )  # fmt: skip
        return (output if batch.ndim == x.ndim else output[0]), saved

    def backward(self, grad_output: Array, saved: Any, *, input_grad: bool = True) -> Array | None:
        """Add the gradients of weight and bias; return that of the input."""
        grad_batch = self.as_batch(grad_output)
        grad_input, *grads = convolution_transpose_backward(
            grad_batch, *saved, input_grad, *self.wanted_gradients()
        )
        self.accumulate(*grads)
        return grad_input if grad_input is None or grad_batch is grad_output else grad_input[0]

    def _read_output_size(
        self, output_size: Any, lengths: tuple[int, ...], ndim: int
    ) -> tuple[int, ...]:
        """Return the output_padding that gives the wanted lengths; batch and channels are left."""
        axes, name = self.spatial_axes, describe_layer(self)
        if isinstance(output_size, str) or not isinstance(output_size, Sequence):
            kind = type(output_size).__name__
            raise TypeError(f"{name} expects output_size to be a sequence of ints; got {kind}")
        wanted = tuple(as_count(name, "each output_size", size, 0) for size in output_size)
        wanted = wanted[ndim - axes :] if len(wanted) == ndim else wanted
        if len(wanted) != axes:
            raise ValueError(
                f"{name} expects output_size of {axes} or {ndim} numbers; got {output_size}"
            )
        added = tuple(size - length for size, length in zip(wanted, lengths, strict=True))
        if any(not 0 <= more < step for more, step in zip(added, self.stride, strict=True)):
            most = (length + step - 1 for length, step in zip(lengths, self.stride, strict=True))
            raise ValueError(
                f"{name} expects output_size from {lengths} to {tuple(most)}; got {wanted}"
            )
        return added

    def extra_repr(self) -> str:
        """Return the constructor arguments shown by ``repr``."""
        return self.describe_options(padding=0, dilation=1, output_padding=0, groups=1, bias=True)


class ConvTranspose1d(_ConvolutionTranspose):
    """Transposed convolution of signals, ``y[o, j] = b[o] + sum w[c, o, k] x[c, i]``.

    The sum is over input channels ``c`` and all ``i stride + k dilation = j + padding``.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, padding, output_padding, groups, bias, dilation
        As for :class:`ConvTranspose2d`, with one number where that takes two.
    padding_mode, device, dtype, rng
        As for :class:`ConvTranspose2d`.

    Attributes
    ----------
    weight : Parameter, shape (in_channels, out_channels / groups, kernel_size)
    bias : Parameter, shape (out_channels,), or None

    Notes
    -----
    Takes ``(batch, in_channels, length)`` or ``(in_channels, length)``. The derivative is derived
    in :func:`convolution_transpose_forward`.

    References
    ----------
    Dumoulin, Visin, "A guide to convolution arithmetic for deep learning", arXiv:1603.07285,
    chapter 4.
    """

    spatial_axes = 1


class ConvTranspose2d(_ConvolutionTranspose):
    """Transposed convolution of images, ``y[o, j] = b[o] + sum w[c, o, k] x[c, i]``.

    The sum is over input channels ``c`` and all ``i stride + k dilation = j + padding``. It undoes
    the change of shape of a :class:`Conv2d` of the same arguments, not the change of values.

    Parameters
    ----------
    in_channels : int
        Channels of the input.
    out_channels : int
        Channels of the output.
    kernel_size : int or (int, int)
        Height and width of the kernels.
    stride : int or (int, int), default 1
        Distance of what neighbours of the input are spread over.
    padding : int or (int, int), default 0
        What is cut off at both ends of each axis.
    output_padding : int or (int, int), default 0
        Added to the lengths of the output, less than stride or dilation: several lengths of an
        image give a convolution with a stride the same output, and this says which is meant.
    groups : int, default 1
        Divides input and output channels into groups that do not see each other.
    bias : bool, default True
        False leaves ``b`` out.
    dilation : int or (int, int), default 1
        Distance of the kernel's elements.
    padding_mode : {"zeros"}
        Others are refused, as in PyTorch.
    device : str or Device, optional
        Where the parameters live; None is the default device.
    dtype : dtype, optional
        float32 (None) or float64.
    rng : Generator, int or None
        Draws the initial values, ``U(-1/sqrt(n), 1/sqrt(n))`` as PyTorch does, where ``n`` is
        ``out_channels / groups`` times the kernel's elements.

    Attributes
    ----------
    weight : Parameter, shape (in_channels, out_channels / groups, height, width)
    bias : Parameter, shape (out_channels,), or None

    Notes
    -----
    Takes ``(batch, in_channels, height, width)`` or ``(in_channels, height, width)``, and
    ``output_size`` in place of ``output_padding``. The derivative is derived in
    :func:`convolution_transpose_forward`.

    References
    ----------
    Zeiler, Krishnan, Taylor, Fergus, "Deconvolutional networks", CVPR 2010.

    Examples
    --------
    >>> import numpy as np
    >>> import xbackprop as xb
    >>> layer = xb.nn.ConvTranspose2d(8, 1, 3, stride=2, padding=1, rng=0)
    >>> x = xb.asarray(np.zeros((2, 8, 14, 14)))
    >>> layer(x).shape, layer(x, output_size=(28, 28)).shape
    ((2, 1, 27, 27), (2, 1, 28, 28))
    """

    spatial_axes = 2


class ConvTranspose3d(_ConvolutionTranspose):
    """Transposed convolution of volumes, ``y[o, j] = b[o] + sum w[c, o, k] x[c, i]``.

    The sum is over input channels ``c`` and all ``i stride + k dilation = j + padding``.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, padding, output_padding, groups, bias, dilation
        As for :class:`ConvTranspose2d`, with three numbers where that takes two.
    padding_mode, device, dtype, rng
        As for :class:`ConvTranspose2d`.

    Attributes
    ----------
    weight : Parameter, shape (in_channels, out_channels / groups, depth, height, width)
    bias : Parameter, shape (out_channels,), or None

    Notes
    -----
    Takes ``(batch, in_channels, depth, height, width)`` or one sample without ``batch``. The
    derivative is derived in :func:`convolution_transpose_forward`.

    References
    ----------
    Dumoulin, Visin, "A guide to convolution arithmetic for deep learning", arXiv:1603.07285,
    chapter 4.
    """

    spatial_axes = 3
