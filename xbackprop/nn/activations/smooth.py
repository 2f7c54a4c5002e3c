"""Activations that saturate, or nearly do: the sigmoid and its relatives."""

from typing import Any

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.dispatch import op
from xbackprop.nn.activations.elementwise import Elementwise, as_number, refuse_inplace
from xbackprop.ops.special import sigmoid


@op(formula="output = 1 / (1 + exp(-x))")
def sigmoid_forward(x: Array) -> tuple[Array, Any]:
    """Compute ``y = 1 / (1 + exp(-x))``, any shape; saves ``y``."""
    output = sigmoid(x)
    return output, (output,)


@op(formula="grad_input = grad_output * output * (1 - output)")
def sigmoid_backward(grad_output: Array, output: Array) -> Array:
    """Return ``g y (1 - y)``."""
    return grad_output * (output * (1 - output))


@op(formula="output = -log(1 + exp(-x))")
def logsigmoid_forward(x: Array) -> tuple[Array, Any]:
    """Compute ``y = min(x, 0) - log(1 + e^-|x|)``, any shape; saves ``y``."""
    xp = get_array_module(x)
    output = xp.minimum(x, 0) - xp.log1p(xp.exp(-xp.abs(x)))
    return output, (output,)


@op(formula="grad_input = grad_output * (1 - exp(output))")
def logsigmoid_backward(grad_output: Array, output: Array) -> Array:
    """Return ``g (1 - e^y)``."""
    return grad_output * -get_array_module(output).expm1(output)


@op(formula="output = minimum(maximum(x + 3, 0), 6) / 6")
def hardsigmoid_forward(x: Array) -> tuple[Array, Any]:
    """Compute ``y = min(max(x + 3, 0), 6) / 6``, any shape; saves ``x``.

    Just inside the kinks ``y`` is rounded to 0 and 1, and so does not tell.
    """
    return get_array_module(x).clip(x + 3, 0, 6) / 6, (x,)


@op(formula="grad_input = where((x > -3) & (x < 3), grad_output / 6, 0)")
def hardsigmoid_backward(grad_output: Array, x: Array) -> Array:
    """Return ``g / 6`` strictly between -3 and 3, else 0."""
    return get_array_module(x).where((x > -3) & (x < 3), grad_output / 6, 0)


@op(formula="output = tanh(x)")
def tanh_forward(x: Array) -> tuple[Array, Any]:
    """Compute ``y = tanh(x)``, any shape; saves ``y``."""
    output = get_array_module(x).tanh(x)
    return output, (output,)


@op(formula="grad_input = grad_output * (1 - output * output)")
def tanh_backward(grad_output: Array, output: Array) -> Array:
    """Return ``g (1 - y^2)``."""
    return grad_output * (1 - output * output)


@op(formula="output = x / (1 + abs(x))")
def softsign_forward(x: Array) -> tuple[Array, Any]:
    """Compute ``y = x / (1 + |x|)``, any shape; saves ``y``."""
    output = x / (1 + get_array_module(x).abs(x))
    return output, (output,)


@op(formula="grad_input = grad_output * (1 - abs(output)) * (1 - abs(output))")
def softsign_backward(grad_output: Array, output: Array) -> Array:
    """Return ``g (1 - |y|)^2``, which is ``g / (1 + |x|)^2``."""
    root = 1 - get_array_module(output).abs(output)
    return grad_output * (root * root)


@op(formula="output = where(x * beta > threshold, x, log(1 + exp(x * beta)) / beta)")
def softplus_forward(x: Array, beta: float, threshold: float) -> tuple[Array, Any]:
    """Compute ``y = log(1 + e^(beta x)) / beta``, and ``x`` where ``beta x > threshold``.

    Any shape; saves ``x``.
    """
    xp = get_array_module(x)
    scaled = x * beta
    soft = xp.log1p(xp.exp(scaled))  # beyond the threshold it may overflow, and is not taken
    soft /= beta
    return xp.where(scaled > threshold, x, soft), (x, beta, threshold)


@op(
    formula="grad_input = where(x * beta > threshold, grad_output, "
    "grad_output / (1 + exp(-x * beta)))"
)
def softplus_backward(grad_output: Array, x: Array, beta: float, threshold: float) -> Array:
    """Return ``g z / (z + 1)`` of ``z = e^(beta x)``, and ``g`` beyond the threshold."""
    xp = get_array_module(x)
    scaled = x * beta
    z = xp.exp(scaled)
    slope = z / (z + 1)
    slope *= grad_output
    return xp.where(scaled > threshold, grad_output, slope)


class Sigmoid(Elementwise):
    """Logistic function, ``y = 1 / (1 + exp(-x))``.

    Notes
    -----
    ``dy/dx = y (1 - y)``.
    """

    forward_op, backward_op = sigmoid_forward, sigmoid_backward


class LogSigmoid(Elementwise):
    """Logarithm of the logistic function, ``y = -log(1 + exp(-x))``.

    Notes
    -----
    ``dy/dx = sigmoid(-x) = 1 - sigmoid(x) = 1 - e^y``, which ``expm1`` gives to the last digit.
    """

    forward_op, backward_op = logsigmoid_forward, logsigmoid_backward


class Hardsigmoid(Elementwise):
    """Sigmoid of three straight pieces, ``y = min(max(x + 3, 0), 6) / 6``.

    Parameters
    ----------
    inplace : bool, default False
        True is refused.

    Notes
    -----
    ``dy/dx = 1/6`` where ``-3 < x < 3``, else 0.

    References
    ----------
    Courbariaux, Bengio, David, "BinaryConnect", NIPS 2015; with the bounds of Howard et al.,
    "Searching for MobileNetV3", ICCV 2019.
    """

    forward_op, backward_op = hardsigmoid_forward, hardsigmoid_backward

    def __init__(self, inplace: bool = False) -> None:
        self.inplace = refuse_inplace("Hardsigmoid", inplace)


class Tanh(Elementwise):
    """Hyperbolic tangent, ``y = tanh(x)``.

    Notes
    -----
    ``dy/dx = 1 - y^2``.
    """

    forward_op, backward_op = tanh_forward, tanh_backward


class Softsign(Elementwise):
    """Tanh with slower tails, ``y = x / (1 + |x|)``.

    Notes
    -----
    ``dy/dx = 1 / (1 + |x|)^2 = (1 - |y|)^2``.

    References
    ----------
    Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural
    networks", AISTATS 2010.
    """

    forward_op, backward_op = softsign_forward, softsign_backward


class Softplus(Elementwise):
    """Smooth ReLU, ``y = log(1 + exp(beta x)) / beta``.

    Parameters
    ----------
    beta : float, default 1.0
        How sharp the bend is.
    threshold : float, default 20.0
        Where ``beta x`` exceeds it, ``y = x``.

    Notes
    -----
    ``dy/dx = sigmoid(beta x)``, and 1 beyond the threshold. A threshold beyond 88 lets float32
    overflow, as in PyTorch.

    References
    ----------
    Dugas et al., "Incorporating second-order functional knowledge for better option pricing",
    NIPS 2000.
    """

    forward_op, backward_op = softplus_forward, softplus_backward
    options = ("beta", "threshold")

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        self.beta = as_number("Softplus", "beta", beta)
        self.threshold = as_number("Softplus", "threshold", threshold)
