"""Division by the root of the mean square over the last axes; no mean is taken off."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.backend.device import Device
from xbackprop.dispatch import op
from xbackprop.nn.activations import as_number
from xbackprop.nn.normalization.base import Normalization
from xbackprop.nn.normalization.layer_norm import as_shape, check_last_axes
from xbackprop.ops.broadcast import sum_to_shape
from xbackprop.ops.moments import mean, mean_square


@op(formula="output = x / sqrt((x * x).mean(axes, keepdims=True) + eps) * weight")
def rms_norm_forward(
    x: Array, weight: Array | None, axes: tuple[int, ...], eps: float
) -> tuple[Array, Any]:
    """Compute ``y = x / sqrt(mean(x^2) + eps) * weight`` with the mean along ``axes``.

    Parameters
    ----------
    x : array of float
        Any shape.
    weight : array or None
        Broadcast to ``x``, with as many axes.
    axes : tuple of int
        Along which the mean square is taken.
    eps : float
        Added to the mean square.

    Returns
    -------
    output : array
    saved : (x, rstd, weight, axes)
        ``rstd = 1 / sqrt(mean(x^2) + eps)``. One product makes ``x_hat`` of them, and ``x`` is the
        output of another layer, so that nothing of its size is held for this one alone.

    Notes
    -----
    With ``x_hat = x rstd``, ``h = g weight`` and ``n`` elements along ``axes``: ``drstd/dx_j =
    -rstd^3 x_j / n``, so ``dx_hat_i/dx_j = rstd ([i = j] - x_hat_i x_hat_j / n)`` and ``dLoss/dx =
    rstd (h - x_hat mean(h x_hat))``. ``dLoss/dweight`` is the sum of ``g x_hat`` over the axes
    along which the weight is repeated.

    References
    ----------
    Zhang, Sennrich, "Root mean square layer normalization", NeurIPS 2019, equation 4.
    """
    rstd = (1.0 / get_array_module(x).sqrt(mean_square(x, axes) + eps)).astype(x.dtype)
    output = x * rstd
    if weight is not None:
        output *= weight
    return output, (x, rstd, weight, axes)


@op(
    formula="grad_input = rstd * (grad_output * weight "
    "- x * rstd * (grad_output * weight * x * rstd).mean(axes, keepdims=True)); "
    "grad_weight = (grad_output * x * rstd)"
    ".sum(tuple(flatnonzero(not_equal(weight.shape, x.shape))), keepdims=True)"
)
def rms_norm_backward(
    grad_output: Array,
    x: Array,
    rstd: Array,
    weight: Array | None,
    axes: tuple[int, ...],
    input_grad: bool = True,
    weight_grad: bool = True,
) -> tuple[Array | None, Array | None]:
    """Return ``rstd (h - x_hat mean(h x_hat))`` and the sum of ``g x_hat``."""
    x_hat = x * rstd
    grad_input = grad_weight = None
    if input_grad:
        grad_hat = grad_output if weight is None else grad_output * weight
        grad_input = grad_hat - x_hat * mean(grad_hat * x_hat, axes)
        grad_input *= rstd
    if weight is not None and weight_grad:
        grad_weight = sum_to_shape(grad_output * x_hat, weight.shape)
    return grad_input, grad_weight


class RMSNorm(Normalization):
    """Every sample divided by its root mean square, ``y = x / sqrt(mean(x^2) + eps) * weight``.

    Parameters
    ----------
    normalized_shape : int or sequence of int
        Lengths of the last axes, over which the mean square is taken.
    eps : float, optional
        Added to the mean square; None is the spacing of 1 in the dtype of the input, 1.2e-7 in
        float32.
    elementwise_affine : bool, default True
        False leaves the weight out.
    device : str or Device, optional
        Where the weight lives; None is the default device.
    dtype : dtype, optional
        float32 (None) or float64.

    Attributes
    ----------
    weight : Parameter, shape normalized_shape, or None
        Ones at first.

    Notes
    -----
    The derivative is derived in :func:`rms_norm_forward`. Training and evaluation are alike.

    References
    ----------
    Zhang, Sennrich, "Root mean square layer normalization", NeurIPS 2019, equation 4.
    """

    samples_apart = True

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float | None = None,
        elementwise_affine: bool = True,
        *,
        device: str | Device | None = None,
        dtype: Any = None,
    ) -> None:
        self.normalized_shape = as_shape("RMSNorm", normalized_shape)
        self.eps = None if eps is None else as_number("RMSNorm", "eps", eps)
        self.elementwise_affine = elementwise_affine
        super().__init__(self.normalized_shape, elementwise_affine, False, device, dtype)

    def forward(self, x: Array) -> tuple[Array, Any]:
        """Normalize the last axes."""
        x = self.check_x(x)
        axes = check_last_axes(self, x, self.normalized_shape)
        weight, _ = self.scale((1,) * axes[0] + self.normalized_shape)
        eps = float(np.finfo(x.dtype).eps) if self.eps is None else self.eps
        return rms_norm_forward(x, weight, axes, eps)

    def backward(self, grad_output: Array, saved: Any, *, input_grad: bool = True) -> Array | None:
        """Add the sum of ``g x_hat``; return the gradient through the mean square."""
        weight_grad, _ = self.wanted()
        grad_input, grad_weight = rms_norm_backward(grad_output, *saved, input_grad, weight_grad)
        self.accumulate(grad_weight, None)
        return grad_input

    def extra_repr(self) -> str:
        """Return the constructor arguments shown by ``repr``."""
        return (
            f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"
        )
