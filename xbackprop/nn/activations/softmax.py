"""Activations along an axis: softmax, its mirror image and its logarithm."""

from typing import Any, ClassVar

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.dispatch import Op, op
from xbackprop.module import Module, describe_layer
from xbackprop.nn.activations.elementwise import check_float
from xbackprop.nn.axes import check_dim, normalize_dim
from xbackprop.ops.softmax import log_softmax, softmax


@op(formula="output = exp(x) / exp(x).sum(dim, keepdims=True)")
def softmax_forward(x: Array, dim: int) -> tuple[Array, Any]:
    """Compute ``y_i = e^x_i / sum_j e^x_j`` along ``dim``.

    Parameters
    ----------
    x : array of float
        Any shape with at least one axis.
    dim : int
        The axis of the sum.

    Returns
    -------
    output : array
        Same shape as ``x``.
    saved : (output, dim)

    Notes
    -----
    ``dy_i/dx_j = y_i (1 where i = j, else 0) - y_i y_j``, so that
    ``dLoss/dx_j = y_j (g_j - sum_i g_i y_i)``.
    """
    output = softmax(x, dim)
    return output, (output, dim)


@op(
    formula="grad_input = output * (grad_output - (grad_output * output).sum(dim, keepdims=True))",
)
def softmax_backward(grad_output: Array, output: Array, dim: int) -> Array:
    """Return ``y (g - sum g y)``."""
    inner = (grad_output * output).sum(axis=dim, keepdims=True)
    grad_input = grad_output - inner
    grad_input *= output
    return grad_input


@op(formula="output = exp(-x) / exp(-x).sum(dim, keepdims=True)")
def softmin_forward(x: Array, dim: int) -> tuple[Array, Any]:
    """Compute ``y_i = e^-x_i / sum_j e^-x_j`` along ``dim``, any shape; saves ``y``."""
    output = softmax(-x, dim)
    return output, (output, dim)


@op(
    formula="grad_input = output * ((grad_output * output).sum(dim, keepdims=True) - grad_output)",
)
def softmin_backward(grad_output: Array, output: Array, dim: int) -> Array:
    """Return ``y (sum g y - g)``, the gradient of softmax times -1."""
    inner = (grad_output * output).sum(axis=dim, keepdims=True)
    grad_input = inner - grad_output
    grad_input *= output
    return grad_input


@op(formula="output = x - log(exp(x).sum(dim, keepdims=True))")
def log_softmax_forward(x: Array, dim: int) -> tuple[Array, Any]:
    """Compute ``y_i = x_i - log(sum_j e^x_j)`` along ``dim``.

    Parameters
    ----------
    x : array of float
        Any shape with at least one axis.
    dim : int
        The axis of the sum.

    Returns
    -------
    output : array
        Same shape as ``x``.
    saved : (output, dim)

    Notes
    -----
    ``dy_i/dx_j = (1 where i = j, else 0) - e^y_j``, so that
    ``dLoss/dx_j = g_j - e^y_j sum_i g_i``.
    """
    output = log_softmax(x, dim)
    return output, (output, dim)


@op(formula="grad_input = grad_output - exp(output) * grad_output.sum(dim, keepdims=True)")
def log_softmax_backward(grad_output: Array, output: Array, dim: int) -> Array:
    """Return ``g - e^y sum g``."""
    share = get_array_module(output).exp(output)
    share *= grad_output.sum(axis=dim, keepdims=True)
    return grad_output - share


class _AlongAxis(Module):
    """What softmax and its relatives share; they differ in their pair of ops."""

    forward_op: ClassVar[Op]
    backward_op: ClassVar[Op]
    dim: int

    def forward(self, x: Array) -> tuple[Array, Any]:
        """Apply the function along the axis; a number is an axis of one."""
        check_float(self, x)
        dim = normalize_dim(self, self.dim, x.shape)
        output, saved = self.forward_op(x if x.ndim else x.reshape(1), dim)
        return output.reshape(x.shape), saved

    def backward(self, grad_output: Array, saved: Any, *, input_grad: bool = True) -> Array | None:
        """Return the gradient of the input."""
        if not input_grad:
            return None
        shape = grad_output.shape
        grad = grad_output if shape else grad_output.reshape(1)
        return self.backward_op(grad, *saved).reshape(shape)

    def extra_repr(self) -> str:
        """Return the constructor arguments shown by ``repr``."""
        return f"dim={self.dim}"


class Softmax(_AlongAxis):
    """Positive numbers of sum 1, ``y_i = exp(x_i) / sum_j exp(x_j)``.

    Parameters
    ----------
    dim : int
        The axis along which they sum to 1. None, PyTorch's deprecated implicit choice (axis 0 of
        1-D and 3-D input, else axis 1), is refused.

    Notes
    -----
    The derivative is derived in :func:`softmax_forward`.

    References
    ----------
    Bridle, "Probabilistic interpretation of feedforward classification network outputs", 1990.

    Examples
    --------
    >>> import xbackprop as xb
    >>> [[round(float(y), 2) for y in row]
    ...  for row in xb.to_host(xb.nn.Softmax(dim=-1)(xb.asarray([[1.0, 1.0], [0.0, 3.0]])))]
    [[0.5, 0.5], [0.05, 0.95]]
    """

    forward_op, backward_op = softmax_forward, softmax_backward

    def __init__(self, dim: int | None = None) -> None:
        self.dim = check_dim("Softmax", dim)


class Softmin(_AlongAxis):
    """Softmax of the negative input, ``y_i = exp(-x_i) / sum_j exp(-x_j)``.

    Parameters
    ----------
    dim : int
        The axis along which they sum to 1; None is refused.

    Notes
    -----
    ``dLoss/dx_j = y_j (sum_i g_i y_i - g_j)``: the gradient of softmax times -1.
    """

    forward_op, backward_op = softmin_forward, softmin_backward

    def __init__(self, dim: int | None = None) -> None:
        self.dim = check_dim("Softmin", dim)


class LogSoftmax(_AlongAxis):
    """Logarithm of softmax, ``y_i = x_i - log(sum_j exp(x_j))``.

    Parameters
    ----------
    dim : int
        The axis along which ``exp(y)`` sums to 1; None is refused.

    Notes
    -----
    The derivative is derived in :func:`log_softmax_forward`.
    """

    forward_op, backward_op = log_softmax_forward, log_softmax_backward

    def __init__(self, dim: int | None = None) -> None:
        self.dim = check_dim("LogSoftmax", dim)


class Softmax2d(_AlongAxis):
    """Softmax over the channels at every place of an image.

    Takes ``(batch, channels, height, width)``, or one image without its batch axis.
    """

    forward_op, backward_op = softmax_forward, softmax_backward
    dim = -3

    def forward(self, x: Array) -> tuple[Array, Any]:
        """Apply softmax over the channels."""
        check_float(self, x)
        if x.ndim not in (3, 4):
            raise ValueError(
                f"{describe_layer(self)} expects x of shape (batch, channels, height, width) or "
                f"(channels, height, width); got {x.shape}. Softmax(dim) takes any shape."
            )
        return super().forward(x)

    def extra_repr(self) -> str:
        """Return nothing: the axis is no argument."""
        return ""
