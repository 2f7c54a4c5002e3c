"""Dropout: training with randomly silenced elements."""

from typing import Any

import numpy as np

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.backend.device import Device
from xbackprop.dispatch import op
from xbackprop.initializers import RandomSource, as_generator, initial
from xbackprop.module import Module, describe_layer
from xbackprop.nn.activations import refuse_inplace
from xbackprop.ops.random_bits import new_state, next_call, random_bits


@op(formula="output = where(kept, x * (1 / (1 - p)), 0)")
def dropout_forward(x: Array, kept: Array, p: float) -> tuple[Array, Any]:
    """Compute ``y = x / (1 - p)`` where ``kept``, else 0.

    Parameters
    ----------
    x : array of float
        Any shape.
    kept : array of bool
        Same shape; True with probability ``1 - p``.
    p : float
        Probability of an element to be silenced, below 1.

    Returns
    -------
    output : array
    saved : (kept, p)
    """
    return get_array_module(x).where(kept, x * (1 / (1 - p)), 0), (kept, p)


@op(formula="grad_input = where(kept, grad_output * (1 / (1 - p)), 0)")
def dropout_backward(grad_output: Array, kept: Array, p: float) -> Array:
    """Return ``g / (1 - p)`` where ``kept``, else 0."""
    return get_array_module(kept).where(kept, grad_output * (1 / (1 - p)), 0)


class Dropout(Module):
    """Silence elements at random while training and scale the others by ``1 / (1 - p)``.

    Parameters
    ----------
    p : float, default 0.5
        Probability of an element to be silenced, 0 to 1.
    inplace : bool, default False
        True is refused.
    device : str or Device, optional
        Where the random counter lives; None is the default device.
    rng : Generator, int or None
        Draws the key of the random stream.

    Notes
    -----
    The mask comes from Philox bits of (key, call number, position), so it is the same on every
    device. The call number is part of ``extra_state``. In evaluation ``y = x``.

    References
    ----------
    Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting",
    JMLR 15 (2014).
    """

    def __init__(
        self,
        p: float = 0.5,
        inplace: bool = False,
        *,
        device: str | Device | None = None,
        rng: RandomSource = None,
    ) -> None:
        if not 0 <= p <= 1:
            raise ValueError(f"Dropout expects p between 0 and 1; got {p}")
        refuse_inplace("Dropout", inplace)
        self.p = float(p)
        state = initial((4,), np.uint32, lambda: new_state(as_generator(rng)), device)
        self.register_buffer("random_state", state, persistent=False)

    def reset_parameters(self, rng: RandomSource = None) -> None:
        """Draw a new key and start counting at zero."""
        self.load_extra_state({"random_state": new_state(as_generator(rng))})

    def forward(self, x: Array) -> tuple[Array, Any]:
        """Apply a fresh mask in training, nothing in evaluation."""
        state = self.read_buffer("random_state")
        self.check_device("x", x, state)
        if x.dtype.kind != "f":
            raise TypeError(f"{describe_layer(self)} expects x of a float dtype; got {x.dtype}")
        if not self.training or self.p == 0.0:
            return x, ()
        self.update_buffer("random_state", next_call(state))
        if self.p == 1.0:  # nothing is kept, and 1 / (1 - p) has no value
            kept = get_array_module(x).zeros(x.shape, dtype=bool)
            return dropout_forward(x, kept, 0.0)
        silenced_below = np.uint32(min(round(self.p * 2.0**32), 2**32 - 1))
        kept = random_bits(state, x.shape) >= silenced_below
        return dropout_forward(x, kept, self.p)

    def backward(self, grad_output: Array, saved: Any, *, input_grad: bool = True) -> Array | None:
        """Let the gradient through where the input came through."""
        if not input_grad:
            return None
        return dropout_backward(grad_output, *saved) if saved else grad_output

    def extra_repr(self) -> str:
        """Return the constructor arguments shown by ``repr``."""
        return f"p={self.p}"
