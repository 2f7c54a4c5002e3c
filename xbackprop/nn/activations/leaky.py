"""Activations with a slope below zero: fixed, learned, or drawn at random."""

import math
from typing import Any

import numpy as np

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.backend.device import Device
from xbackprop.dispatch import op
from xbackprop.initializers import RandomSource, float_dtype, initial
from xbackprop.module import Module, Parameter, describe_layer
from xbackprop.nn.activations.elementwise import Elementwise, as_number, refuse_inplace
from xbackprop.nn.randomness import RandomLayer
from xbackprop.ops.broadcast import along_channels


@op(formula="output = where(x > 0, x, negative_slope * x)")
def leaky_relu_forward(x: Array, negative_slope: float) -> tuple[Array, Any]:
    """Compute ``y = x`` where ``x > 0``, else ``negative_slope x``; any shape; saves ``x``."""
    return get_array_module(x).where(x > 0, x, x * negative_slope), (x, negative_slope)


@op(formula="grad_input = where(x > 0, grad_output, negative_slope * grad_output)")
def leaky_relu_backward(grad_output: Array, x: Array, negative_slope: float) -> Array:
    """Return ``g`` where ``x > 0``, else ``negative_slope g``."""
    return get_array_module(x).where(x > 0, grad_output, grad_output * negative_slope)


@op(formula="output = where(x > 0, x, weight * x)")
def prelu_forward(x: Array, weight: Array) -> tuple[Array, Any]:
    """Compute ``y = x`` where ``x > 0``, else ``weight x``.

    Parameters
    ----------
    x : array, shape (batch, channels, ...)
        Any shape where ``weight`` has one element.
    weight : array, shape (channels,) or (1,)
        Slopes below zero.

    Returns
    -------
    output : array
        Same shape as ``x``.
    saved : (x, weight)

    Notes
    -----
    ``dLoss/dx = g`` where ``x > 0``, else ``g weight``; ``dLoss/dweight`` is the sum of ``g x``
    where ``x <= 0``, over all axes but that of the channels.
    """
    slope = along_channels(weight, x.ndim)
    return get_array_module(x).where(x > 0, x, x * slope), (x, weight)


@op(
    formula="grad_input = where(x > 0, grad_output, weight * grad_output); "
    "grad_weight = where(x > 0, 0, grad_output * x).sum().reshape(1)"
)
def prelu_backward(
    grad_output: Array, x: Array, weight: Array, input_grad: bool = True, weight_grad: bool = True
) -> tuple[Array | None, Array | None]:
    """Return ``g`` or ``weight g``, and the sums of ``g x`` where ``x <= 0``."""
    xp = get_array_module(x)
    above = x > 0
    grad_input = grad_weight = None
    if input_grad:
        slope = along_channels(weight, x.ndim)
        grad_input = xp.where(above, grad_output, grad_output * slope)
    if weight_grad:
        axes = tuple(axis for axis in range(x.ndim) if axis != 1 or weight.size == 1)
        parts = xp.where(above, 0, grad_output * x)
        grad_weight = parts.sum(axis=axes).reshape(weight.shape)
    return grad_input, grad_weight


@op(formula="output = x * where(x > 0, 1, slope)")
def rrelu_forward(x: Array, slope: Array) -> tuple[Array, Any]:
    """Compute ``y = x`` where ``x > 0``, else ``slope x``; saves the factors of ``x``.

    Parameters
    ----------
    x : array of float
        Any shape.
    slope : array
        Same shape and dtype; drawn at random.

    Returns
    -------
    output : array
    saved : (factor,)
        1 where ``x > 0``, else the slope.
    """
    factor = get_array_module(x).where(x > 0, 1, slope)
    return x * factor, (factor,)


@op(formula="grad_input = grad_output * factor")
def rrelu_backward(grad_output: Array, factor: Array) -> Array:
    """Return ``g`` times the factor that was drawn."""
    return grad_output * factor


class LeakyReLU(Elementwise):
    """ReLU with a slope below zero, ``y = x`` where ``x > 0``, else ``negative_slope x``.

    Parameters
    ----------
    negative_slope : float, default 0.01
        The slope below zero.
    inplace : bool, default False
        True is refused.

    Notes
    -----
    ``dy/dx = 1`` where ``x > 0``, else ``negative_slope``; at the kink as well, as in PyTorch.

    References
    ----------
    Maas, Hannun, Ng, "Rectifier nonlinearities improve neural network acoustic models", ICML 2013.
    """

    forward_op, backward_op = leaky_relu_forward, leaky_relu_backward
    options = ("negative_slope",)

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False) -> None:
        self.negative_slope = as_number("LeakyReLU", "negative_slope", negative_slope)
        self.inplace = refuse_inplace("LeakyReLU", inplace)


