"""To mean 0 and variance 1 along axes, then weight and bias: what most normalizations are."""

from typing import Any

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.dispatch import op
from xbackprop.ops.broadcast import sum_to_shape
from xbackprop.ops.moments import mean, moments


@op(
    formula="output = (x - x.mean(axes, keepdims=True)) / sqrt(x.var(axes, keepdims=True) + eps) "
    "* weight + bias; mean = x.mean(axes, keepdims=True); var = x.var(axes, keepdims=True)"
)
def normalize_forward(
    x: Array, weight: Array | None, bias: Array | None, axes: tuple[int, ...], eps: float
) -> tuple[Any, Any]:
    """Compute ``y = (x - mean) / sqrt(var + eps) * weight + bias`` with moments along ``axes``.

    Parameters
    ----------
    x : array of float
        Any shape.
    weight, bias : array or None
        Broadcast to ``x``, with as many axes; a bias comes with a weight only.
    axes : tuple of int
        Along which mean and variance are taken; the variance is divided by the count.
    eps : float
        Added to the variance.

    Returns
    -------
    output, mean, var : array
        The moments keep ``axes`` with length 1.
    saved : (x_hat, rstd, weight, axes)
        ``x_hat`` before weight and bias, and ``rstd = 1 / sqrt(var + eps)``. Not ``(x, mean,
        rstd)``: centering anew needs a mean in two parts where it is large, ``x_hat`` takes no more
        memory than ``x``, and none without a weight, where it is the output.

    Notes
    -----
    With ``h = g weight``, ``n`` elements along ``axes`` and sums over them: ``x_hat_i`` depends on
    ``x_j`` through itself, the mean and the variance, ``dx_hat_i/dx_j = rstd ([i = j] - 1/n -
    x_hat_i x_hat_j / n)``, since ``dmean/dx_j = 1/n`` and ``dvar/dx_j = 2 (x_j - mean) / n``. So
    ``dLoss/dx = rstd (h - mean(h) - x_hat mean(h x_hat))``. ``dLoss/dweight`` and ``dLoss/dbias``
    are the sums of ``g x_hat`` and of ``g`` over the axes along which the weight is repeated.

    References
    ----------
    Ioffe, Szegedy, "Batch normalization", ICML 2015, section 3 and algorithm 1.
    """
    x_hat, center, var = moments(x, axes)
    rstd = _reciprocal_root(var, eps).astype(x.dtype)
    x_hat *= rstd
    output = _scaled(x_hat, weight, bias)
    return (output, center.astype(x.dtype), var.astype(x.dtype)), (x_hat, rstd, weight, axes)


@op(
    formula="grad_input = rstd * (grad_output * weight "
    "- (grad_output * weight).mean(axes, keepdims=True) "
    "- x_hat * (grad_output * weight * x_hat).mean(axes, keepdims=True)); "
    "grad_weight = (grad_output * x_hat)"
    ".sum(tuple(flatnonzero(not_equal(weight.shape, x_hat.shape))), keepdims=True); "
    "grad_bias = grad_output"
    ".sum(tuple(flatnonzero(not_equal(weight.shape, x_hat.shape))), keepdims=True)"
)
def normalize_backward(
    grad_output: Array,
    x_hat: Array,
    rstd: Array,
    weight: Array | None,
    axes: tuple[int, ...],
    input_grad: bool = True,
    weight_grad: bool = True,
    bias_grad: bool = True,
) -> tuple[Array | None, Array | None, Array | None]:
    """Return ``rstd (h - mean(h) - x_hat mean(h x_hat))``, and sums of ``g x_hat`` and ``g``."""
    grad_input = None
    if input_grad:
        grad_hat = grad_output if weight is None else grad_output * weight
        grad_input = grad_hat - mean(grad_hat, axes)
        grad_input -= x_hat * mean(grad_hat * x_hat, axes)
        grad_input *= rstd
    return grad_input, *_scale_gradients(grad_output, x_hat, weight, weight_grad, bias_grad)


@op(formula="output = (x - mean) / sqrt(var + eps) * weight + bias")
def normalize_by_forward(
    x: Array, mean: Array, var: Array, weight: Array | None, bias: Array | None, eps: float
) -> tuple[Array, Any]:
    """Compute ``y = (x - mean) / sqrt(var + eps) * weight + bias`` with moments that are given.

    Parameters
    ----------
    x : array of float
        Any shape.
    mean, var : array
        Broadcast to ``x``, with as many axes; not held, since running statistics are written anew.
    weight, bias : array or None
        As for :func:`normalize_forward`.
    eps : float
        Added to the variance.

    Returns
    -------
    output : array
    saved : (x_hat, rstd, weight)

    Notes
    -----
    The moments are constants here: ``dLoss/dx = g weight rstd``.
    """
    rstd = _reciprocal_root(var, eps)
    x_hat = x - mean
    x_hat *= rstd
    return _scaled(x_hat, weight, bias), (x_hat, rstd, weight)


@op(
    formula="grad_input = grad_output * weight * rstd; "
    "grad_weight = (grad_output * x_hat)"
    ".sum(tuple(flatnonzero(not_equal(weight.shape, x_hat.shape))), keepdims=True); "
    "grad_bias = grad_output"
    ".sum(tuple(flatnonzero(not_equal(weight.shape, x_hat.shape))), keepdims=True)"
)
def normalize_by_backward(
    grad_output: Array,
    x_hat: Array,
    rstd: Array,
    weight: Array | None,
    input_grad: bool = True,
    weight_grad: bool = True,
    bias_grad: bool = True,
) -> tuple[Array | None, Array | None, Array | None]:
    """Return ``g weight rstd``, and the sums of ``g x_hat`` and of ``g``."""
    grad_input = None
    if input_grad:
        grad_input = grad_output * (rstd if weight is None else rstd * weight)
    return grad_input, *_scale_gradients(grad_output, x_hat, weight, weight_grad, bias_grad)


def _reciprocal_root(var: Array, eps: float) -> Array:
    return 1.0 / get_array_module(var).sqrt(var + eps)


def _scaled(x_hat: Array, weight: Array | None, bias: Array | None) -> Array:
    """Return ``x_hat weight + bias``; ``x_hat`` itself without them."""
    if weight is None:
        return x_hat
    output = x_hat * weight
    if bias is not None:
        output += bias
    return output


def _scale_gradients(
    grad_output: Array, x_hat: Array, weight: Array | None, weight_grad: bool, bias_grad: bool
) -> tuple[Array | None, Array | None]:
    """Return the sums of ``g x_hat`` and of ``g`` over what the weight is repeated along."""
    if weight is None:
        return None, None
    grad_weight = sum_to_shape(grad_output * x_hat, weight.shape) if weight_grad else None
    return grad_weight, sum_to_shape(grad_output, weight.shape) if bias_grad else None
