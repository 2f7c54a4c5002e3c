"""Elementwise activations: a formula and its derivative, side by side."""

from typing import Any, ClassVar

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.dispatch import Op, op
from xbackprop.module import Module, describe_layer
from xbackprop.ops.special import sigmoid


@op(formula="output = maximum(x, 0)")
def relu_forward(x: Array) -> tuple[Array, Any]:
    """Compute ``y = max(x, 0)``, any shape; saves ``y``."""
    output = get_array_module(x).maximum(x, 0)
    return output, (output,)


@op(formula="grad_input = where(output > 0, grad_output, 0)")
def relu_backward(grad_output: Array, output: Array) -> Array:
    """Return ``g`` where ``y > 0``, else 0 (at the kink as well, as PyTorch does)."""
    return get_array_module(output).where(output > 0, grad_output, 0)


@op(formula="output = 1 / (1 + exp(-x))")
def sigmoid_forward(x: Array) -> tuple[Array, Any]:
    """Compute ``y = 1 / (1 + exp(-x))``, any shape; saves ``y``."""
    output = sigmoid(x)
    return output, (output,)


@op(formula="grad_input = grad_output * output * (1 - output)")
def sigmoid_backward(grad_output: Array, output: Array) -> Array:
    """Return ``g y (1 - y)``."""
    return grad_output * (output * (1 - output))


@op(formula="output = tanh(x)")
def tanh_forward(x: Array) -> tuple[Array, Any]:
    """Compute ``y = tanh(x)``, any shape; saves ``y``."""
    output = get_array_module(x).tanh(x)
    return output, (output,)


@op(formula="grad_input = grad_output * (1 - output * output)")
def tanh_backward(grad_output: Array, output: Array) -> Array:
    """Return ``g (1 - y^2)``."""
    return grad_output * (1 - output * output)


class _Elementwise(Module):
    """What all activations without options share; they differ in their pair of ops."""

    forward_op: ClassVar[Op]
    backward_op: ClassVar[Op]

    def forward(self, x: Array) -> tuple[Array, Any]:
        """Apply the function to every element."""
        if not hasattr(x, "dtype"):
            self.check_device("x", x, x)
        if x.dtype.kind != "f":
            raise TypeError(
                f"{describe_layer(self)} expects x of a float dtype; got {x.dtype}. "
                "Call x.astype('float32')."
            )
        return self.forward_op(x)

    def backward(self, grad_output: Array, saved: Any, *, input_grad: bool = True) -> Array | None:
        """Multiply by the derivative of the function."""
        return self.backward_op(grad_output, *saved) if input_grad else None


class ReLU(_Elementwise):
    """Rectified linear unit, ``y = max(x, 0)``.

    Parameters
    ----------
    inplace : bool, default False
        True is refused: an array another layer's backward holds must not change.

    Notes
    -----
    ``dy/dx = 1`` where ``x > 0``, else 0; at the kink 0, as in PyTorch.

    References
    ----------
    Nair and Hinton, "Rectified linear units improve restricted Boltzmann machines", ICML 2010.
    """

    forward_op, backward_op = relu_forward, relu_backward

    def __init__(self, inplace: bool = False) -> None:
        refuse_inplace("ReLU", inplace)


class Sigmoid(_Elementwise):
    """Logistic function, ``y = 1 / (1 + exp(-x))``.

    Notes
    -----
    ``dy/dx = y (1 - y)``.
    """

    forward_op, backward_op = sigmoid_forward, sigmoid_backward


class Tanh(_Elementwise):
    """Hyperbolic tangent, ``y = tanh(x)``.

    Notes
    -----
    ``dy/dx = 1 - y^2``.
    """

    forward_op, backward_op = tanh_forward, tanh_backward


def refuse_inplace(name: str, inplace: bool) -> None:
    """Refuse ``inplace=True``, which would change arrays that another backward holds."""
    if inplace:
        raise NotImplementedError(f"{name}(inplace=True): layers never write into their input")
