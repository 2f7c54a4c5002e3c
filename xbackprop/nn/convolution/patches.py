"""The windows of images as columns, and columns back to images."""

import math
from typing import Any

from xbackprop.backend.array_module import Array
from xbackprop.dispatch import op
from xbackprop.module import Module, describe_layer
from xbackprop.nn.activations import check_float
from xbackprop.nn.convolution.base import IntOrInts, Widths
from xbackprop.nn.convolution.convolution import NO_PADDING, padded_lengths
from xbackprop.nn.sizes import as_sizes
from xbackprop.ops.padding import pad_axes, unpad_axes
from xbackprop.ops.windows import Sizes, gather_windows, scatter_windows, window_counts


def columns_of(
    x: Array, kernel_size: Sizes, stride: Sizes, padding: Widths, dilation: Sizes
) -> Array:
    """Return the windows of ``(batch, channels, height, width)`` as columns.

    They have the shape ``(batch, channels * kernel elements, positions)``.
    """
    padded = pad_axes(x, padding, "zeros")
    counts = window_counts(padded.shape[2:], kernel_size, stride, dilation)
    windows = gather_windows(padded, kernel_size, counts, stride, dilation)
    rows = x.shape[1] * math.prod(kernel_size)
    columns = windows.reshape(rows, x.shape[0], math.prod(counts))
    return columns.swapaxes(0, 1)


def image_of(
    columns: Array,
    lengths: Sizes,
    kernel_size: Sizes,
    stride: Sizes,
    padding: Widths,
    dilation: Sizes,
) -> Array:
    """Add columns up to images: the adjoint of `columns_of`; ``lengths`` are those before."""
    padded = padded_lengths(lengths, padding)
    counts = window_counts(padded, kernel_size, stride, dilation)
    channels = columns.shape[1] // math.prod(kernel_size)
    shape = (channels, *kernel_size, columns.shape[0], *counts)
    image = scatter_windows(columns.swapaxes(0, 1).reshape(shape), padded, stride, dilation)
    return unpad_axes(image, padding, "zeros")


@op(
    formula="output = lib.stride_tricks.sliding_window_view(x, kernel_size, (2, 3))"
    ".transpose(0, 1, 4, 5, 2, 3).reshape(len(x), x.shape[1] * prod(kernel_size), -1)"
)
def unfold_forward(
    x: Array,
    kernel_size: Sizes,
    stride: Sizes = (1, 1),
    padding: Widths = NO_PADDING,
    dilation: Sizes = (1, 1),
) -> tuple[Array, Any]:
    """Compute ``y[n, (c, k), i] = x[n, c, i stride + k dilation]``.

    Parameters
    ----------
    x : array, shape (batch, channels, height, width)
        Any float dtype.
    kernel_size : (int, int)
        Height and width of a window.
    stride : (int, int)
        Steps of the window.
    padding : ((int, int), (int, int))
        Zeros at both ends of each axis.
    dilation : (int, int)
        Distance of a window's elements.

    Returns
    -------
    output : array, shape (batch, channels * kernel elements, positions)
    saved : (lengths, kernel_size, stride, padding, dilation)
        Numbers only.

    Notes
    -----
    Every output is one element of ``x``, so with ``g = dLoss/dy``, ``dLoss/dx[n, c, j]`` is the sum
    of ``g[n, (c, k), i]`` over all ``i stride + k dilation = j``: what :func:`fold_forward`
    computes.
    """
    output = columns_of(x, kernel_size, stride, padding, dilation)
    return output, (x.shape[2:], kernel_size, stride, padding, dilation)


@op(
    formula="grad_input = einsum('ncijhwij->nchw', lib.stride_tricks.sliding_window_view(pad("
    "grad_output.reshape(len(grad_output), -1, *kernel_size, lengths[0] - kernel_size[0] + 1, "
    "lengths[1] - kernel_size[1] + 1), ((0, 0),) * 4 + ((kernel_size[0] - 1,) * 2, "
    "(kernel_size[1] - 1,) * 2)), kernel_size, (4, 5))[..., ::-1, ::-1])"
)
def unfold_backward(
    grad_output: Array,
    lengths: Sizes,
    kernel_size: Sizes,
    stride: Sizes = (1, 1),
    padding: Widths = NO_PADDING,
    dilation: Sizes = (1, 1),
) -> Array:
    """Add every element of ``g`` to where the output came from."""
    return image_of(grad_output, lengths, kernel_size, stride, padding, dilation)


