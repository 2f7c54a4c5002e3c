"""Activations that cut off: ReLU and its bounded relatives."""

from typing import Any

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.dispatch import op
from xbackprop.nn.activations.elementwise import Elementwise, as_number, refuse_inplace


@op(formula="output = maximum(x, 0)")
def relu_forward(x: Array) -> tuple[Array, Any]:
    """Compute ``y = max(x, 0)``, any shape; saves ``y``."""
    output = get_array_module(x).maximum(x, 0)
    return output, (output,)


@op(formula="grad_input = where(output > 0, grad_output, 0)")
def relu_backward(grad_output: Array, output: Array) -> Array:
    """Return ``g`` where ``y > 0``, else 0 (at the kink as well, as PyTorch does)."""
    return get_array_module(output).where(output > 0, grad_output, 0)


@op(formula="output = minimum(maximum(x, min_val), max_val)")
def hardtanh_forward(x: Array, min_val: float, max_val: float) -> tuple[Array, Any]:
    """Compute ``y = min(max(x, min_val), max_val)``, any shape; saves ``y``, which tells where."""
    output = get_array_module(x).clip(x, min_val, max_val)
    return output, (output, min_val, max_val)


@op(formula="grad_input = where((output > min_val) & (output < max_val), grad_output, 0)")
def hardtanh_backward(grad_output: Array, output: Array, min_val: float, max_val: float) -> Array:
    """Return ``g`` strictly between the bounds, else 0."""
    inside = (output > min_val) & (output < max_val)
    return get_array_module(output).where(inside, grad_output, 0)


@op(formula="output = where(x > threshold, x, value)")
def threshold_forward(x: Array, threshold: float, value: float) -> tuple[Array, Any]:
    """Compute ``y = x`` where ``x > threshold``, else ``value``; any shape; saves ``x``."""
    # Asked this way round, a NaN stays one.
    return get_array_module(x).where(x <= threshold, value, x), (x, threshold)


@op(formula="grad_input = where(x > threshold, grad_output, 0)")
def threshold_backward(grad_output: Array, x: Array, threshold: float) -> Array:
    """Return ``g`` where ``x > threshold``, else 0."""
    return get_array_module(x).where(x > threshold, grad_output, 0)


class ReLU(Elementwise):
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
        self.inplace = refuse_inplace("ReLU", inplace)


class Hardtanh(Elementwise):
    """Linear between two bounds, ``y = min(max(x, min_val), max_val)``.

    Parameters
    ----------
    min_val, max_val : float, default -1 and 1
        The bounds; the second must be the greater one.
    inplace : bool, default False
        True is refused.
    min_value, max_value : None
        PyTorch's former names of the bounds are refused.

    Notes
    -----
    ``dy/dx = 1`` where ``min_val < x < max_val``, else 0; at both kinks 0, as in PyTorch. The
    output tells as much, and the next layer holds it anyway.

    References
    ----------
    Collobert, "Large scale machine learning", 2004, section 2.2.
    """

    forward_op, backward_op = hardtanh_forward, hardtanh_backward
    options = ("min_val", "max_val")

    def __init__(
        self,
        min_val: float = -1.0,
        max_val: float = 1.0,
        inplace: bool = False,
        min_value: None = None,
        max_value: None = None,
    ) -> None:
        for name, value in (("min_value", min_value), ("max_value", max_value)):
            if value is not None:
                raise NotImplementedError(f"Hardtanh({name}=...) is deprecated: use {name[:7]}")
        self.min_val = as_number("Hardtanh", "min_val", min_val)
        self.max_val = as_number("Hardtanh", "max_val", max_val)
        if not self.max_val > self.min_val:
            raise ValueError(
                f"Hardtanh expects max_val > min_val; got min_val={min_val}, max_val={max_val}"
            )
        self.inplace = refuse_inplace("Hardtanh", inplace)


class ReLU6(Elementwise):
    """ReLU that saturates, ``y = min(max(x, 0), 6)``.

    Parameters
    ----------
    inplace : bool, default False
        True is refused.

    Notes
    -----
    ``dy/dx = 1`` where ``0 < x < 6``, else 0, as of :class:`Hardtanh`.

    References
    ----------
    Krizhevsky, "Convolutional deep belief networks on CIFAR-10", 2010.
    """

    forward_op, backward_op = hardtanh_forward, hardtanh_backward
    options = ("min_val", "max_val")

    def __init__(self, inplace: bool = False) -> None:
        self.min_val, self.max_val = 0.0, 6.0
        self.inplace = refuse_inplace("ReLU6", inplace)

    def extra_repr(self) -> str:
        """Return nothing: the bounds are no arguments."""
        return ""


class Threshold(Elementwise):
    """Keep what exceeds a threshold, ``y = x`` where ``x > threshold``, else ``value``.

    Parameters
    ----------
    threshold : float
        Where it jumps.
    value : float
        What takes the place of inputs up to the threshold.
    inplace : bool, default False
        True is refused.

    Notes
    -----
    ``dy/dx = 1`` where ``x > threshold``, else 0.
    """

    forward_op, backward_op = threshold_forward, threshold_backward
    options = ("threshold", "value")

    def __init__(self, threshold: float, value: float, inplace: bool = False) -> None:
        self.threshold = as_number("Threshold", "threshold", threshold)
        self.value = as_number("Threshold", "value", value)
        self.inplace = refuse_inplace("Threshold", inplace)
