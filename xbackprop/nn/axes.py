"""The argument `dim` of layers: which axes there are."""

from typing import Any

from xbackprop.module import Module, describe_layer


def check_dim(layer: str, dim: Any) -> int:
    """Refuse an axis that is no int; None is PyTorch's implicit choice."""
    if dim is None:
        raise NotImplementedError(
            f"{layer}(dim=None): PyTorch deprecates its implicit choice of an axis. "
            "Name it; dim=-1 is the last."
        )
    if isinstance(dim, bool) or not isinstance(dim, int):
        raise TypeError(f"{layer} expects dim to be an int; got {type(dim).__name__}")
    return dim


def normalize_dim(layer: Module, dim: int, shape: tuple[int, ...]) -> int:
    """Return an axis counted from 0, and refuse one that ``shape`` has not; a number has one."""
    ndim = max(len(shape), 1)
    if not -ndim <= dim < ndim:
        raise ValueError(
            f"{describe_layer(layer)} works along axis {dim}; got x of shape {shape}. "
            f"Choose dim from {-ndim} to {ndim - 1}."
        )
    return dim % ndim
