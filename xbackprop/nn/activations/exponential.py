"""Activations that approach a floor exponentially: ELU, CELU, SELU."""

from typing import Any

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.dispatch import op
from xbackprop.nn.activations.elementwise import Elementwise, as_number, refuse_inplace

# Klambauer et al., equation 14: the fixed point is mean 0 and variance 1.
_SELU_ALPHA = 1.6732632423543772
_SELU_SCALE = 1.0507009873554805


@op(formula="output = where(x > 0, x, alpha * expm1(x))")
def elu_forward(x: Array, alpha: float) -> tuple[Array, Any]:
    """Compute ``y = x`` where ``x > 0``, else ``alpha (e^x - 1)``; any shape; saves ``x``.

    From ``y`` the derivative ``y + alpha`` would lose its digits where ``e^x`` is small.
    """
    xp = get_array_module(x)
    below = xp.expm1(x)  # where x > 0 it may overflow, and is not taken
    below *= alpha
    return xp.where(x > 0, x, below), (x, alpha)


@op(formula="grad_input = where(x > 0, grad_output, grad_output * alpha * exp(x))")
def elu_backward(grad_output: Array, x: Array, alpha: float) -> Array:
    """Return ``g`` where ``x > 0``, else ``g alpha e^x``."""
    xp = get_array_module(x)
    below = xp.exp(x)
    below *= alpha
    below *= grad_output
    return xp.where(x > 0, grad_output, below)


@op(formula="output = where(x > 0, x, alpha * expm1(x / alpha))")
def celu_forward(x: Array, alpha: float) -> tuple[Array, Any]:
    """Compute ``y = x`` where ``x > 0``, else ``alpha (e^(x / alpha) - 1)``; saves ``x``."""
    xp = get_array_module(x)
    below = xp.expm1(x * (1 / alpha))
    below *= alpha
    return xp.where(x > 0, x, below), (x, alpha)


@op(formula="grad_input = where(x > 0, grad_output, grad_output * exp(x / alpha))")
def celu_backward(grad_output: Array, x: Array, alpha: float) -> Array:
    """Return ``g`` where ``x > 0``, else ``g e^(x / alpha)``."""
    xp = get_array_module(x)
    below = xp.exp(x * (1 / alpha))
    below *= grad_output
    return xp.where(x > 0, grad_output, below)


@op(formula="output = 1.0507009873554805 * where(x > 0, x, 1.6732632423543772 * expm1(x))")
def selu_forward(x: Array) -> tuple[Array, Any]:
    """Compute ``y = scale x`` where ``x > 0``, else ``scale alpha (e^x - 1)``; saves ``x``."""
    xp = get_array_module(x)
    below = xp.expm1(x)
    below *= _SELU_SCALE * _SELU_ALPHA
    return xp.where(x > 0, x * _SELU_SCALE, below), (x,)


@op(
    formula="grad_input = 1.0507009873554805 * grad_output "
    "* where(x > 0, 1, 1.6732632423543772 * exp(x))"
)
def selu_backward(grad_output: Array, x: Array) -> Array:
    """Return ``g scale`` where ``x > 0``, else ``g scale alpha e^x``."""
    xp = get_array_module(x)
    below = xp.exp(x)
    below *= _SELU_SCALE * _SELU_ALPHA
    below *= grad_output
    return xp.where(x > 0, grad_output * _SELU_SCALE, below)


class ELU(Elementwise):
    """Exponential linear unit, ``y = x`` where ``x > 0``, else ``alpha (e^x - 1)``.

    Parameters
    ----------
    alpha : float, default 1.0
        The floor is ``-alpha``.
    inplace : bool, default False
        True is refused.

    Notes
    -----
    ``dy/dx = 1`` where ``x > 0``, else ``alpha e^x``; at 0 ``alpha``, as in PyTorch.

    References
    ----------
    Clevert, Unterthiner, Hochreiter, "Fast and accurate deep network learning by exponential
    linear units (ELUs)", ICLR 2016, equation 15.
    """

    forward_op, backward_op = elu_forward, elu_backward
    options = ("alpha",)

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        self.alpha = as_number("ELU", "alpha", alpha)
        self.inplace = refuse_inplace("ELU", inplace)


class CELU(Elementwise):
    """ELU without a kink, ``y = x`` where ``x > 0``, else ``alpha (e^(x / alpha) - 1)``.

    Parameters
    ----------
    alpha : float, default 1.0
        The floor is ``-alpha``; any number but 0.
    inplace : bool, default False
        True is refused.

    Notes
    -----
    ``dy/dx = 1`` where ``x > 0``, else ``e^(x / alpha)``.

    References
    ----------
    Barron, "Continuously differentiable exponential linear units", 2017, equation 2.
    """

    forward_op, backward_op = celu_forward, celu_backward
    options = ("alpha",)

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        self.alpha = as_number("CELU", "alpha", alpha)
        if self.alpha == 0:
            raise ValueError("CELU expects alpha other than 0, which it divides by; got 0")
        self.inplace = refuse_inplace("CELU", inplace)


class SELU(Elementwise):
    """Self-normalising ELU, ``y = scale x`` where ``x > 0``, else ``scale alpha (e^x - 1)``.

    Parameters
    ----------
    inplace : bool, default False
        True is refused.

    Notes
    -----
    ``scale = 1.0507...`` and ``alpha = 1.6732...`` make mean 0 and variance 1 a fixed point.
    ``dy/dx = scale`` where ``x > 0``, else ``scale alpha e^x``.

    References
    ----------
    Klambauer, Unterthiner, Mayr, Hochreiter, "Self-normalizing neural networks", NIPS 2017.
    """

    forward_op, backward_op = selu_forward, selu_backward

    def __init__(self, inplace: bool = False) -> None:
        self.inplace = refuse_inplace("SELU", inplace)
