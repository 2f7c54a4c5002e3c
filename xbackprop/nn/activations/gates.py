"""Activations that multiply their input by a gate made of itself."""

import math
from typing import Any

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.dispatch import op
from xbackprop.module import Module
from xbackprop.nn.activations.elementwise import Elementwise, check_float, refuse_inplace
from xbackprop.ops.special import erf, sigmoid, sigmoid_and_slope

_ROOT_HALF = math.sqrt(0.5)
_NORMAL_PEAK = 1 / math.sqrt(2 * math.pi)
_TANH_SCALE = math.sqrt(2 / math.pi)


@op(formula="output = x * (1 + erf(x / sqrt(2))) / 2")
def gelu_forward(x: Array) -> tuple[Array, Any]:
    """Compute ``y = x Phi(x)``, ``Phi`` the normal distribution; any shape; saves ``x``."""
    return x * _normal_distribution(x), (x,)


@op(
    formula="grad_input = grad_output * ((1 + erf(x / sqrt(2))) / 2 "
    "+ x * exp(-x * x / 2) / sqrt(2 * pi))"
)
def gelu_backward(grad_output: Array, x: Array) -> Array:
    """Return ``g (Phi(x) + x phi(x))``, ``phi`` the normal density."""
    density = get_array_module(x).exp(x * x * -0.5)
    density *= _NORMAL_PEAK
    density *= x
    density += _normal_distribution(x)
    density *= grad_output
    return density


def _normal_distribution(x: Array) -> Array:
    distribution = erf(x * _ROOT_HALF)
    distribution += 1
    distribution *= 0.5
    return distribution


@op(formula="output = x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x * x * x))) / 2")
def gelu_tanh_forward(x: Array) -> tuple[Array, Any]:
    """Compute ``y = x (1 + tanh(u)) / 2`` with ``u = sqrt(2/pi) (x + 0.044715 x^3)``.

    Any shape; saves ``x``. ``(1 + tanh(u)) / 2`` is ``sigmoid(2 u)``, which keeps its digits where
    ``tanh`` is close to -1.
    """
    return x * sigmoid(_twice_cubic(x)), (x,)


@op(
    formula="grad_input = grad_output * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x * x * x)) "
    "+ x / cosh(sqrt(2 / pi) * (x + 0.044715 * x * x * x)) ** 2 "
    "* sqrt(2 / pi) * (1 + 3 * 0.044715 * x * x)) / 2"
)
def gelu_tanh_backward(grad_output: Array, x: Array) -> Array:
    """Return ``g (s + x s (1 - s) 2 du/dx)`` with ``s = sigmoid(2 u)``."""
    value, slope = sigmoid_and_slope(_twice_cubic(x))
    inner = x * x
    inner *= 6 * 0.044715 * _TANH_SCALE
    inner += 2 * _TANH_SCALE
    slope *= x
    slope *= inner
    slope += value
    slope *= grad_output
    return slope


def _twice_cubic(x: Array) -> Array:
    cubic = x * x
    cubic *= x
    cubic *= 0.044715
    cubic += x
    cubic *= 2 * _TANH_SCALE
    return cubic


@op(formula="output = x / (1 + exp(-x))")
def silu_forward(x: Array) -> tuple[Array, Any]:
    """Compute ``y = x sigmoid(x)``, any shape; saves ``x``."""
    return x * sigmoid(x), (x,)


@op(formula="grad_input = grad_output * (1 + x - x / (1 + exp(-x))) / (1 + exp(-x))")
def silu_backward(grad_output: Array, x: Array) -> Array:
    """Return ``g (s + x s (1 - s))`` with ``s = sigmoid(x)``."""
    value, slope = sigmoid_and_slope(x)
    slope *= x
    slope += value
    slope *= grad_output
    return slope


@op(formula="output = x * tanh(log(1 + exp(x)))")
def mish_forward(x: Array) -> tuple[Array, Any]:
    """Compute ``y = x tanh(log(1 + e^x))``.

    Parameters
    ----------
    x : array of float
        Any shape.

    Returns
    -------
    output : array
        Same shape as ``x``.
    saved : (x,)

    Notes
    -----
    With ``t = tanh(log v) = (v^2 - 1) / (v^2 + 1)`` and ``v = 1 + e^x``, so
    ``dt/dx = 4 v e^x / (v^2 + 1)^2``. Numerators and denominators are taken times ``e^-2x`` and
    ``e^-4x`` where ``x >= 0``, so that they are polynomials in ``z = e^-|x|`` on both sides.
    """
    z, is_positive, denominator = _mish_terms(x)
    numerator = get_array_module(x).where(is_positive, 1 + 2 * z, z * (z + 2))
    numerator /= denominator
    return x * numerator, (x,)


