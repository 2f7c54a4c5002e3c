"""Normalization over groups of channels: of every sample by itself."""

import math
from typing import Any

from xbackprop.backend.array_module import Array
from xbackprop.backend.device import Device
from xbackprop.module import describe_layer
from xbackprop.nn.activations import as_number
from xbackprop.nn.normalization.base import Normalization
from xbackprop.nn.normalization.normalize import normalize_backward, normalize_forward


class GroupNorm(Normalization):
    """Groups of channels to mean 0 and variance 1, ``y = (x - mean) / sqrt(var + eps) * w + b``.

    Parameters
    ----------
    num_groups : int
        How many groups; must divide the number of channels.
    num_channels : int
        Length of axis 1 of the input.
    eps : float, default 1e-5
        Added to the variance.
    affine : bool, default True
        False leaves weight and bias out.
    bias : bool, default True
        False leaves the bias out.
    device : str or Device, optional
        Where the parameters live; None is the default device.
    dtype : dtype, optional
        float32 (None) or float64.

    Attributes
    ----------
    weight, bias : Parameter, shape (num_channels,), or None
        Ones and zeros at first.

    Notes
    -----
    Mean and variance are taken over a group's channels and all axes after them, in training and
    evaluation alike. The derivative is derived in :func:`normalize_forward`, which sees a group as
    an axis of its own.

    References
    ----------
    Wu, He, "Group normalization", ECCV 2018, section 3.
    """

    samples_apart = True

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        *,
        bias: bool = True,
        device: str | Device | None = None,
        dtype: Any = None,
    ) -> None:
        if num_groups < 1:
            raise ValueError(f"GroupNorm expects num_groups > 0; got {num_groups}")
        if num_channels < 0 or num_channels % num_groups:
            raise ValueError(
                f"GroupNorm expects num_channels >= 0 that num_groups={num_groups} divides; "
                f"got {num_channels}"
            )
        self.num_groups, self.num_channels = num_groups, num_channels
        self.eps = as_number("GroupNorm", "eps", eps)
        self.affine = affine
        super().__init__((num_channels,), affine, bias, device, dtype)

    def forward(self, x: Array) -> tuple[Array, Any]:
        """Normalize every group of channels of every sample."""
        x = self.check_x(x)
        self.check_shape(x.shape)
        in_group = self.num_channels // self.num_groups
        grouped = x.reshape(len(x), self.num_groups, in_group, *x.shape[2:])
        weight, bias = self.scale((1, self.num_groups, in_group, *(1,) * (x.ndim - 2)))
        axes = tuple(range(2, grouped.ndim))
        (output, _, _), saved = normalize_forward(grouped, weight, bias, axes, self.eps)
        return output.reshape(x.shape), saved

    def backward(self, grad_output: Array, saved: Any, *, input_grad: bool = True) -> Array | None:
        """Add the sums of ``g x_hat`` and ``g``; return the gradient through both moments."""
        grouped = grad_output.reshape(saved[0].shape)
        grad_input, *grads = normalize_backward(grouped, *saved, input_grad, *self.wanted())
        self.accumulate(*grads)
        return None if grad_input is None else grad_input.reshape(grad_output.shape)

    def check_shape(self, shape: tuple[int, ...]) -> None:
        """Refuse an input of other channels, and one with nothing to take a variance of."""
        if len(shape) < 2 or shape[1] != self.num_channels:
            raise ValueError(
                f"{describe_layer(self)} expects x of shape (batch, {self.num_channels}, ...); "
                f"got {shape}"
            )
        if shape[0] * shape[1] // self.num_groups * math.prod(shape[2:]) == 1:
            raise ValueError(
                f"{describe_layer(self)} expects more than one value per group; got x of shape "
                f"{shape}, which would all become 0. Use fewer groups."
            )

    def extra_repr(self) -> str:
        """Return the constructor arguments shown by ``repr``."""
        return (
            f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}, "
            f"bias={self.bias is not None}"
        )
