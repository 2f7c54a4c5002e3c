"""Where a token stands, added to its features: waves, or a trained vector."""

from typing import Any

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.backend.device import Device
from xbackprop.dispatch import op
from xbackprop.initializers import RandomSource, normal
from xbackprop.module import Module, Parameter, describe_layer
from xbackprop.nn.activations import as_number, check_float
from xbackprop.nn.rotary import angles
from xbackprop.nn.sizes import as_count


@op(
    formula="output = x + stack([sin(arange(x.shape[-2])[:, None] * base ** (-arange(0, "
    "x.shape[-1], 2) / x.shape[-1])), cos(arange(x.shape[-2])[:, None] * base ** (-arange(0, "
    "x.shape[-1], 2) / x.shape[-1]))], -1).reshape(x.shape[-2:])"
)
def sinusoidal_forward(x: Array, base: float = 10000.0, time_axis: int = -2) -> tuple[Array, Any]:
    """Add ``sin(t base^(-2 i / features))`` to feature ``2 i``, and the cosine to ``2 i + 1``.

    Parameters
    ----------
    x : array of float, shape (batch, time, features) or (time, batch, features) or (time, features)
        Features of tokens.
    base : float
        Of the wavelengths.
    time_axis : int
        -2, or 0.

    Returns
    -------
    output : array
        Of the shape of ``x``.
    saved : ()
        What is added does not depend on ``x``: ``dLoss/dx = g``.
    """
    xp, features = get_array_module(x), x.shape[-1]
    turn = angles(xp, xp.arange(x.shape[time_axis]), features, base)
    table = xp.empty((x.shape[time_axis], features), dtype=x.dtype)
    table[:, 0::2] = xp.sin(turn)
    table[:, 1::2] = xp.cos(turn)[:, : features // 2]
    return x + _beside(table, x, time_axis), ()


@op(formula="grad_input = grad_output")
def sinusoidal_backward(grad_output: Array) -> Array:
    """Return ``g``."""
    return grad_output


def _beside(table: Array, x: Array, time_axis: int) -> Array:
    """Shape ``(time, features)`` so that it broadcasts with ``x``."""
    return table if time_axis == -2 or x.ndim == 2 else table[:, None]


class _Positions(Module):
    """What encodings that are added share: the axis of time."""

    def _set(self, embed_dim: int, batch_first: bool) -> None:
        self.embed_dim = as_count(type(self).__name__, "embed_dim", embed_dim, 1)
        self.batch_first = bool(batch_first)

    def _time_axis(self, x: Array) -> int:
        if x.ndim not in (2, 3) or x.shape[-1] != self.embed_dim:
            axes = "batch, time" if self.batch_first else "time, batch"
            raise ValueError(
                f"{describe_layer(self)} expects x of shape ({axes}, {self.embed_dim}) or (time, "
                f"{self.embed_dim}); got {x.shape}"
            )
        return -2 if self.batch_first or x.ndim == 2 else 0


class SinusoidalPositionalEncoding(_Positions):
    """Add waves of the position, ``y_t = x_t + (sin(t w_0), cos(t w_0), sin(t w_1), ...)``.

    Parameters
    ----------
    embed_dim : int
        Features of a token.
    base : float, default 10000.0
        ``w_i = base^(-2 i / embed_dim)``.
    batch_first : bool, default False
        Batched arrays are ``(batch, time, embed_dim)``, else ``(time, batch, embed_dim)``.

    Notes
    -----
    Nothing is trained, and ``dLoss/dx = g``, see :func:`sinusoidal_forward`. Of an odd
    ``embed_dim`` the last wave has no cosine.

    References
    ----------
    Vaswani et al., "Attention is all you need", NeurIPS 2017, section 3.5.
    """

    def __init__(self, embed_dim: int, base: float = 10000.0, batch_first: bool = False) -> None:
        self._set(embed_dim, batch_first)
        self.base = as_number("SinusoidalPositionalEncoding", "base", base)
        if not self.base > 0:
            raise ValueError(f"SinusoidalPositionalEncoding expects base above 0; got {base}")

    def forward(self, x: Array) -> tuple[Array, Any]:
        """Add the waves of every position."""
        check_float(self, x)
        return sinusoidal_forward(x, self.base, self._time_axis(x))

    def backward(self, grad_output: Array, saved: Any, *, input_grad: bool = True) -> Array | None:
        """Return the gradient as it is."""
        return sinusoidal_backward(grad_output) if input_grad else None

    def extra_repr(self) -> str:
        """Return the constructor arguments shown by ``repr``."""
        return f"{self.embed_dim}, base={self.base}, batch_first={self.batch_first}"


@op(formula="output = x + weight[: x.shape[-2]]")
def learned_positions_forward(x: Array, weight: Array, time_axis: int = -2) -> tuple[Array, Any]:
    """Compute ``y_t = x_t + W_t``.

    Parameters
    ----------
    x : array of float, shape (batch, time, features) or (time, batch, features) or (time, features)
        Features of tokens.
    weight : array, shape (positions, features)
        At least as many positions as ``time``.
    time_axis : int
        -2, or 0.

    Returns
    -------
    output : array
        Of the shape of ``x``.
    saved : (positions, time_axis)
        Numbers only.

    Notes
    -----
    ``dLoss/dx = g``, and ``dLoss/dW_t`` is the sum of ``g_t`` over the batch, zero where no token
    is.
    """
    table = weight[: x.shape[time_axis]]
    return x + _beside(table, x, time_axis), (weight.shape[0], time_axis)


@op(
    formula="grad_input = grad_output; grad_weight = concatenate([grad_output.reshape(-1, "
    "*grad_output.shape[-2:]).sum(0), zeros((positions - grad_output.shape[-2], "
    "grad_output.shape[-1]))])"
)
def learned_positions_backward(
    grad_output: Array, positions: int, time_axis: int = -2
) -> tuple[Array, Array]:
    """Return ``g``, and its sum over the batch for each position."""
    grad_weight = get_array_module(grad_output).zeros(
        (positions, grad_output.shape[-1]), dtype=grad_output.dtype
    )
    is_single = grad_output.ndim == 2
    batch_axis = 0 if time_axis == -2 else 1
    total = grad_output if is_single else grad_output.sum(axis=batch_axis)
    grad_weight[: total.shape[0]] = total
    return grad_output, grad_weight


class LearnedPositionalEmbedding(_Positions):
    """Add a trained vector for each position, ``y_t = x_t + W_t``.

    Parameters
    ----------
    num_positions : int
        Most tokens at a time.
    embed_dim : int
        Features of a token.
    batch_first : bool, default False
        Batched arrays are ``(batch, time, embed_dim)``, else ``(time, batch, embed_dim)``.
    device : str or Device, optional
        Where the table lives; None is the default device.
    dtype : dtype, optional
        float32 (None) or float64.
    rng : Generator, int or None
        Draws the initial values, ``N(0, 0.02^2)``.

    Attributes
    ----------
    weight : Parameter, shape (num_positions, embed_dim)

    Notes
    -----
    The derivative is derived in :func:`learned_positions_forward`.

    References
    ----------
    Gehring et al., "Convolutional sequence to sequence learning", ICML 2017, section 3.1; Radford
    et al., "Improving language understanding by generative pre-training", 2018, for the initial
    values.
    """

    def __init__(
        self,
        num_positions: int,
        embed_dim: int,
        batch_first: bool = False,
        *,
        device: str | Device | None = None,
        dtype: Any = None,
        rng: RandomSource = None,
    ) -> None:
        self._set(embed_dim, batch_first)
        self.num_positions = as_count(
            "LearnedPositionalEmbedding", "num_positions", num_positions, 1
        )
        shape = (self.num_positions, self.embed_dim)
        self.weight = Parameter(normal(shape, 0.02, rng=rng, dtype=dtype, device=device))

    def reset_parameters(self, rng: RandomSource = None) -> None:
        """Draw the initial values anew."""
        weight = self.weight
        drawn = normal(weight.shape, 0.02, rng=rng, dtype=weight.dtype, device=weight.device)
        self.load_state_dict({"weight": drawn})

    def forward(self, x: Array) -> tuple[Array, Any]:
        """Add the vector of every position."""
        x = self.check_input("x", x, self.weight.value)
        time_axis = self._time_axis(x)
        if x.shape[time_axis] > self.num_positions:
            raise ValueError(
                f"{describe_layer(self)} has {self.num_positions} positions; got "
                f"{x.shape[time_axis]} tokens, in x of shape {x.shape}"
            )
        return learned_positions_forward(x, self.weight.value, time_axis)

    def backward(self, grad_output: Array, saved: Any, *, input_grad: bool = True) -> Array | None:
        """Add each position's gradient to the table's; return the gradient as it is."""
        grad_input, grad_weight = learned_positions_backward(grad_output, *saved)
        if self.weight.requires_grad:
            self.weight.accumulate(grad_weight)
        return grad_input if input_grad else None

    def extra_repr(self) -> str:
        """Return the constructor arguments shown by ``repr``."""
        return f"{self.num_positions}, {self.embed_dim}, batch_first={self.batch_first}"