@op(
    formula="output = einsum('ncijhwij->nchw', lib.stride_tricks.sliding_window_view(pad("
    "x.reshape(len(x), -1, *kernel_size, output_size[0] - kernel_size[0] + 1, "
    "output_size[1] - kernel_size[1] + 1), ((0, 0),) * 4 + ((kernel_size[0] - 1,) * 2, "
    "(kernel_size[1] - 1,) * 2)), kernel_size, (4, 5))[..., ::-1, ::-1])"
)
def fold_forward(
    x: Array,
    output_size: Sizes,
    kernel_size: Sizes,
    stride: Sizes = (1, 1),
    padding: Widths = NO_PADDING,
    dilation: Sizes = (1, 1),
) -> tuple[Array, Any]:
    """Compute ``y[n, c, j]``, the sum of ``x[n, (c, k), i]`` over ``i stride + k dilation = j``.

    Parameters
    ----------
    x : array, shape (batch, channels * kernel elements, positions)
        Any float dtype.
    output_size : (int, int)
        Height and width of the result.
    kernel_size : (int, int)
        Height and width of a window.
    stride : (int, int)
        Steps of the window.
    padding : ((int, int), (int, int))
        What is cut off at both ends of each axis.
    dilation : (int, int)
        Distance of a window's elements.

    Returns
    -------
    output : array, shape (batch, channels, height, width)
    saved : (kernel_size, stride, padding, dilation)
        Numbers only.

    Notes
    -----
    With ``g = dLoss/dy``: every input is added to one output, so ``dLoss/dx[n, (c, k), i] =
    g[n, c, i stride + k dilation]``, which :func:`unfold_forward` computes.
    """
    output = image_of(x, output_size, kernel_size, stride, padding, dilation)
    return output, (kernel_size, stride, padding, dilation)


@op(
    formula="grad_input = lib.stride_tricks.sliding_window_view(grad_output, kernel_size, (2, 3))"
    ".transpose(0, 1, 4, 5, 2, 3)"
    ".reshape(len(grad_output), grad_output.shape[1] * prod(kernel_size), -1)"
)
def fold_backward(
    grad_output: Array,
    kernel_size: Sizes,
    stride: Sizes = (1, 1),
    padding: Widths = NO_PADDING,
    dilation: Sizes = (1, 1),
) -> Array:
    """Return for every input the gradient of the output that it was added to."""
    return columns_of(grad_output, kernel_size, stride, padding, dilation)


class _Patches(Module):
    """What Unfold and Fold share: the window and how it moves."""

    def _set_window(
        self, kernel_size: IntOrInts, dilation: IntOrInts, padding: IntOrInts, stride: IntOrInts
    ) -> None:
        name = type(self).__name__
        self.kernel_size, self.dilation = kernel_size, dilation
        self.padding, self.stride = padding, stride
        self._kernel = as_sizes(name, "kernel_size", kernel_size, 2, 1)
        self._dilation = as_sizes(name, "dilation", dilation, 2, 1)
        self._stride = as_sizes(name, "stride", stride, 2, 1)
        cut = as_sizes(name, "padding", padding, 2, 0)
        self._widths = tuple((width, width) for width in cut)

    def _count(self, lengths: Sizes) -> tuple[int, ...]:
        """Return how many windows an image of these lengths has along its axes."""
        padded = padded_lengths(lengths, self._widths)
        return window_counts(padded, self._kernel, self._stride, self._dilation)

    def extra_repr(self) -> str:
        """Return the constructor arguments shown by ``repr``."""
        return (
            f"kernel_size={self.kernel_size}, dilation={self.dilation}, padding={self.padding}, "
            f"stride={self.stride}"
        )


