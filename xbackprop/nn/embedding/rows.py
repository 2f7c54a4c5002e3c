"""Reading rows of a table by index, what comes back to it, and rows that are cut to a length."""

import math

import numpy as np

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.backend.half import widened
from xbackprop.ops.distance import p_norm
from xbackprop.ops.scatter import count_by_index, sum_by_index


def read_rows(weight: Array, indices: Array) -> Array:
    """Return ``weight[indices]``: NaN for an index out of range, which CuPy would wrap.

    Parameters
    ----------
    weight : array, shape (num_embeddings, embedding_dim)
        The table.
    indices : array of int64, shape (...)
        Which rows.

    Returns
    -------
    array, shape (..., embedding_dim)
        Rows of a table of halves are float32.
    """
    xp = get_array_module(weight)
    last = weight.shape[0] - 1
    is_inside = (indices >= 0) & (indices <= last)
    rows = weight[xp.clip(indices, 0, max(last, 0))]
    rows = rows.astype(widened(weight.dtype), copy=False)
    return xp.where(xp.expand_dims(is_inside, -1), rows, math.nan)


def gradient_of_rows(
    grad_rows: Array, indices: Array, num_embeddings: int, scale_grad_by_freq: bool
) -> Array:
    """Return the gradient of a table: for each index the sum, or the mean, over its rows.

    Parameters
    ----------
    grad_rows : array, shape (n, embedding_dim)
        The gradient of each row that was read.
    indices : array of int64, shape (n,)
        Which row that was; one that is no index of the table receives nothing.
    num_embeddings : int
        Length of the table.
    scale_grad_by_freq : bool
        Divide by how often an index was read.

    Returns
    -------
    array, shape (num_embeddings, embedding_dim)
    """
    grad_weight = sum_by_index(grad_rows, indices, num_embeddings)
    if scale_grad_by_freq:
        xp = get_array_module(grad_rows)
        counts = xp.maximum(count_by_index(indices, num_embeddings), 1)
        grad_weight = grad_weight / counts[:, None].astype(grad_weight.dtype)
    return grad_weight


def renormalize(weight: Array, indices: Array, max_norm: float, norm_type: float) -> Array:
    """Return the table with every row that ``indices`` names scaled to at most ``max_norm``.

    Parameters
    ----------
    weight : array, shape (num_embeddings, embedding_dim)
        The table.
    indices : array of int64, shape (n,)
        Which rows.
    max_norm : float
        Greatest norm that stays as it is.
    norm_type : float
        Exponent of the norm.

    Returns
    -------
    array, shape (num_embeddings, embedding_dim)
        ``w max_norm / (|w| + 1e-7)`` where ``|w| > max_norm``, other rows bit by bit.
    """
    xp = get_array_module(weight)
    if 0 in weight.shape:
        return weight.copy()
    norm = p_norm(weight, norm_type).astype(np.float64)  # (num_embeddings, 1)
    is_named = count_by_index(indices, weight.shape[0])[:, None] > 0
    factor = xp.where(is_named & (norm > max_norm), max_norm / (norm + 1e-7), 1.0)
    return weight * factor.astype(weight.dtype)
