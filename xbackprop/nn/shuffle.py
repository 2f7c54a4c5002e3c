"""Layers that move elements between channels and pixels, or among channels."""

from typing import Any

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.dispatch import op
from xbackprop.module import Module, describe_layer
from xbackprop.nn.activations import check_float
from xbackprop.nn.sizes import as_count


@op(
    formula="output = moveaxis(x.reshape(*x.shape[:-3], x.shape[-3] // factor ** 2, factor, "
    "factor, *x.shape[-2:]), (-4, -3), (-3, -1))"
    ".reshape(*x.shape[:-3], x.shape[-3] // factor ** 2, x.shape[-2] * factor, "
    "x.shape[-1] * factor)",
    flops=lambda *_: 0,
)
def pixel_shuffle_forward(x: Array, factor: int) -> tuple[Array, Any]:
    """Compute ``y[c, h r + i, w r + j] = x[c r r + i r + j, h, w]`` with the factor ``r``.

    Parameters
    ----------
    x : array of float
        Shape (..., channels * factor * factor, height, width).
    factor : int
        Pixels per axis that one becomes.

    Returns
    -------
    output : array, shape (..., channels, height * factor, width * factor)
    saved : (factor,)

    Notes
    -----
    Every element stands once in the output, so its gradient is that of its place: the inverse
    :func:`pixel_unshuffle_forward`.
    """
    return _to_pixels(x, factor), (factor,)


@op(
    formula="grad_input = moveaxis(grad_output.reshape(*grad_output.shape[:-2], "
    "grad_output.shape[-2] // factor, factor, grad_output.shape[-1] // factor, factor), "
    "(-3, -1), (-4, -3))"
    ".reshape(*grad_output.shape[:-3], grad_output.shape[-3] * factor ** 2, "
    "grad_output.shape[-2] // factor, grad_output.shape[-1] // factor)",
    flops=lambda *_: 0,
)
def pixel_shuffle_backward(grad_output: Array, factor: int) -> Array:
    """Return the gradients where their elements came from."""
    return _to_channels(grad_output, factor)


@op(
    formula="output = moveaxis(x.reshape(*x.shape[:-2], x.shape[-2] // factor, factor, "
    "x.shape[-1] // factor, factor), (-3, -1), (-4, -3))"
    ".reshape(*x.shape[:-3], x.shape[-3] * factor ** 2, x.shape[-2] // factor, "
    "x.shape[-1] // factor)",
    flops=lambda *_: 0,
)
def pixel_unshuffle_forward(x: Array, factor: int) -> tuple[Array, Any]:
    """Compute ``y[c r r + i r + j, h, w] = x[c, h r + i, w r + j]`` with the factor ``r``.

    Parameters
    ----------
    x : array of float
        Shape (..., channels, height * factor, width * factor).
    factor : int
        Pixels per axis that become one.

    Returns
    -------
    output : array, shape (..., channels * factor * factor, height, width)
    saved : (factor,)

    Notes
    -----
    Its gradient is the inverse, :func:`pixel_shuffle_forward`.
    """
    return _to_channels(x, factor), (factor,)


@op(
    formula="grad_input = moveaxis(grad_output.reshape(*grad_output.shape[:-3], "
    "grad_output.shape[-3] // factor ** 2, factor, factor, *grad_output.shape[-2:]), "
    "(-4, -3), (-3, -1))"
    ".reshape(*grad_output.shape[:-3], grad_output.shape[-3] // factor ** 2, "
    "grad_output.shape[-2] * factor, grad_output.shape[-1] * factor)",
    flops=lambda *_: 0,
)
def pixel_unshuffle_backward(grad_output: Array, factor: int) -> Array:
    """Return the gradients where their elements came from."""
    return _to_pixels(grad_output, factor)


def _to_pixels(x: Array, factor: int) -> Array:
    *batch, channels, height, width = x.shape
    channels //= factor * factor
    apart = x.reshape(*batch, channels, factor, factor, height, width)
    apart = get_array_module(x).moveaxis(apart, (-4, -3), (-3, -1))
    return apart.reshape(*batch, channels, height * factor, width * factor)


def _to_channels(x: Array, factor: int) -> Array:
    *batch, channels, height, width = x.shape
    height, width = height // factor, width // factor
    apart = x.reshape(*batch, channels, height, factor, width, factor)
    apart = get_array_module(x).moveaxis(apart, (-3, -1), (-4, -3))
    return apart.reshape(*batch, channels * factor * factor, height, width)


@op(
    formula="output = swapaxes(x.reshape(len(x), groups, x.shape[1] // groups, *x.shape[2:]), 1, 2)"
    ".reshape(x.shape)",
    flops=lambda *_: 0,
)
def channel_shuffle_forward(x: Array, groups: int) -> tuple[Array, Any]:
    """Compute ``y[:, k g + i] = x[:, i n + k]`` with ``g`` groups of ``n`` channels.

    Parameters
    ----------
    x : array of float
        Shape (batch, groups * n, ...).
    groups : int
        How many runs of neighbouring channels are dealt out in turn.

    Returns
    -------
    output : array
        Same shape as ``x``.
    saved : (groups,)

    Notes
    -----
    The inverse, which its gradient needs, is the same with ``n`` groups.
    """
    return _deal(x, groups), (groups,)


