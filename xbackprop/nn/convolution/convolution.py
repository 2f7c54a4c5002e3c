"""Convolutions over one, two and three axes: one implementation over any number of them."""

import math
from typing import Any

from xbackprop.backend.array_module import Array
from xbackprop.backend.device import Device
from xbackprop.dispatch import ArraySpec, op
from xbackprop.initializers import RandomSource
from xbackprop.module import describe_layer
from xbackprop.nn.convolution.base import IntOrInts, KernelLayer, Widths
from xbackprop.nn.sizes import as_sizes
from xbackprop.ops.correlation import (
    correlate,
    correlate_back,
    correlate_weight,
    sum_to_channels,
)
from xbackprop.ops.padding import pad_axes, unpad_axes
from xbackprop.ops.windows import Sizes, kernel_span, window_counts

PADDING_MODES = ("zeros", "reflect", "replicate", "circular")

NO_PADDING: Widths = ((0, 0), (0, 0))


def padded_lengths(lengths: Sizes, padding: Widths) -> tuple[int, ...]:
    """Return the lengths of axes with what is added at both ends."""
    return tuple(n + sum(width) for n, width in zip(lengths, padding, strict=True))


def output_lengths(
    x: Array | ArraySpec,
    weight: Array | ArraySpec,
    stride: Sizes,
    padding: Widths,
    dilation: Sizes,
) -> tuple[int, ...]:
    """Return the lengths of a convolution's output, one an axis."""
    lengths = padded_lengths(x.shape[2:], padding)
    return window_counts(lengths, weight.shape[2:], stride, dilation)


def _convolution_flops(
    x: ArraySpec,
    weight: ArraySpec,
    bias: ArraySpec | None,
    stride: Sizes = (1, 1),
    padding: Widths = NO_PADDING,
    dilation: Sizes = (1, 1),
    *_: Any,
) -> int:
    counts = output_lengths(x, weight, stride, padding, dilation)
    return 2 * x.shape[0] * math.prod(counts) * math.prod(weight.shape)


def _convolution_backward_flops(
    grad_output: ArraySpec,
    x: ArraySpec,
    weight: ArraySpec,
    stride: Sizes = (1, 1),
    padding: Widths = NO_PADDING,
    dilation: Sizes = (1, 1),
    groups: int = 1,
    padding_mode: str = "zeros",
    input_grad: bool = True,
    weight_grad: bool = True,
    *_: Any,
) -> int:
    products = 2 * x.shape[0] * math.prod(grad_output.shape[2:]) * math.prod(weight.shape)
    return (input_grad + weight_grad) * products