class PReLU(Module):
    """ReLU with a learned slope below zero, ``y = x`` where ``x > 0``, else ``weight x``.

    Parameters
    ----------
    num_parameters : int, default 1
        One slope for all elements, or one for each channel (axis 1).
    init : float, default 0.25
        First value of every slope.
    device : str or Device, optional
        Where the slopes live; None is the default device.
    dtype : dtype, optional
        float32 (None) or float64.

    Attributes
    ----------
    weight : Parameter, shape (num_parameters,)

    Notes
    -----
    The derivative is derived in :func:`prelu_forward`. A weight decay would pull the slopes
    towards ReLU.

    References
    ----------
    He, Zhang, Ren, Sun, "Delving deep into rectifiers", ICCV 2015, equations 1 and 6.
    """

    def __init__(
        self,
        num_parameters: int = 1,
        init: float = 0.25,
        *,
        device: str | Device | None = None,
        dtype: Any = None,
    ) -> None:
        if num_parameters < 0:
            raise ValueError(f"PReLU expects num_parameters >= 0; got {num_parameters}")
        self.num_parameters = num_parameters
        self.init = as_number("PReLU", "init", init)
        shape, first = (num_parameters,), self.init
        slopes = initial(shape, float_dtype(dtype), lambda: np.full(shape, first), device)
        self.weight = Parameter(slopes)

    def reset_parameters(self, rng: RandomSource = None) -> None:
        """Give every slope its first value."""
        self.load_state_dict({"weight": np.full(self.num_parameters, self.init)})

    def forward(self, x: Array) -> tuple[Array, Any]:
        """Apply the slope, or that of each channel, where ``x <= 0``."""
        weight = self.weight.value
        x = self.check_input("x", x, weight)
        if self.num_parameters != 1 and (x.ndim < 2 or x.shape[1] != self.num_parameters):
            raise ValueError(
                f"{describe_layer(self)} expects x of shape (batch, {self.num_parameters}, ...); "
                f"got {x.shape}. num_parameters is 1, or the number of channels."
            )
        return prelu_forward(x, weight)

    def backward(self, grad_output: Array, saved: Any, *, input_grad: bool = True) -> Array | None:
        """Add the sums of ``g x`` where ``x <= 0``; return ``g`` or ``weight g``."""
        grad_input, grad_weight = prelu_backward(
            grad_output, *saved, input_grad, self.weight.requires_grad
        )
        if grad_weight is not None:
            self.weight.accumulate(grad_weight)
        return grad_input

    def extra_repr(self) -> str:
        """Return the constructor arguments shown by ``repr``."""
        return f"num_parameters={self.num_parameters}"


class RReLU(RandomLayer):
    """Leaky ReLU whose slope below zero is drawn for every element in training.

    Parameters
    ----------
    lower, upper : float, default 1/8 and 1/3
        Bounds of the uniform distribution of slopes; evaluation takes their mean.
    inplace : bool, default False
        True is refused.
    device : str or Device, optional
        Where the random counter lives; None is the default device.
    rng : Generator, int or None
        Draws the key of the random stream.

    Notes
    -----
    A slope is ``lower + (upper - lower) u`` with 24 Philox bits in ``u``, so it is the same on
    every device. ``dy/dx = 1`` where ``x > 0``, else the slope that was drawn.

    References
    ----------
    Xu, Wang, Chen, Li, "Empirical evaluation of rectified activations in convolutional network",
    2015, section 2.4.
    """

    def __init__(
        self,
        lower: float = 1.0 / 8,
        upper: float = 1.0 / 3,
        inplace: bool = False,
        *,
        device: str | Device | None = None,
        rng: RandomSource = None,
    ) -> None:
        self.lower = as_number("RReLU", "lower", lower)
        self.upper = as_number("RReLU", "upper", upper)
        if not (math.isfinite(self.lower) and math.isfinite(self.upper) and lower <= upper):
            raise ValueError(
                f"RReLU expects finite lower <= upper; got lower={lower}, upper={upper}"
            )
        self.inplace = refuse_inplace("RReLU", inplace)
        super().__init__(device, rng)

    def forward(self, x: Array) -> tuple[Array, Any]:
        """Draw slopes in training, take their mean in evaluation."""
        self.check_random_input(x)
        if not self.training:
            return leaky_relu_forward(x, (self.lower + self.upper) / 2)
        slope = (self.draw_bits(x.shape) >> 8).astype(x.dtype)
        slope *= (self.upper - self.lower) * 2.0**-24
        slope += self.lower
        return rrelu_forward(x, slope)

    def backward(self, grad_output: Array, saved: Any, *, input_grad: bool = True) -> Array | None:
        """Multiply by the slopes that forward used."""
        if not input_grad:
            return None
        backward_op = rrelu_backward if len(saved) == 1 else leaky_relu_backward
        return backward_op(grad_output, *saved)

    def extra_repr(self) -> str:
        """Return the constructor arguments shown by ``repr``."""
        return f"lower={self.lower}, upper={self.upper}"