@op(
    formula="grad_input = swapaxes(grad_output.reshape(len(grad_output), "
    "grad_output.shape[1] // groups, groups, *grad_output.shape[2:]), 1, 2)"
    ".reshape(grad_output.shape)",
    flops=lambda *_: 0,
)
def channel_shuffle_backward(grad_output: Array, groups: int) -> Array:
    """Return the gradients where their channels came from."""
    return _deal(grad_output, grad_output.shape[1] // groups)


def _deal(x: Array, groups: int) -> Array:
    if not x.shape[1]:
        return x
    apart = x.reshape(len(x), groups, x.shape[1] // groups, *x.shape[2:])
    return get_array_module(x).swapaxes(apart, 1, 2).reshape(x.shape)


class PixelShuffle(Module):
    """Make pixels of channels, ``y[c, h r + i, w r + j] = x[c r r + i r + j, h, w]``.

    Parameters
    ----------
    upscale_factor : int
        ``r``, pixels per axis that one becomes.

    Notes
    -----
    Input ``(..., channels, height, width)``. The derivative is derived in
    :func:`pixel_shuffle_forward`.

    References
    ----------
    Shi et al., "Real-time single image and video super-resolution using an efficient sub-pixel
    convolutional neural network", CVPR 2016.
    """

    def __init__(self, upscale_factor: int) -> None:
        self.upscale_factor = as_count("PixelShuffle", "upscale_factor", upscale_factor, 1)

    def forward(self, x: Array) -> tuple[Array, Any]:
        """Return a larger image of fewer channels."""
        _check_image(self, x)
        if x.shape[-3] % self.upscale_factor**2:
            raise ValueError(
                f"{describe_layer(self)} expects x with channels that upscale_factor ** 2 = "
                f"{self.upscale_factor**2} divides; got {x.shape}"
            )
        return pixel_shuffle_forward(x, self.upscale_factor)

    def backward(self, grad_output: Array, saved: Any, *, input_grad: bool = True) -> Array | None:
        """Move the gradients back."""
        return pixel_shuffle_backward(grad_output, *saved) if input_grad else None

    def extra_repr(self) -> str:
        """Return the constructor arguments shown by ``repr``."""
        return f"upscale_factor={self.upscale_factor}"


class PixelUnshuffle(Module):
    """Make channels of pixels, ``y[c r r + i r + j, h, w] = x[c, h r + i, w r + j]``.

    Parameters
    ----------
    downscale_factor : int
        ``r``, pixels per axis that become one.

    Notes
    -----
    Input ``(..., channels, height, width)``. The inverse of :class:`PixelShuffle`.

    References
    ----------
    Shi et al., "Real-time single image and video super-resolution using an efficient sub-pixel
    convolutional neural network", CVPR 2016.
    """

    def __init__(self, downscale_factor: int) -> None:
        self.downscale_factor = as_count("PixelUnshuffle", "downscale_factor", downscale_factor, 1)

    def forward(self, x: Array) -> tuple[Array, Any]:
        """Return a smaller image of more channels."""
        _check_image(self, x)
        if x.shape[-1] % self.downscale_factor or x.shape[-2] % self.downscale_factor:
            raise ValueError(
                f"{describe_layer(self)} expects x with height and width that downscale_factor = "
                f"{self.downscale_factor} divides; got {x.shape}"
            )
        return pixel_unshuffle_forward(x, self.downscale_factor)

    def backward(self, grad_output: Array, saved: Any, *, input_grad: bool = True) -> Array | None:
        """Move the gradients back."""
        return pixel_unshuffle_backward(grad_output, *saved) if input_grad else None

    def extra_repr(self) -> str:
        """Return the constructor arguments shown by ``repr``."""
        return f"downscale_factor={self.downscale_factor}"


class ChannelShuffle(Module):
    """Deal the channels of ``g`` groups of ``n`` out in turn, ``y[:, k g + i] = x[:, i n + k]``.

    Parameters
    ----------
    groups : int
        ``g``; divides the channels.

    Notes
    -----
    Input ``(batch, channels, length, ...)``. The derivative is derived in
    :func:`channel_shuffle_forward`.

    References
    ----------
    Zhang, Zhou, Lin, Sun, "ShuffleNet: an extremely efficient convolutional neural network for
    mobile devices", CVPR 2018.
    """

    def __init__(self, groups: int) -> None:
        self.groups = as_count("ChannelShuffle", "groups", groups, 1)

    def forward(self, x: Array) -> tuple[Array, Any]:
        """Return the channels in another order."""
        check_float(self, x)
        if x.ndim < 3 or x.shape[1] % self.groups:
            raise ValueError(
                f"{describe_layer(self)} expects x of shape (batch, channels, length, ...) with "
                f"channels that groups={self.groups} divides; got {x.shape}"
            )
        return channel_shuffle_forward(x, self.groups)

    def backward(self, grad_output: Array, saved: Any, *, input_grad: bool = True) -> Array | None:
        """Put the gradients into the old order."""
        return channel_shuffle_backward(grad_output, *saved) if input_grad else None

    def extra_repr(self) -> str:
        """Return the constructor arguments shown by ``repr``."""
        return f"groups={self.groups}"


def _check_image(layer: Module, x: Any) -> None:
    check_float(layer, x)
    if x.ndim < 3:
        raise ValueError(
            f"{describe_layer(layer)} expects x of shape (..., channels, height, width); "
            f"got {x.shape}"
        )