@op(
    formula="output = einsum('nchwij,ocij->nohw', lib.stride_tricks.sliding_window_view("
    "x, weight.shape[2:], (2, 3)), weight) + bias[:, None, None]",
    flops=_convolution_flops,
)
def convolution_forward(
    x: Array,
    weight: Array,
    bias: Array | None,
    stride: Sizes = (1, 1),
    padding: Widths = NO_PADDING,
    dilation: Sizes = (1, 1),
    groups: int = 1,
    padding_mode: str = "zeros",
) -> tuple[Array, Any]:
    """Compute ``y[n, o, i] = b[o] + sum over c, k of w[o, c, k] x[n, c, i stride + k dilation]``.

    Here ``i`` and ``k`` have one number an axis. Defaults are those of two axes.

    Parameters
    ----------
    x : array, shape (batch, in_channels, lengths...)
        Any number of axes after the channels.
    weight : array, shape (out_channels, in_channels / groups, kernel_size...)
        Same float dtype as ``x``.
    bias : array, shape (out_channels,), or None
        Added to every channel.
    stride : tuple of int
        Steps of the kernel, one number an axis.
    padding : tuple of (before, after)
        What is added to ``x`` at the ends of its axes.
    dilation : tuple of int
        Distance of the kernel's elements, one number an axis.
    groups : int
        Outputs of one group see the inputs of that group only.
    padding_mode : {"zeros", "reflect", "replicate", "circular"}
        What is added.

    Returns
    -------
    output : array, shape (batch, out_channels, counts...)
        Its memory holds channels first.
    saved : (x, weight, stride, padding, dilation, groups, padding_mode)

    Notes
    -----
    Let ``X`` hold what the kernel sees: a row for every element ``(c, k)`` of the kernel, a column
    for every position ``(n, i)``, so ``X[(c, k), (n, i)] = x[n, c, i stride + k dilation]``. Then
    ``y = W X + b``, one product a group, and the gradients are those of a linear map. With
    ``g = dLoss/dy`` as a matrix ``(o, (n, i))``:

    ``dLoss/dW = g X^T``, ``dLoss/db = sum of g over the columns``, and ``dLoss/dX = W^T g``, of
    which every element goes back to where it came from:
    ``dLoss/dx[n, c, j] = sum of (W^T g)[(c, k), (n, i)] over all i stride + k dilation = j``. With
    stride 1 that is a convolution of ``g`` with the flipped kernel. Padding that repeats elements
    of ``x`` adds its gradients to theirs.

    ``X`` of one group is in memory during the call, ``in_channels / groups * kernel elements``
    numbers a position of the output; it is not saved but made again in the backward.

    References
    ----------
    Dumoulin, Visin, "A guide to convolution arithmetic for deep learning", arXiv:1603.07285.
    Goodfellow, Bengio, Courville, "Deep Learning", 2016, sections 9.1 and 9.5.
    """
    padded = pad_axes(x, padding, padding_mode)
    output = correlate(padded, weight, stride, dilation, groups)
    if bias is not None:
        output += bias.reshape(-1, *(1,) * len(stride))
    return output, (x, weight, stride, padding, dilation, groups, padding_mode)


@op(
    formula="grad_input = einsum('nohwij,ocij->nchw', lib.stride_tricks.sliding_window_view("
    "pad(grad_output, ((0, 0), (0, 0), (weight.shape[2] - 1,) * 2, (weight.shape[3] - 1,) * 2)), "
    "weight.shape[2:], (2, 3)), weight[:, :, ::-1, ::-1]); "
    "grad_weight = einsum('nchwij,nohw->ocij', lib.stride_tricks.sliding_window_view("
    "x, weight.shape[2:], (2, 3)), grad_output); "
    "grad_bias = grad_output.sum((0, 2, 3))",
    flops=_convolution_backward_flops,
)
def convolution_backward(
    grad_output: Array,
    x: Array,
    weight: Array,
    stride: Sizes = (1, 1),
    padding: Widths = NO_PADDING,
    dilation: Sizes = (1, 1),
    groups: int = 1,
    padding_mode: str = "zeros",
    input_grad: bool = True,
    weight_grad: bool = True,
    bias_grad: bool = True,
) -> tuple[Array | None, Array | None, Array | None]:
    """Return ``W^T g`` put back, ``g X^T`` and the sum of ``g``; None for what is not wanted."""
    grad_input = grad_weight = None
    if input_grad:
        lengths = padded_lengths(x.shape[2:], padding)
        grad_padded = correlate_back(grad_output, weight, lengths, stride, dilation, groups)
        grad_input = unpad_axes(grad_padded, padding, padding_mode)
    if weight_grad:
        padded, kernel_size = pad_axes(x, padding, padding_mode), weight.shape[2:]
        grad_weight = correlate_weight(grad_output, padded, kernel_size, stride, dilation, groups)
    grad_bias = sum_to_channels(grad_output) if bias_grad else None
    return grad_input, grad_weight, grad_bias


