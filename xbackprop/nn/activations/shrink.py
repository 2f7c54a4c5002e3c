"""Activations that pull small inputs to zero."""

from typing import Any

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.dispatch import op
from xbackprop.nn.activations.elementwise import Elementwise, as_number


@op(formula="output = where((x >= -lambd) & (x <= lambd), 0, x)")
def hardshrink_forward(x: Array, lambd: float) -> tuple[Array, Any]:
    """Compute ``y = x`` where ``|x| > lambd``, else 0; any shape; saves ``x``."""
    inside = (x >= -lambd) & (x <= lambd)
    return get_array_module(x).where(inside, 0, x), (x, lambd)


@op(formula="grad_input = where((x >= -lambd) & (x <= lambd), 0, grad_output)")
def hardshrink_backward(grad_output: Array, x: Array, lambd: float) -> Array:
    """Return ``g`` where ``|x| > lambd``, else 0."""
    inside = (x >= -lambd) & (x <= lambd)
    return get_array_module(x).where(inside, 0, grad_output)


@op(formula="output = x - minimum(maximum(x, -lambd), lambd)")
def softshrink_forward(x: Array, lambd: float) -> tuple[Array, Any]:
    """Compute ``y = x - lambd`` above ``lambd``, ``x + lambd`` below ``-lambd``, else 0; saves it.

    Any shape. What is taken off is ``x`` itself, up to ``lambd`` on either side.
    """
    output = x - get_array_module(x).clip(x, -lambd, lambd)
    return output, (output,)


@op(formula="grad_input = where(output == 0, 0, grad_output)")
def softshrink_backward(grad_output: Array, output: Array) -> Array:
    """Return ``g`` where ``y`` is not 0, else 0."""
    return get_array_module(output).where(output == 0, 0, grad_output)


@op(formula="output = x - tanh(x)")
def tanhshrink_forward(x: Array) -> tuple[Array, Any]:
    """Compute ``y = x - tanh(x)``, any shape; saves ``tanh(x)``."""
    tanh = get_array_module(x).tanh(x)
    return x - tanh, (tanh,)


@op(formula="grad_input = grad_output * tanh * tanh")
def tanhshrink_backward(grad_output: Array, tanh: Array) -> Array:
    """Return ``g tanh(x)^2``, which is ``g (1 - (1 - tanh(x)^2))`` without its cancellation."""
    return grad_output * (tanh * tanh)


class Hardshrink(Elementwise):
    """Cut small inputs off, ``y = x`` where ``|x| > lambd``, else 0.

    Parameters
    ----------
    lambd : float, default 0.5
        Half the width of what becomes 0; below 0 nothing does.

    Notes
    -----
    ``dy/dx = 1`` where ``|x| > lambd``, else 0.

    References
    ----------
    Donoho and Johnstone, "Ideal spatial adaptation by wavelet shrinkage", Biometrika 81 (1994).
    """

    forward_op, backward_op = hardshrink_forward, hardshrink_backward
    options = ("lambd",)

    def __init__(self, lambd: float = 0.5) -> None:
        self.lambd = as_number("Hardshrink", "lambd", lambd)


class Softshrink(Elementwise):
    """Pull inputs towards zero by ``lambd``, ``y = sign(x) max(|x| - lambd, 0)``.

    Parameters
    ----------
    lambd : float, default 0.5
        How far, at least 0.

    Notes
    -----
    ``dy/dx = 1`` where ``|x| > lambd``, which is where ``y`` is not 0; else 0.

    References
    ----------
    Donoho and Johnstone, "Ideal spatial adaptation by wavelet shrinkage", Biometrika 81 (1994).
    """

    forward_op, backward_op = softshrink_forward, softshrink_backward
    options = ("lambd",)

    def __init__(self, lambd: float = 0.5) -> None:
        self.lambd = as_number("Softshrink", "lambd", lambd)
        if not 0 <= self.lambd < float("inf"):
            raise ValueError(f"Softshrink expects a finite lambd >= 0; got {lambd}")


class Tanhshrink(Elementwise):
    """What tanh leaves, ``y = x - tanh(x)``.

    Notes
    -----
    ``dy/dx = 1 - (1 - tanh(x)^2) = tanh(x)^2``.
    """

    forward_op, backward_op = tanhshrink_forward, tanhshrink_backward
