"""Heads: features of every token as several shorter ones, and keys that no token has."""

from xbackprop.backend.array_module import Array, get_array_module


def split_heads(x: Array, heads: int, batch_first: bool) -> Array:
    """View ``(batch, time, features)``, or time first, as ``(batch, heads, time, features)``."""
    apart = x.reshape(*x.shape[:2], heads, x.shape[2] // heads)
    return apart.transpose(0, 2, 1, 3) if batch_first else apart.transpose(1, 2, 0, 3)


def join_heads(x: Array, batch_first: bool) -> Array:
    """Undo :func:`split_heads`, in an array of its own."""
    apart = x.transpose(0, 2, 1, 3) if batch_first else x.transpose(2, 0, 1, 3)
    return apart.reshape(*apart.shape[:2], apart.shape[2] * apart.shape[3])


def with_extra_keys(x: Array, trained: Array | None, has_zero: bool) -> Array:
    """Put a trained token and one of zeros behind the tokens of every head.

    Parameters
    ----------
    x : array, shape (batch, heads, time, features)
        Keys or values.
    trained : array of ``heads * features`` elements, or None
        The same for every sample.
    has_zero : bool
        Whether there is one of zeros.

    Returns
    -------
    array
        ``x`` itself where nothing is added.
    """
    xp = get_array_module(x)
    batch, heads, _, features = x.shape
    parts, shape = [x], (batch, heads, 1, features)
    if trained is not None:
        parts.append(xp.broadcast_to(trained.reshape(1, heads, 1, features), shape))
    if has_zero:
        parts.append(xp.zeros(shape, dtype=x.dtype))
    return x if len(parts) == 1 else xp.concatenate(parts, axis=2)
