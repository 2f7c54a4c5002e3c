"""Layers that only change shapes."""

import math
from typing import Any

from xbackprop.backend.array_module import Array
from xbackprop.module import Module, describe_layer
from xbackprop.nn.axes import check_dim, normalize_dim


class Flatten(Module):
    """Join axes ``start_dim`` to ``end_dim`` into one, by default ``y = x.reshape(len(x), -1)``.

    Parameters
    ----------
    start_dim : int, default 1
        First axis to join; the default keeps the batch axis.
    end_dim : int, default -1
        Last axis to join.
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        self.start_dim = start_dim
        self.end_dim = end_dim

    @property
    def samples_apart(self) -> bool:
        """Whether the batch axis stays, whatever the other axes are."""
        return self.start_dim >= 1

    def forward(self, x: Array) -> tuple[Array, Any]:
        """Reshape; the data stay where they are."""
        if not hasattr(x, "dtype"):
            self.check_device("x", x, x)
        ndim = x.ndim
        start = self.start_dim + ndim if self.start_dim < 0 else self.start_dim
        end = self.end_dim + ndim if self.end_dim < 0 else self.end_dim
        if ndim == 0 and start in (0, 1) and end in (-1, 0):
            return x.reshape(1), x.shape
        if not (0 <= start < ndim and 0 <= end < ndim and start <= end):
            raise ValueError(
                f"{describe_layer(self)} joins axes {self.start_dim} to {self.end_dim}; "
                f"got x of shape {x.shape}. Give x a batch axis or choose other axes."
            )
        joined = 1
        for length in x.shape[start : end + 1]:
            joined *= length
        return x.reshape(*x.shape[:start], joined, *x.shape[end + 1 :]), x.shape

    def backward(self, grad_output: Array, saved: Any, *, input_grad: bool = True) -> Array:
        """Reshape back."""
        return grad_output.reshape(saved)

    def extra_repr(self) -> str:
        """Return the constructor arguments shown by ``repr``."""
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Unflatten(Module):
    """Split an axis into several, ``y = x.reshape(..., *unflattened_size, ...)``.

    Parameters
    ----------
    dim : int
        The axis to split.
    unflattened_size : tuple of int
        The axes it becomes; one may be -1, the length that is left.

    Notes
    -----
    PyTorch's names of axes (``dim`` a str) are refused, as by PyTorch for arrays without names.

    Examples
    --------
    >>> import xbackprop as xb
    >>> xb.nn.Unflatten(1, (2, -1))(xb.asarray([[1.0, 2.0, 3.0, 4.0]])).shape
    (1, 2, 2)
    """

    def __init__(self, dim: int, unflattened_size: tuple[int, ...]) -> None:
        self.dim = check_dim("Unflatten", dim)
        self.unflattened_size = unflattened_size
        if not isinstance(unflattened_size, (tuple, list)) or not all(
            isinstance(length, int) and not isinstance(length, bool) for length in unflattened_size
        ):
            raise TypeError(
                f"Unflatten expects unflattened_size to be a tuple of ints; got {unflattened_size}"
            )
        if unflattened_size.count(-1) > 1 or min(unflattened_size, default=-2) < -1:
            raise ValueError(
                "Unflatten expects lengths in unflattened_size, one of which may be -1; "
                f"got {unflattened_size}"
            )

    def forward(self, x: Array) -> tuple[Array, Any]:
        """Reshape; the data stay where they are."""
        if not hasattr(x, "dtype"):
            self.check_device("x", x, x)
        dim = normalize_dim(self, self.dim, x.shape)
        known = math.prod(length for length in self.unflattened_size if length != -1)
        length = x.shape[dim] if x.shape else -1
        left = length // known if known else -1
        sizes = tuple(left if size == -1 else size for size in self.unflattened_size)
        if min(sizes) < 0 or math.prod(sizes) != length:
            raise ValueError(
                f"{describe_layer(self)} splits axis {self.dim} into {self.unflattened_size}; "
                f"got x of shape {x.shape}. Their product must be the axis' length."
            )
        return x.reshape(*x.shape[:dim], *sizes, *x.shape[dim + 1 :]), x.shape

    def backward(self, grad_output: Array, saved: Any, *, input_grad: bool = True) -> Array:
        """Reshape back."""
        return grad_output.reshape(saved)

    def extra_repr(self) -> str:
        """Return the constructor arguments shown by ``repr``."""
        return f"dim={self.dim}, unflattened_size={self.unflattened_size}"
