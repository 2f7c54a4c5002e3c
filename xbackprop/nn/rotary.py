"""Rotary positions: pairs of features are turned by an angle that grows with the position."""

from typing import Any

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.dispatch import op
from xbackprop.module import Module, describe_layer
from xbackprop.nn.activations import as_number
from xbackprop.nn.activations.elementwise import check_float
from xbackprop.nn.sizes import as_count


@op(
    formula="output = (x.reshape(*x.shape[:-1], 2, -1) * cos + stack([-x.reshape(*x.shape[:-1], 2, "
    "-1)[..., 1, :], x.reshape(*x.shape[:-1], 2, -1)[..., 0, :]], -2) * sin).reshape(x.shape)"
)
def rotary_forward(
    x: Array, cos: Array, sin: Array, interleaved: bool = False
) -> tuple[Array, Any]:
    """Turn every pair ``(a, b)`` of features to ``(a cos - b sin, b cos + a sin)``.

    Parameters
    ----------
    x : array of float, shape (..., time, features)
        Of an even number of features.
    cos, sin : array, shape (time, 1, features / 2)
        Of the angles, in the dtype of ``x``.
    interleaved : bool, default False
        A pair is two neighbours, else one of each half.

    Returns
    -------
    output : array
        Same shape as ``x``.
    saved : (cos, sin, interleaved)

    Notes
    -----
    A turn has the transpose for its inverse, so the gradient is turned back.
    """
    return _turned(x, cos, sin, interleaved), (cos, sin, interleaved)


@op(
    formula="grad_input = (grad_output.reshape(*grad_output.shape[:-1], 2, -1) * cos - stack([-"
    "grad_output.reshape(*grad_output.shape[:-1], 2, -1)[..., 1, :], grad_output.reshape("
    "*grad_output.shape[:-1], 2, -1)[..., 0, :]], -2) * sin).reshape(grad_output.shape)"
)
def rotary_backward(grad_output: Array, cos: Array, sin: Array, interleaved: bool = False) -> Array:
    """Turn the gradient back: ``(g cos + h sin, h cos - g sin)``."""
    return _turned(grad_output, cos, -sin, interleaved)


def _turned(x: Array, cos: Array, sin: Array, interleaved: bool) -> Array:
    xp = get_array_module(x)
    half = x.shape[-1] // 2
    first, second = slice(0, half), slice(half, None)
    if interleaved:
        first, second = slice(0, None, 2), slice(1, None, 2)
    a, b = x[..., first], x[..., second]
    cos, sin = cos[:, 0], sin[:, 0]  # (time, features / 2)
    output = xp.empty_like(x)
    output[..., first] = a * cos - b * sin
    output[..., second] = b * cos + a * sin
    return output


def angles(xp: Any, positions: Array, features: int, base: float) -> Array:
    """Return ``positions * base ** (-2 i / features)`` in float64, for every pair ``i``.

    Parameters
    ----------
    xp : module
        Of the device.
    positions : array, shape (time,)
        Of tokens.
    features : int
        Twice the number of pairs.
    base : float
        Of the wavelengths, from ``2 pi`` to nearly ``2 pi base``.

    Returns
    -------
    array, shape (time, features / 2)
    """
    pairs = xp.arange(0, features, 2, dtype="float64")
    frequencies = base ** (pairs * (-1 / features))
    return positions.astype("float64").reshape(-1, 1) * frequencies


class RotaryEmbedding(Module):
    """Turn pairs of features by ``position * base ** (-2 i / dim)``, of queries and of keys.

    Parameters
    ----------
    dim : int
        Features of a head, even.
    base : float, default 10000.0
        Of the wavelengths.
    interleaved : bool, default False
        Pairs are neighbours (RoFormer, GPT-J), else one feature of each half (NeoX, LLaMA).

    Notes
    -----
    ``forward`` takes ``(..., time, dim)`` and ``offset``, the position of the first token, or
    ``positions``, an integer array of shape ``(time,)``. The product of a query and a key that were
    turned depends on how far apart they are only. Angles are made on the device, in float64, so
    that late positions keep their digits. ``positions`` have no gradient.

    References
    ----------
    Su et al., "RoFormer: enhanced transformer with rotary position embedding", 2021, section 3.2.

    Examples
    --------
    >>> import xbackprop as xb
    >>> layer = xb.nn.RotaryEmbedding(2)
    >>> layer(xb.asarray([[1.0, 0.0], [1.0, 0.0]], device="cpu")).round(2)
    array([[1.  , 0.  ],
           [0.54, 0.84]], dtype=float32)
    """

    def __init__(self, dim: int, base: float = 10000.0, interleaved: bool = False) -> None:
        self.dim = as_count("RotaryEmbedding", "dim", dim, 2)
        if dim % 2:
            raise ValueError(f"RotaryEmbedding expects an even dim; got {dim}")
        self.base = as_number("RotaryEmbedding", "base", base)
        if not self.base > 0:
            raise ValueError(f"RotaryEmbedding expects base > 0; got {base}")
        self.interleaved = interleaved

    def forward(
        self, x: Array, positions: Array | None = None, *, offset: int = 0
    ) -> tuple[Array, Any]:
        """Turn ``(..., time, dim)``."""
        check_float(self, x)
        if x.ndim < 2 or x.shape[-1] != self.dim:
            raise ValueError(
                f"{describe_layer(self)} expects x of shape (..., time, {self.dim}); got {x.shape}"
            )
        xp, has_positions = get_array_module(x), positions is not None
        if positions is None:
            positions = xp.arange(offset, offset + x.shape[-2])
        else:
            self._check_positions(positions, x, offset)
        turns = xp.expand_dims(angles(xp, positions, self.dim, self.base), 1)
        cos, sin = xp.cos(turns).astype(x.dtype), xp.sin(turns).astype(x.dtype)
        output, saved = rotary_forward(x, cos, sin, self.interleaved)
        return output, (saved, has_positions)

    def backward(self, grad_output: Array, saved: Any, *, input_grad: bool = True) -> Any:
        """Turn the gradient back."""
        turns, has_positions = saved
        if not input_grad:
            return None
        grad = rotary_backward(grad_output, *turns)
        return (grad, None) if has_positions else grad

    def _check_positions(self, positions: Any, x: Array, offset: int) -> None:
        self.check_device("positions", positions, x)
        if positions.dtype.kind not in "iu":
            raise TypeError(
                f"{describe_layer(self)} expects integer positions; got {positions.dtype}"
            )
        if positions.shape != x.shape[-2:-1] or offset:
            raise ValueError(
                f"{describe_layer(self)} expects positions of shape ({x.shape[-2]},) and no "
                f"offset beside them; got {positions.shape} and offset={offset}"
            )

    def extra_repr(self) -> str:
        """Return the constructor arguments shown by ``repr``."""
        return f"{self.dim}, base={self.base}, interleaved={self.interleaved}"
