"""Normalization over the last axes: of every sample by itself."""

import operator
from collections.abc import Sequence
from typing import Any

from xbackprop.backend.array_module import Array
from xbackprop.backend.device import Device
from xbackprop.module import Module, describe_layer
from xbackprop.nn.activations import as_number
from xbackprop.nn.normalization.base import Normalization
from xbackprop.nn.normalization.normalize import normalize_backward, normalize_forward


def as_shape(layer: str, normalized_shape: Any) -> tuple[int, ...]:
    """Return the argument ``normalized_shape`` as a tuple of at least one length."""
    given = normalized_shape
    try:
        lengths = given if isinstance(given, Sequence) else (given,)
        shape = tuple(operator.index(length) for length in lengths)
    except TypeError:
        raise TypeError(
            f"{layer} expects normalized_shape to be an int or a sequence of ints; got {given!r}"
        ) from None
    if not shape or min(shape) < 0:
        raise ValueError(
            f"{layer} expects normalized_shape of at least one length, none negative; got {given!r}"
        )
    return shape


def check_last_axes(layer: Module, x: Array, normalized_shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the axes that are normalized, and refuse an input that does not end in them."""
    lead = x.ndim - len(normalized_shape)
    if lead < 0 or x.shape[lead:] != normalized_shape:
        expected = ", ".join(map(str, ("...", *normalized_shape)))
        raise ValueError(
            f"{describe_layer(layer)} expects x of shape ({expected}); got {x.shape}. "
            "Its last axes must be normalized_shape."
        )
    return tuple(range(lead, x.ndim))


class LayerNorm(Normalization):
    """Every sample to mean 0 and variance 1, ``y = (x - mean) / sqrt(var + eps) * weight + bias``.

    Parameters
    ----------
    normalized_shape : int or sequence of int
        Lengths of the last axes, over which mean and variance are taken.
    eps : float, default 1e-5
        Added to the variance.
    elementwise_affine : bool, default True
        False leaves weight and bias out.
    bias : bool, default True
        False leaves the bias out.
    device : str or Device, optional
        Where the parameters live; None is the default device.
    dtype : dtype, optional
        float32 (None) or float64.

    Attributes
    ----------
    weight, bias : Parameter, shape normalized_shape, or None
        Ones and zeros at first.

    Notes
    -----
    The derivative is derived in :func:`normalize_forward`. Training and evaluation are alike.

    References
    ----------
    Ba, Kiros, Hinton, "Layer normalization", 2016, section 3.
    """

    samples_apart = True

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        *,
        device: str | Device | None = None,
        dtype: Any = None,
    ) -> None:
        self.normalized_shape = as_shape("LayerNorm", normalized_shape)
        self.eps = as_number("LayerNorm", "eps", eps)
        self.elementwise_affine = elementwise_affine
        super().__init__(self.normalized_shape, elementwise_affine, bias, device, dtype)

    def forward(self, x: Array) -> tuple[Array, Any]:
        """Normalize the last axes."""
        x = self.check_x(x)
        axes = check_last_axes(self, x, self.normalized_shape)
        weight, bias = self.scale((1,) * axes[0] + self.normalized_shape)
        (output, _, _), saved = normalize_forward(x, weight, bias, axes, self.eps)
        return output, saved

    def backward(self, grad_output: Array, saved: Any, *, input_grad: bool = True) -> Array | None:
        """Add the sums of ``g x_hat`` and ``g``; return the gradient through both moments."""
        grad_input, *grads = normalize_backward(grad_output, *saved, input_grad, *self.wanted())
        self.accumulate(*grads)
        return grad_input

    def extra_repr(self) -> str:
        """Return the constructor arguments shown by ``repr``."""
        return (
            f"{self.normalized_shape}, eps={self.eps}, "
            f"elementwise_affine={self.elementwise_affine}, bias={self.bias is not None}"
        )
