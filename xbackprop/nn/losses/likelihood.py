"""Negative log-likelihoods of counts and of quantities with a variance."""

import math
import numbers
from typing import Any

import numpy as np

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.dispatch import op
from xbackprop.module import describe_layer
from xbackprop.nn.losses.base import (
    Loss,
    as_factor,
    check_floats,
    check_number,
    check_pair,
    mean_factor,
    reduce_loss,
)
from xbackprop.ops.broadcast import sum_to_shape


@op(formula="loss = (exp(output) - target * output).mean()")
def poisson_nll_forward(
    output: Array,
    target: Array,
    *,
    log_input: bool = True,
    full: bool = False,
    eps: float = 1e-8,
    reduction: str = "mean",
) -> tuple[Array, Any]:
    """Compute ``rate - y log(rate)``; with ``full`` plus Stirling's ``log(y!)`` for ``y > 1``."""
    xp = get_array_module(output)
    y = as_factor(target, output)
    losses = xp.exp(output) - y * output if log_input else output - y * xp.log(output + eps)
    if full:
        stirling = y * xp.log(y) - y + 0.5 * xp.log(2 * math.pi * y)
        losses = losses + xp.where(y <= 1, 0, stirling)
    return reduce_loss(losses, reduction), (output, target)


@op(formula="grad = grad_output / output.size * (exp(output) - target)")
def poisson_nll_backward(
    grad_output: Array,
    output: Array,
    target: Array,
    *,
    log_input: bool = True,
    full: bool = False,
    eps: float = 1e-8,
    reduction: str = "mean",
    all_inputs: bool = False,
) -> Any:
    """Return ``(e^x - y) g``, or ``(1 - y / (x + eps)) g`` where ``x`` is the rate itself."""
    xp = get_array_module(output)
    y = as_factor(target, output)
    scale = grad_output * mean_factor(output.size, reduction)
    grad = (xp.exp(output) - y if log_input else 1 - y / (output + eps)) * scale
    if not all_inputs:
        return grad
    if target.dtype.kind != "f":
        return grad, None
    slope = -output if log_input else -xp.log(output + eps)
    if full:
        slope = slope + xp.where(y <= 1, 0, xp.log(y) + 0.5 / y)
    return grad, slope * scale


@op(
    formula="loss = ((log(maximum(var, eps)) + (output - target) ** 2 / maximum(var, eps)) / 2)"
    ".mean()",
)
def gaussian_nll_forward(
    output: Array,
    target: Array,
    var: Array,
    *,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
) -> tuple[Array, Any]:
    """Compute ``(log v + (y_hat - y)^2 / v) / 2`` with ``v = max(var, eps)``."""
    xp = get_array_module(output)
    clamped = _clamped(var, output, eps)
    difference = output - target
    losses = 0.5 * (xp.log(clamped) + difference * difference / clamped)
    if full:
        losses = losses + 0.5 * math.log(2 * math.pi)
    return reduce_loss(losses, reduction), (difference, var)


@op(formula="grad = grad_output / difference.size * difference / maximum(var, eps)")
def gaussian_nll_backward(
    grad_output: Array,
    difference: Array,
    var: Array,
    *,
    eps: float = 1e-6,
    reduction: str = "mean",
    all_inputs: bool = False,
) -> Any:
    """Return ``d / v g`` and, for the variance, ``(1 / v - d^2 / v^2) / 2 g``."""
    clamped = _clamped(var, difference, eps)
    scale = grad_output * mean_factor(difference.size, reduction)
    grad = difference / clamped * scale
    if not all_inputs:
        return grad
    slope = 0.5 * (scale / clamped - scale * (difference * difference / clamped / clamped))
    slope = sum_to_shape(slope, clamped.shape).reshape(var.shape)
    return grad, -grad, slope


def _clamped(var: Array, output: Array, eps: float) -> Array:
    """Raise variances to ``eps``, NaN for negative ones; one per row gets an axis for the row."""
    xp = get_array_module(var)
    if var.shape != output.shape and var.ndim < output.ndim:
        var = xp.expand_dims(var, -1)
    return xp.where(var < 0, math.nan, xp.maximum(var, eps))


