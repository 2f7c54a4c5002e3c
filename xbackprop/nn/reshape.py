"""Layers that only change shapes."""

from typing import Any

from xbackprop.backend.array_module import Array
from xbackprop.module import Module, describe_layer


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
