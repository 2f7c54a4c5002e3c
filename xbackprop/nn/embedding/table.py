"""What the layers of this family share: a table, and the indices that name its rows."""

import inspect
from typing import Any

import numpy as np

from xbackprop.backend.array_module import Array, get_array_module, is_array
from xbackprop.backend.device import CPU, Device
from xbackprop.backend.transfer import asarray
from xbackprop.initializers import (
    RandomSource,
    as_generator,
    float_dtype,
    initial,
    makes_placeholders,
)
from xbackprop.module import Module, Parameter, describe_layer, update_parameter
from xbackprop.nn.activations import as_number
from xbackprop.nn.embedding.rows import renormalize


class Table(Module):
    """A layer with a table of vectors; a subclass says what becomes of the rows it reads.

    Parameters
    ----------
    num_embeddings : int
        Number of rows.
    embedding_dim : int
        Length of each row.
    padding_idx : int or None
        Index whose row is zeros at first and receives no gradient; may count from the end.
    max_norm : float or None
        Rows with a greater norm are scaled to it when they are read.
    norm_type : float
        Exponent of that norm.
    scale_grad_by_freq : bool
        Divide each row's gradient by how often it was read.
    sparse : bool
        Only False.
    values : array_like or None
        The first values; None draws them.
    device : str or Device, optional
        Where the table lives.
    dtype : dtype, optional
        float32 (None) or float64.
    rng : Generator, int or None
        Draws the first values, ``N(0, 1)``.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None,
        max_norm: float | None,
        norm_type: float,
        scale_grad_by_freq: bool,
        sparse: bool,
        values: Any,
        device: str | Device | None,
        dtype: Any,
        rng: RandomSource,
    ) -> None:
        name = type(self).__name__
        if sparse:
            raise NotImplementedError(
                f"{name}(sparse=True): gradients are dense arrays here. Leave sparse=False."
            )
        self.num_embeddings = check_length(name, "num_embeddings", num_embeddings)
        self.embedding_dim = check_length(name, "embedding_dim", embedding_dim)
        self.padding_idx = check_padding_idx(name, padding_idx, num_embeddings)
        self.max_norm = None if max_norm is None else as_number(name, "max_norm", max_norm)
        self.norm_type = as_number(name, "norm_type", norm_type)
        self.scale_grad_by_freq = scale_grad_by_freq
        self.sparse = False
        shape = (num_embeddings, embedding_dim)
        if values is None:
            drawn = initial(shape, float_dtype(dtype), lambda: self._draw(rng), device)
            self.weight = Parameter(drawn)
            return
        self.weight = Parameter(given_table(name, values, shape, device, dtype))
        self._forget_values()

    def _draw(self, rng: RandomSource) -> np.ndarray:
        values = as_generator(rng).standard_normal((self.num_embeddings, self.embedding_dim))
        if self.padding_idx is not None:
            values[self.padding_idx] = 0
        return values

    def _forget_values(self) -> None:
        """Leave the values out of :meth:`config`: a state holds them, an architecture does not."""
        args, kwargs = self.__dict__["_constructor_arguments"]
        bound = inspect.signature(type(self).__init__).bind(self, *args, **kwargs)
        if "_weight" in bound.arguments:
            bound.arguments["_weight"] = None
        self.__dict__["_constructor_arguments"] = (bound.args[1:], bound.kwargs)

    def reset_parameters(self, rng: RandomSource = None) -> None:
        """Draw the table anew; the row of ``padding_idx`` is zeros again."""
        self.load_state_dict({"weight": self._draw(rng)})

    def check_indices(self, name: str, indices: Any) -> Array:
        """Check that an input is an array of indices beside the table; return it as int64.

        Looking at the values costs nothing on the host only. On a device an index out of range
        reads NaN, so that the loss is none.
        """
        self.check_device(name, indices, self.weight.value)
        layer = describe_layer(self)
        if indices.dtype.kind not in "iu":
            raise TypeError(f"{layer} expects {name} of an integer dtype; got {indices.dtype}")
        if indices.size and not self.num_embeddings:
            raise IndexError(f"{layer} has no rows; got {name} of shape {indices.shape}")
        if get_array_module(indices) is np and indices.size:
            indices = np.asarray(indices)
            wrong = (indices < 0) | (indices >= self.num_embeddings)
            if wrong.any():
                first = tuple(np.argwhere(wrong)[0].tolist())
                raise IndexError(
                    f"{layer}: index {indices[first]} in {name}[{', '.join(map(str, first))}] is "
                    f"out of range; expected 0 to {self.num_embeddings - 1}. Check the indices, or "
                    "give the layer more rows (num_embeddings)."
                )
        return indices if indices.dtype == np.int64 else indices.astype(np.int64)

    def read_table(self, indices: Array) -> Array:
        """Return the table as this forward reads it: with ``max_norm``, rows cut to that norm.

        As in PyTorch the table itself is changed, in evaluation too, and no gradient is taken of
        the scaling.
        """
        if self.max_norm is None:
            return self.weight.value
        values = renormalize(self.weight.value, indices.reshape(-1), self.max_norm, self.norm_type)
        update_parameter(self.weight, values)
        return values


def check_length(layer: str, name: str, value: Any) -> int:
    """Return an argument that counts rows or columns."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{layer} expects {name} to be an int; got {type(value).__name__}")
    if value < 0:
        raise ValueError(f"{layer} expects {name} >= 0; got {value}")
    return int(value)


def check_padding_idx(layer: str, value: Any, num_embeddings: int) -> int | None:
    """Return the index counted from 0, or None."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{layer} expects padding_idx to be an int; got {type(value).__name__}")
    if not -num_embeddings <= value < num_embeddings:
        raise ValueError(
            f"{layer} expects padding_idx from {-num_embeddings} to {num_embeddings - 1}, within "
            f"num_embeddings; got {value}"
        )
    return int(value) % num_embeddings


def given_table(
    layer: str, values: Any, shape: tuple[int, ...], device: str | Device | None, dtype: Any
) -> Array:
    """Copy a table that its user gives, so that training does not write into the user's array."""
    place = CPU if makes_placeholders() else device
    table = asarray(values, dtype, place, copy=True)
    if table.shape != shape:
        raise ValueError(f"{layer} expects _weight of shape {shape}; got {table.shape}")
    float_dtype(table.dtype)
    return table


def table_shape(layer: str, embeddings: Any) -> tuple[int, int]:
    """Return the number of rows and columns of pretrained embeddings."""
    shape = embeddings.shape if is_array(embeddings) else np.shape(embeddings)
    if len(shape) != 2:
        raise ValueError(
            f"{layer}.from_pretrained expects embeddings of shape (num_embeddings, "
            f"embedding_dim); got {shape}"
        )
    rows, columns = shape
    return rows, columns
