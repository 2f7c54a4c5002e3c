"""What layers of this family share: a weight, a bias, and what becomes of their gradients."""

from typing import Any

import numpy as np

from xbackprop.backend.array_module import Array
from xbackprop.backend.device import Device
from xbackprop.initializers import RandomSource, float_dtype, initial
from xbackprop.module import Module, Parameter
from xbackprop.nn.activations import check_float


class Normalization(Module):
    """A normalization with a weight and a bias, or without; a subclass writes ``forward``.

    Parameters
    ----------
    shape : tuple of int
        Of weight and bias.
    has_weight, has_bias : bool
        Which of them there are; a bias comes with a weight only.
    device : str or Device, optional
        Where they live; None is the default device.
    dtype : dtype, optional
        float32 (None) or float64.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        has_weight: bool,
        has_bias: bool,
        device: str | Device | None,
        dtype: Any,
    ) -> None:
        self.weight: Parameter | None = None
        self.bias: Parameter | None = None
        chosen = float_dtype(dtype)
        if has_weight:
            self.weight = Parameter(initial(shape, chosen, lambda: np.ones(shape), device))
        if has_weight and has_bias:
            self.bias = Parameter(initial(shape, chosen, lambda: np.zeros(shape), device))

    def reset_parameters(self, rng: RandomSource = None) -> None:
        """Set the weight to 1 and the bias to 0."""
        first = {"weight": np.ones, "bias": np.zeros}
        state = {name: first[name](p.shape) for name, p in self.own_parameters()}
        self.load_state_dict(state, strict=False)

    def check_x(self, x: Any) -> Array:
        """Check that an input is an array of floats, beside the weight where there is one."""
        if self.weight is not None:
            return self.check_input("x", x, self.weight.value)
        check_float(self, x)
        return x

    def scale(self, shape: tuple[int, ...]) -> tuple[Array | None, Array | None]:
        """Return weight and bias in a shape that broadcasts to the input."""
        weight = None if self.weight is None else self.weight.value.reshape(shape)
        return weight, None if self.bias is None else self.bias.value.reshape(shape)

    def wanted(self) -> tuple[bool, bool]:
        """Tell whether the gradients of weight and bias are wanted."""
        weight, bias = self.weight, self.bias
        return (
            weight is not None and weight.requires_grad,
            bias is not None and bias.requires_grad,
        )

    def accumulate(self, grad_weight: Array | None, grad_bias: Array | None) -> None:
        """Add to the gradients of weight and bias."""
        if self.weight is not None and grad_weight is not None:
            self.weight.accumulate(grad_weight.reshape(self.weight.shape))
        if self.bias is not None and grad_bias is not None:
            self.bias.accumulate(grad_bias.reshape(self.bias.shape))