@op(
    formula="grad_input = grad_output * (tanh(log(1 + exp(x))) "
    "+ x * (1 - tanh(log(1 + exp(x))) ** 2) / (1 + exp(-x)))"
)
def mish_backward(grad_output: Array, x: Array) -> Array:
    """Return ``g (t + x dt/dx)``."""
    xp = get_array_module(x)
    z, is_positive, denominator = _mish_terms(x)
    value = xp.where(is_positive, 1 + 2 * z, z * (z + 2))
    value /= denominator
    slope = xp.where(is_positive, z, 1) * z
    slope *= 4 * (1 + z)
    slope /= denominator * denominator
    slope *= x
    slope += value
    slope *= grad_output
    return slope


def _mish_terms(x: Array) -> tuple[Array, Array, Array]:
    xp = get_array_module(x)
    z = xp.exp(-xp.abs(x))
    is_positive = x >= 0
    return z, is_positive, xp.where(is_positive, 1 + 2 * z * (1 + z), z * (z + 2) + 2)


@op(formula="output = x * minimum(maximum(x + 3, 0), 6) / 6")
def hardswish_forward(x: Array) -> tuple[Array, Any]:
    """Compute ``y = x min(max(x + 3, 0), 6) / 6``, any shape; saves ``x``."""
    gate = get_array_module(x).clip(x + 3, 0, 6)
    return x * gate / 6, (x,)


@op(
    formula="grad_input = grad_output * where(x <= -3, 0, where(x < 3, x / 3 + 0.5, 1))",
)
def hardswish_backward(grad_output: Array, x: Array) -> Array:
    """Return ``g (x / 3 + 1/2)`` strictly between -3 and 3, 0 below and ``g`` above."""
    xp = get_array_module(x)
    slope = x / 3
    slope += 0.5
    slope *= grad_output
    return xp.where(x <= -3, 0, xp.where(x < 3, slope, grad_output))


class GELU(Module):
    """Gaussian error linear unit, ``y = x Phi(x)``.

    Parameters
    ----------
    approximate : {"none", "tanh"}, default "none"
        "tanh" takes ``(1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2`` for ``Phi``.

    Notes
    -----
    ``dy/dx = Phi(x) + x phi(x)``, with the density ``phi(x) = exp(-x^2 / 2) / sqrt(2 pi)``.

    References
    ----------
    Hendrycks and Gimpel, "Gaussian error linear units (GELUs)", 2016, section 2.
    """

    samples_apart = True

    def __init__(self, approximate: str = "none") -> None:
        if approximate not in ("none", "tanh"):
            raise ValueError(f"GELU expects approximate 'none' or 'tanh'; got {approximate!r}")
        self.approximate = approximate

    def forward(self, x: Array) -> tuple[Array, Any]:
        """Apply the function to every element."""
        check_float(self, x)
        return gelu_tanh_forward(x) if self.approximate == "tanh" else gelu_forward(x)

    def backward(self, grad_output: Array, saved: Any, *, input_grad: bool = True) -> Array | None:
        """Multiply by the derivative of the function."""
        if not input_grad:
            return None
        backward_op = gelu_tanh_backward if self.approximate == "tanh" else gelu_backward
        return backward_op(grad_output, *saved)

    def extra_repr(self) -> str:
        """Return the constructor arguments shown by ``repr``."""
        return f"approximate={self.approximate!r}"


class SiLU(Elementwise):
    """Sigmoid linear unit or swish, ``y = x sigmoid(x)``.

    Parameters
    ----------
    inplace : bool, default False
        True is refused.

    Notes
    -----
    ``dy/dx = s + x s (1 - s)`` with ``s = sigmoid(x)``.

    References
    ----------
    Elfwing, Uchibe, Doya, "Sigmoid-weighted linear units for neural network function
    approximation in reinforcement learning", Neural Networks 107 (2018).
    """

    forward_op, backward_op = silu_forward, silu_backward

    def __init__(self, inplace: bool = False) -> None:
        self.inplace = refuse_inplace("SiLU", inplace)


class Mish(Elementwise):
    """Smooth relative of SiLU, ``y = x tanh(softplus(x))``.

    Parameters
    ----------
    inplace : bool, default False
        True is refused.

    Notes
    -----
    ``dy/dx = t + x (1 - t^2) sigmoid(x)`` with ``t = tanh(softplus(x))``, since the derivative of
    softplus is the sigmoid.

    References
    ----------
    Misra, "Mish: a self regularized non-monotonic activation function", BMVC 2020.
    """

    forward_op, backward_op = mish_forward, mish_backward

    def __init__(self, inplace: bool = False) -> None:
        self.inplace = refuse_inplace("Mish", inplace)


class Hardswish(Elementwise):
    """SiLU of three pieces, ``y = x min(max(x + 3, 0), 6) / 6``.

    Parameters
    ----------
    inplace : bool, default False
        True is refused.

    Notes
    -----
    ``dy/dx = x / 3 + 1/2`` where ``-3 < x < 3``, 0 below and 1 above.

    References
    ----------
    Howard et al., "Searching for MobileNetV3", ICCV 2019, section 5.2.
    """

    forward_op, backward_op = hardswish_forward, hardswish_backward

    def __init__(self, inplace: bool = False) -> None:
        self.inplace = refuse_inplace("Hardswish", inplace)
