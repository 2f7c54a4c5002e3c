"""The feed-forward block of LLaMA: a hidden layer with a gate made of its input."""

from typing import Any

from xbackprop.backend.array_module import Array
from xbackprop.backend.device import Device
from xbackprop.initializers import RandomSource, as_generator
from xbackprop.module import Module
from xbackprop.nn.activations import SiLU
from xbackprop.nn.containers.sequence import reset_children
from xbackprop.nn.linear import Linear
from xbackprop.nn.sizes import as_count


class SwiGLU(Module):
    """A gated feed-forward block, ``y = w2(silu(w1(x)) * w3(x))``.

    Parameters
    ----------
    dim : int
        Features of input and output.
    hidden_dim : int, optional
        Features in between. None is LLaMA's: two thirds of ``4 * dim``, rounded down, and then up
        to a multiple of ``multiple_of``; three matrices then have about the size of the two of a
        block of ``4 * dim``.
    bias : bool, default False
        Of the three linear maps.
    multiple_of : int, default 256
        Of the default ``hidden_dim``; one that is given stays as it is.
    device : str or Device, optional
        Where the parameters live; None is the default device.
    dtype : dtype, optional
        float32 (None) or float64.
    rng : Generator, int or None
        Draws the initial values, those of :class:`Linear`.

    Attributes
    ----------
    w1, w3 : Linear
        From ``dim`` to ``hidden_dim``.
    w2 : Linear
        From ``hidden_dim`` to ``dim``.

    Notes
    -----
    With ``a = w1(x)``, ``b = w3(x)`` and ``G`` what ``w2`` passes back: the gradient of ``b`` is
    ``G * silu(a)``, that of ``a`` is ``G * b * silu'(a)``, and ``dLoss/dx`` is the sum of what
    ``w1`` and ``w3`` pass back.

    References
    ----------
    Shazeer, "GLU variants improve transformer", 2020, equation 6.
    Touvron et al., "LLaMA: open and efficient foundation language models", 2023, section 2.2.

    Examples
    --------
    >>> import xbackprop as xb
    >>> layer = xb.nn.SwiGLU(4, 6, rng=0)
    >>> layer(xb.asarray([[1.0, 0.0, 0.0, 2.0]])).shape
    (1, 4)
    """

    def __init__(
        self,
        dim: int,
        hidden_dim: int | None = None,
        bias: bool = False,
        *,
        multiple_of: int = 256,
        device: str | Device | None = None,
        dtype: Any = None,
        rng: RandomSource = None,
    ) -> None:
        dim = as_count("SwiGLU", "dim", dim, 1)
        multiple = as_count("SwiGLU", "multiple_of", multiple_of, 1)
        if hidden_dim is None:
            hidden_dim = -(-(8 * dim // 3) // multiple) * multiple
        hidden_dim = as_count("SwiGLU", "hidden_dim", hidden_dim, 1)
        made: dict[str, Any] = {"device": device, "dtype": dtype, "rng": as_generator(rng)}
        self.w1 = Linear(dim, hidden_dim, bias, **made)
        self.w2 = Linear(hidden_dim, dim, bias, **made)
        self.w3 = Linear(dim, hidden_dim, bias, **made)
        self.act = SiLU()

    def reset_parameters(self, rng: RandomSource = None) -> None:
        """Draw the initial values anew."""
        reset_children((self.w1, self.w2, self.w3), rng)

    def forward(self, x: Array) -> tuple[Array, Any]:
        """Map ``(..., dim)`` to ``(..., dim)``."""
        before, first = self.w1.forward(x)
        gate, act_saved = self.act.forward(before)
        value, third = self.w3.forward(x)
        output, second = self.w2.forward(gate * value)
        return output, (first, act_saved, third, second, gate, value)

    def backward(self, grad_output: Array, saved: Any, *, input_grad: bool = True) -> Array | None:
        """Go back through the product and both its sides."""
        first, act_saved, third, second, gate, value = saved
        grad: Any = self.w2.backward(grad_output, second)
        of_gate = self.act.backward(grad * value, act_saved)
        of_x = self.w1.backward(of_gate, first, input_grad=input_grad)
        through_value = self.w3.backward(grad * gate, third, input_grad=input_grad)
        return of_x + through_value if input_grad else None  # type: ignore[operator]