class Unfold(_Patches):
    """The windows of images as columns, ``y[(c, k), i] = x[c, i stride + k dilation]``.

    Parameters
    ----------
    kernel_size : int or (int, int)
        Height and width of a window.
    dilation : int or (int, int), default 1
        Distance of a window's elements.
    padding : int or (int, int), default 0
        Zeros at both ends of each axis.
    stride : int or (int, int), default 1
        Steps of the window.

    Notes
    -----
    Takes ``(batch, channels, height, width)`` or one sample without ``batch``; returns ``(batch,
    channels * kernel elements, positions)``, positions row by row. A product of a weight with these
    columns is a convolution. The derivative is derived in :func:`unfold_forward`.

    References
    ----------
    Chellapilla, Puri, Simard, "High performance convolutional neural networks for document
    processing", IWFHR 2006, section 2.
    """

    def __init__(
        self,
        kernel_size: IntOrInts,
        dilation: IntOrInts = 1,
        padding: IntOrInts = 0,
        stride: IntOrInts = 1,
    ) -> None:
        self._set_window(kernel_size, dilation, padding, stride)

    def forward(self, x: Array) -> tuple[Array, Any]:
        """Return the windows of every image."""
        check_float(self, x)
        if x.ndim not in (3, 4) or 0 in x.shape[-3:]:
            raise ValueError(
                f"{describe_layer(self)} expects x of shape (batch, channels, height, width) or "
                f"(channels, height, width), no axis but the batch empty; got {x.shape}"
            )
        if min(self._count(x.shape[-2:])) < 1:
            raise ValueError(
                f"{describe_layer(self)}: no window of kernel_size={self.kernel_size} and "
                f"dilation={self.dilation} fits into x of shape {x.shape} with padding="
                f"{self.padding}"
            )
        batch = x if x.ndim == 4 else x[None]
        output, saved = unfold_forward(
            batch, self._kernel, self._stride, self._widths, self._dilation
        )
        return (output if x.ndim == 4 else output[0]), saved

    def backward(self, grad_output: Array, saved: Any, *, input_grad: bool = True) -> Array | None:
        """Add the gradients of every element's copies."""
        if not input_grad:
            return None
        if grad_output.ndim == 3:
            return unfold_backward(grad_output, *saved)
        return unfold_backward(grad_output[None], *saved)[0]


class Fold(_Patches):
    """Columns added up to images, ``y[c, j] = sum of x[(c, k), i]``.

    The sum is over all ``i stride + k dilation = j + padding``. Overlapping windows add up, so
    ``Fold`` of ``Unfold`` multiplies every element by the number of windows that see it.

    Parameters
    ----------
    output_size : int or (int, int)
        Height and width of the images.
    kernel_size : int or (int, int)
        Height and width of a window.
    dilation : int or (int, int), default 1
        Distance of a window's elements.
    padding : int or (int, int), default 0
        What is cut off at both ends of each axis.
    stride : int or (int, int), default 1
        Steps of the window.

    Notes
    -----
    Takes ``(batch, channels * kernel elements, positions)`` or one sample without ``batch``. The
    derivative is derived in :func:`fold_forward`.

    References
    ----------
    Chellapilla, Puri, Simard, "High performance convolutional neural networks for document
    processing", IWFHR 2006, section 2.
    """

    def __init__(
        self,
        output_size: IntOrInts,
        kernel_size: IntOrInts,
        dilation: IntOrInts = 1,
        padding: IntOrInts = 0,
        stride: IntOrInts = 1,
    ) -> None:
        self.output_size = output_size
        self._lengths = as_sizes("Fold", "output_size", output_size, 2, 1)
        self._set_window(kernel_size, dilation, padding, stride)
        if min(self._count(self._lengths)) < 1:
            raise ValueError(
                f"Fold: no window of kernel_size={kernel_size} and dilation={dilation} fits into "
                f"output_size={output_size} with padding={padding}"
            )

    def forward(self, x: Array) -> tuple[Array, Any]:
        """Add the columns of every sample up to an image."""
        check_float(self, x)
        elements, positions = math.prod(self._kernel), math.prod(self._count(self._lengths))
        is_right = x.ndim in (2, 3) and x.shape[-2] > 0 and x.shape[-2] % elements == 0
        if not is_right or x.shape[-1] != positions:
            raise ValueError(
                f"{describe_layer(self)} expects x of shape (batch, channels * {elements}, "
                f"{positions}) or (channels * {elements}, {positions}); got {x.shape}"
            )
        batch = x if x.ndim == 3 else x[None]
        output, saved = fold_forward(
            batch, self._lengths, self._kernel, self._stride, self._widths, self._dilation
        )
        return (output if x.ndim == 3 else output[0]), saved

    def backward(self, grad_output: Array, saved: Any, *, input_grad: bool = True) -> Array | None:
        """Give every element the gradient of what it was added to."""
        if not input_grad:
            return None
        if grad_output.ndim == 4:
            return fold_backward(grad_output, *saved)
        return fold_backward(grad_output[None], *saved)[0]

    def extra_repr(self) -> str:
        """Return the constructor arguments shown by ``repr``."""
        return f"output_size={self.output_size}, {super().extra_repr()}"