class _Convolution(KernelLayer):
    """A convolution; a subclass says over how many axes."""

    samples_apart = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: IntOrInts,
        stride: IntOrInts = 1,
        padding: IntOrInts | str = 0,
        dilation: IntOrInts = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        *,
        device: str | Device | None = None,
        dtype: Any = None,
        rng: RandomSource = None,
    ) -> None:
        self.set_channels(in_channels, out_channels, groups)
        self.set_kernel(kernel_size, stride, dilation)
        self.padding, self._widths = self._read_padding(padding)
        if padding_mode not in PADDING_MODES:
            raise ValueError(
                f"{type(self).__name__} expects padding_mode to be one of "
                f"{', '.join(PADDING_MODES)}; got {padding_mode!r}"
            )
        self.padding_mode = padding_mode
        shape = (self.out_channels, self.in_channels // self.groups, *self.kernel_size)
        self.make_parameters(shape, bias, rng, dtype, device)

    def _read_padding(self, padding: Any) -> tuple[str | tuple[int, ...], Widths]:
        """Return the argument as PyTorch keeps it, and what it adds at both ends of each axis."""
        name = type(self).__name__
        if not isinstance(padding, str):
            sizes = as_sizes(name, "padding", padding, self.spatial_axes, 0)
            return sizes, tuple((size, size) for size in sizes)
        if padding not in ("same", "valid"):
            raise ValueError(f"{name} expects padding 'same', 'valid' or ints; got {padding!r}")
        if padding == "valid":
            return padding, ((0, 0),) * self.spatial_axes
        if any(step != 1 for step in self.stride):
            raise ValueError(
                f"{name}: padding='same' keeps the shape and needs stride 1; got {self.stride}"
            )
        kernel = zip(self.kernel_size, self.dilation, strict=True)
        added = [kernel_span(size, dilation) - 1 for size, dilation in kernel]
        return padding, tuple((total // 2, total - total // 2) for total in added)

    def forward(self, x: Array) -> tuple[Array, Any]:
        """Slide the kernels over ``(batch, in_channels, ...)``, or over one sample."""
        batch = self.check_axes(x)
        self._check_lengths(x.shape, batch.shape[2:])
        output, saved = convolution_forward(
            batch, self.weight.value, self.bias_value(), self.stride, self._widths,
            self.dilation, self.groups, self.padding_mode,
        )  # fmt: skip
        return (output if batch.ndim == x.ndim else output[0]), saved

    def backward(self, grad_output: Array, saved: Any, *, input_grad: bool = True) -> Array | None:
        """Add the gradients of weight and bias; return that of the input."""
        grad_batch = self.as_batch(grad_output)
        grad_input, *grads = convolution_backward(
            grad_batch, *saved, input_grad, *self.wanted_gradients()
        )
        self.accumulate(*grads)
        return grad_input if grad_input is None or grad_batch is grad_output else grad_input[0]

    def _check_lengths(self, shape: tuple[int, ...], lengths: tuple[int, ...]) -> None:
        """Refuse what is too short for the kernel, or for padding that repeats it."""
        padded = padded_lengths(lengths, self._widths)
        if min(window_counts(padded, self.kernel_size, self.stride, self.dilation)) < 1:
            kernel = zip(self.kernel_size, self.dilation, strict=True)
            raise ValueError(
                f"{describe_layer(self)}: the kernel reaches over "
                f"{tuple(kernel_span(size, step) for size, step in kernel)} elements; x of shape "
                f"{shape} has {padded} with its padding"
            )
        room = {"reflect": -1, "circular": 0}.get(self.padding_mode)
        widths = zip(lengths, self._widths, strict=True)
        if room is not None and any(max(width) > length + room for length, width in widths):
            most = "less than" if room else "at most"
            raise ValueError(
                f"{describe_layer(self)}: padding_mode={self.padding_mode!r} adds {most} the "
                f"length of each axis; got padding={self.padding} and x of shape {shape}"
            )

    def extra_repr(self) -> str:
        """Return the constructor arguments shown by ``repr``."""
        return self.describe_options(
            padding=0, dilation=1, groups=1, bias=True, padding_mode="zeros"
        )


class Conv1d(_Convolution):
    """Convolution of signals, ``y[o, i] = b[o] + sum w[o, c, k] x[c, i stride + k dilation]``.

    The sum is over input channels ``c`` and the kernel's elements ``k``.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode
        As for :class:`Conv2d`, with one number where that takes two.
    device, dtype, rng
        As for :class:`Conv2d`.

    Attributes
    ----------
    weight : Parameter, shape (out_channels, in_channels / groups, kernel_size)
    bias : Parameter, shape (out_channels,), or None

    Notes
    -----
    Takes ``(batch, in_channels, length)`` or ``(in_channels, length)``. The derivative is derived
    in :func:`convolution_forward`.

    References
    ----------
    Waibel, Hanazawa, Hinton, Shikano, Lang, "Phoneme recognition using time-delay neural
    networks", IEEE Trans. ASSP 37 (1989).
    """

    spatial_axes = 1


class Conv2d(_Convolution):
    """Convolution of images, ``y[o, i] = b[o] + sum w[o, c, k] x[c, i stride + k dilation]``.

    The sum is over input channels ``c`` and the kernel's elements ``k``; ``i`` and ``k`` have a row
    and a column.

    Parameters
    ----------
    in_channels : int
        Channels of the input.
    out_channels : int
        Channels of the output, that is kernels.
    kernel_size : int or (int, int)
        Height and width of the kernels.
    stride : int or (int, int), default 1
        Steps of the kernel.
    padding : int, (int, int), "same" or "valid", default 0
        What is added at both ends of each axis; "same" keeps the shape and, where it must add an
        odd number, adds the odd one at the end; "valid" adds nothing.
    dilation : int or (int, int), default 1
        Distance of the kernel's elements.
    groups : int, default 1
        Divides input and output channels into groups that do not see each other; with as many
        groups as channels the convolution is depthwise.
    bias : bool, default True
        False leaves ``b`` out.
    padding_mode : {"zeros", "reflect", "replicate", "circular"}
        What is added: zeros, the image mirrored at its edge elements, its edge elements, or the
        image from its other end.
    device : str or Device, optional
        Where the parameters live; None is the default device.
    dtype : dtype, optional
        float32 (None) or float64.
    rng : Generator, int or None
        Draws the initial values, ``U(-1/sqrt(n), 1/sqrt(n))`` as PyTorch does, where ``n`` inputs
        meet in one output.

    Attributes
    ----------
    weight : Parameter, shape (out_channels, in_channels / groups, height, width)
    bias : Parameter, shape (out_channels,), or None

    Notes
    -----
    Takes ``(batch, in_channels, height, width)`` or ``(in_channels, height, width)``. The
    derivative is derived in :func:`convolution_forward`, where the memory it takes stands too.

    References
    ----------
    LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition",
    Proc. IEEE 86 (1998), section II.

    Examples
    --------
    >>> import numpy as np
    >>> import xbackprop as xb
    >>> layer = xb.nn.Conv2d(1, 8, 3, padding="same", rng=0)
    >>> layer(xb.asarray(np.zeros((2, 1, 28, 28)))).shape
    (2, 8, 28, 28)
    """

    spatial_axes = 2


class Conv3d(_Convolution):
    """Convolution of volumes, ``y[o, i] = b[o] + sum w[o, c, k] x[c, i stride + k dilation]``.

    The sum is over input channels ``c`` and the kernel's elements ``k``; ``i`` and ``k`` have three
    numbers.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode
        As for :class:`Conv2d`, with three numbers where that takes two.
    device, dtype, rng
        As for :class:`Conv2d`.

    Attributes
    ----------
    weight : Parameter, shape (out_channels, in_channels / groups, depth, height, width)
    bias : Parameter, shape (out_channels,), or None

    Notes
    -----
    Takes ``(batch, in_channels, depth, height, width)`` or one sample without ``batch``. The
    derivative is derived in :func:`convolution_forward`.

    References
    ----------
    Tran, Bourdev, Fergus, Torresani, Paluri, "Learning spatiotemporal features with 3D
    convolutional networks", ICCV 2015.
    """

    spatial_axes = 3