class PoissonNLLLoss(Loss):
    """Negative log-likelihood of counts under a Poisson distribution.

    Parameters
    ----------
    log_input : bool, default True
        The output is the logarithm of the rate: ``e^x - y x``. False: the rate itself,
        ``x - y log(x + eps)``.
    full : bool, default False
        Add Stirling's approximation of ``log(y!)``, ``y log y - y + log(2 pi y) / 2``, where
        ``y > 1``.
    eps : float, default 1e-8
        Keeps ``log(0)`` away where ``log_input`` is False.
    reduction : {"mean", "sum", "none"}
        The mean is over all elements.

    Notes
    -----
    ``dLoss/dx = e^x - y``, or ``1 - y / (x + eps)``. The target may be of an integer dtype.
    """

    def __init__(
        self,
        log_input: bool = True,
        full: bool = False,
        eps: float = 1e-8,
        reduction: str = "mean",
    ) -> None:
        super().__init__(reduction)
        self.log_input = log_input
        self.full = full
        self.eps = check_number(self, "eps", eps)

    def forward(self, output: Array, target: Array) -> tuple[Array, Any]:
        """Compare rates, or their logarithms, with counts of the same shape."""
        target = check_pair(self, output, target, integers=True)
        return poisson_nll_forward(output, target, **self._options())

    def backward(self, grad_output: Any, saved: Any, *, all_inputs: bool = False) -> Any:
        """Return the gradient of ``output``; with ``all_inputs`` of both."""
        return poisson_nll_backward(grad_output, *saved, **self._options(), all_inputs=all_inputs)

    def _options(self) -> dict[str, Any]:
        return {
            "log_input": self.log_input,
            "full": self.full,
            "eps": self.eps,
            "reduction": self.reduction,
        }


class GaussianNLLLoss(Loss):
    """Negative log-likelihood of quantities under a normal distribution with given variance.

    Parameters
    ----------
    full : bool, default False
        Add the constant ``log(2 pi) / 2``.
    eps : float, default 1e-6
        Smaller variances count as this one; greater than 0.
    reduction : {"mean", "sum", "none"}
        The mean is over all elements of the output.

    Notes
    -----
    ``(log v + d^2 / v) / 2`` with ``d = y_hat - y`` and ``v = max(var, eps)``, so
    ``dLoss/dy_hat = d / v`` and ``dLoss/dvar = (1 / v - d^2 / v^2) / 2``: the clamping is left out
    of the derivative, as in PyTorch, so that a variance below ``eps`` can still be learnt.

    Negative variances are refused where looking costs nothing (host arrays); on a device they make
    the loss NaN.

    References
    ----------
    Nix and Weigend, "Estimating the mean and variance of the target probability distribution",
    ICNN 1994.
    """

    def __init__(self, *, full: bool = False, eps: float = 1e-6, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.full = full
        self.eps = check_number(self, "eps", eps, above=0)

    def forward(self, output: Array, target: Array, var: Any) -> tuple[Array, Any]:
        """Compare ``output`` with ``target``; ``var`` is one number or has the output's shape.

        An axis of ``var`` may be of length 1, and its last axis may be missing.
        """
        target = check_pair(self, output, target)
        var, is_number = self._check_variance(output, var)
        loss, saved = gaussian_nll_forward(
            output, target, var, full=self.full, eps=self.eps, reduction=self.reduction
        )
        return loss, (*saved, is_number)

    def backward(self, grad_output: Any, saved: Any, *, all_inputs: bool = False) -> Any:
        """Return the gradient of ``output``; with ``all_inputs`` of all three."""
        *arrays, is_number = saved
        result = gaussian_nll_backward(
            grad_output, *arrays, eps=self.eps, reduction=self.reduction, all_inputs=all_inputs
        )
        return (*result[:2], None) if all_inputs and is_number else result

    def _check_variance(self, output: Array, var: Any) -> tuple[Array, bool]:
        name = describe_layer(self)
        is_number = isinstance(var, numbers.Real) and not isinstance(var, np.generic)
        if (is_number or get_array_module(var) is np) and np.any(np.less(var, 0)):
            raise ValueError(f"{name} expects variances that are not negative; got {np.min(var):g}")
        if is_number:
            return get_array_module(output).full(output.shape, var, dtype=output.dtype), True
        var = check_floats(self, "var", var, output)
        if not _is_variance_shape(var.shape, output.shape):
            raise ValueError(
                f"{name} expects var of the output's shape {output.shape}, without its last axis, "
                f"or with one axis of length 1; got {var.shape}"
            )
        return var, False


def _is_variance_shape(shape: tuple[int, ...], output: tuple[int, ...]) -> bool:
    if shape in (output, output[:-1]):
        return True
    pairs = zip(shape, output, strict=False)
    return len(shape) == len(output) and [own for own, other in pairs if own != other] == [1]
