"""The small network of a transformer whose hidden units have gates."""

from typing import Any

from xbackprop.backend.array_module import Array
from xbackprop.backend.device import Device
from xbackprop.dispatch import op
from xbackprop.initializers import RandomSource, as_generator
from xbackprop.module import Module
from xbackprop.nn.linear import Linear
from xbackprop.nn.sizes import as_count
from xbackprop.ops.special import sigmoid

_MULTIPLE = 256  # of the hidden units, as LLaMA rounds them


@op(formula="output = gate / (1 + exp(-gate)) * x")
def swish_gate_forward(gate: Array, x: Array) -> tuple[Array, Any]:
    """Compute ``y = silu(a) b``, ``silu(a) = a sigmoid(a)``; saves both.

    Parameters
    ----------
    gate : array of float
        ``a``.
    x : array
        ``b``, of the same shape and dtype.

    Returns
    -------
    output : array
    saved : (gate, x)

    Notes
    -----
    ``dLoss/db = g silu(a)`` and ``dLoss/da = g b (s + a s (1 - s))`` with ``s = sigmoid(a)``.
    """
    return gate * sigmoid(gate) * x, (gate, x)


@op(
    formula="grad_gate = grad_output * x * (1 / (1 + exp(-gate)) "
    "+ gate * exp(-gate) / (1 + exp(-gate)) ** 2); "
    "grad_x = grad_output * gate / (1 + exp(-gate))"
)
def swish_gate_backward(grad_output: Array, gate: Array, x: Array) -> tuple[Array, Array]:
    """Return ``g b (s + a s (1 - s))`` and ``g a s``."""
    s = sigmoid(gate)
    opened = gate * s
    slope = s + opened * (1 - s)
    return grad_output * x * slope, grad_output * opened


class SwiGLU(Module):
    """Two maps, one of which opens or shuts the other: ``y = (silu(x W_1^T) * x W_3^T) W_2^T``.

    Parameters
    ----------
    embed_dim : int
        Features of input and output.
    hidden_dim : int, optional
        Hidden units. None is two thirds of ``4 embed_dim``, rounded up to a multiple of 256: as
        many weights as two maps with ``4 embed_dim`` units have.
    bias : bool, default False
        Of all three maps.
    device, dtype, rng
        Where the parameters live, their float dtype, and what they are drawn from.

    Notes
    -----
    The names of the maps are LLaMA's: ``w1`` the gate, ``w3`` what passes it, ``w2`` the output.
    Backward goes through ``w2``, then through both factors, whose gradients are derived in
    :func:`swish_gate_forward`; ``dLoss/dx`` is the sum of what comes back through ``w1``, ``w3``.

    References
    ----------
    Shazeer, "GLU variants improve transformer", arXiv:2002.05202, equation 6; Touvron et al.,
    "LLaMA", arXiv:2302.13971, section 2.2.
    """

    def __init__(
        self,
        embed_dim: int,
        hidden_dim: int | None = None,
        bias: bool = False,
        *,
        device: str | Device | None = None,
        dtype: Any = None,
        rng: RandomSource = None,
    ) -> None:
        self.embed_dim = as_count("SwiGLU", "embed_dim", embed_dim, 1)
        if hidden_dim is None:
            hidden_dim = -(-(8 * self.embed_dim // 3) // _MULTIPLE) * _MULTIPLE
        self.hidden_dim = as_count("SwiGLU", "hidden_dim", hidden_dim, 1)
        place: dict[str, Any] = {"device": device, "dtype": dtype, "rng": as_generator(rng)}
        self.w1 = Linear(self.embed_dim, self.hidden_dim, bias, **place)
        self.w2 = Linear(self.hidden_dim, self.embed_dim, bias, **place)
        self.w3 = Linear(self.embed_dim, self.hidden_dim, bias, **place)

    def reset_parameters(self, rng: RandomSource = None) -> None:
        """Draw the initial values anew."""
        generator = as_generator(rng)
        for layer in (self.w1, self.w2, self.w3):
            layer.reset_parameters(generator)

    def forward(self, x: Array) -> tuple[Array, Any]:
        """Map ``(..., embed_dim)`` to the same shape."""
        gate, gate_saved = self.w1.forward(x)
        value, value_saved = self.w3.forward(x)
        hidden, product_saved = swish_gate_forward(gate, value)
        output, output_saved = self.w2.forward(hidden)
        return output, (gate_saved, value_saved, product_saved, output_saved)

    def backward(self, grad_output: Array, saved: Any, *, input_grad: bool = True) -> Array | None:
        """Add what comes back through the gate and through what passes it."""
        gate_saved, value_saved, product_saved, output_saved = saved
        grad_hidden = self.w2.backward(grad_output, output_saved)
        grad_gate, grad_value = swish_gate_backward(grad_hidden, *product_saved)
        first = self.w1.backward(grad_gate, gate_saved, input_grad=input_grad)
        second = self.w3.backward(grad_value, value_saved, input_grad=input_grad)
        return None if first is None or second is None else first + second

    def extra_repr(self) -> str:
        """Return the constructor arguments shown by ``repr``."""
        return f"{self.embed_dim}, {self.hidden_dim}"
