"""The activation that gates one half of its input by the other."""

from typing import Any

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.dispatch import op
from xbackprop.module import Module, describe_layer
from xbackprop.nn.activations.elementwise import check_float
from xbackprop.nn.axes import check_dim, normalize_dim
from xbackprop.ops.special import sigmoid


@op(formula="output = split(x, 2, dim)[0] / (1 + exp(-split(x, 2, dim)[1]))")
def glu_forward(x: Array, dim: int) -> tuple[Array, Any]:
    """Compute ``y = a sigmoid(b)``, ``a`` and ``b`` the halves of ``x`` along ``dim``; saves ``x``.

    Parameters
    ----------
    x : array of float
        Of even length along ``dim``.
    dim : int
        The axis that is halved.

    Returns
    -------
    output : array
        Half as long as ``x``.
    saved : (x, dim)

    Notes
    -----
    ``dLoss/da = g s`` and ``dLoss/db = g a s (1 - s)`` with ``s = sigmoid(b)``.
    """
    values, gates = get_array_module(x).split(x, 2, axis=dim)
    return values * sigmoid(gates), (x, dim)


@op(
    formula="grad_input = concatenate([grad_output / (1 + exp(-split(x, 2, dim)[1])), "
    "grad_output * split(x, 2, dim)[0] "
    "/ ((1 + exp(-split(x, 2, dim)[1])) * (1 + exp(split(x, 2, dim)[1])))], dim)"
)
def glu_backward(grad_output: Array, x: Array, dim: int) -> Array:
    """Return ``g s`` and ``g a s (1 - s)``, side by side."""
    xp = get_array_module(x)
    values, gates = xp.split(x, 2, axis=dim)
    gate = sigmoid(gates)
    # Not from sigmoid_and_slope: where gate is 1, -inf times 0 is NaN, as in PyTorch.
    grad_gates = (1 - gate) * gate
    grad_gates *= grad_output
    grad_gates *= values
    return xp.concatenate([grad_output * gate, grad_gates], axis=dim)


class GLU(Module):
    """Gated linear unit, ``y = a sigmoid(b)`` of the two halves ``a`` and ``b`` of the input.

    Parameters
    ----------
    dim : int, default -1
        The axis that is halved; its length is even.

    Notes
    -----
    The derivative is derived in :func:`glu_forward`.

    References
    ----------
    Dauphin, Fan, Auli, Grangier, "Language modeling with gated convolutional networks", ICML 2017.
    """

    def __init__(self, dim: int = -1) -> None:
        self.dim = check_dim("GLU", dim)

    def forward(self, x: Array) -> tuple[Array, Any]:
        """Map length ``2 n`` along ``dim`` to ``n``."""
        check_float(self, x)
        dim = normalize_dim(self, self.dim, x.shape)
        if x.ndim == 0 or x.shape[dim] % 2:
            raise ValueError(
                f"{describe_layer(self)} halves axis {self.dim}, whose length must be even; got x "
                f"of shape {x.shape}. Let the layer before it give twice as many outputs."
            )
        return glu_forward(x, dim)

    def backward(self, grad_output: Array, saved: Any, *, input_grad: bool = True) -> Array | None:
        """Return the gradients of both halves."""
        return glu_backward(grad_output, *saved) if input_grad else None

    def extra_repr(self) -> str:
        """Return the constructor arguments shown by ``repr``."""
        return f"dim={self.dim}"
