"""What the rows of a bag come to: their sum, mean or maximum."""

from typing import Any

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.dispatch import op
from xbackprop.nn.embedding.rows import gradient_of_rows, read_rows
from xbackprop.ops.scatter import count_by_index, max_by_index, sum_by_index


@op(formula="output = (arange(num_bags)[:, None] == bags) @ weight[indices]")
def bag_sum_forward(
    weight: Array,
    indices: Array,
    bags: Array,
    num_bags: int,
    per_sample_weights: Array | None = None,
) -> tuple[Array, Any]:
    """Add up the rows of each bag, ``y_b = sum over i in b of p_i W[x_i]``.

    Parameters
    ----------
    weight : array, shape (num_embeddings, embedding_dim)
        The table.
    indices : array of int64, shape (n,)
        Which rows.
    bags : array of int64, shape (n,)
        The bag of each index; one that is no bag leaves the index out.
    num_bags : int
        Number of bags.
    per_sample_weights : array, shape (n,), optional
        Factor ``p`` of each row; None is 1.

    Returns
    -------
    output : array, shape (num_bags, embedding_dim)
    saved : (weight, indices, bags, num_bags, per_sample_weights)

    Notes
    -----
    ``dLoss/dW[v] = sum of p_i g_b(i)`` over all ``i`` with ``x_i = v``, and
    ``dLoss/dp_i = g_b(i) . W[x_i]``.
    """
    rows = read_rows(weight, indices)
    if per_sample_weights is not None:
        rows = rows * per_sample_weights[:, None]
    output = sum_by_index(rows, bags, num_bags)
    return output, (weight, indices, bags, num_bags, per_sample_weights)


@op(
    formula="grad_weight = (arange(weight.shape[0])[:, None] == where((bags >= 0) "
    "& (bags < num_bags), indices, -1)) @ grad_output[clip(bags, 0, num_bags - 1)]"
)
def bag_sum_backward(
    grad_output: Array,
    weight: Array,
    indices: Array,
    bags: Array,
    num_bags: int,
    per_sample_weights: Array | None = None,
    scale_grad_by_freq: bool = False,
    weight_grad: bool = True,
) -> tuple[Array | None, Array | None]:
    """Return the sums of ``p_i g_b``, and ``g_b . W[x_i]`` where there are weights."""
    xp = get_array_module(weight)
    is_inside = (bags >= 0) & (bags < num_bags)
    grad_rows = grad_output[xp.clip(bags, 0, max(num_bags - 1, 0))]  # (n, embedding_dim)
    grad_weight = grad_factors = None
    if per_sample_weights is not None:
        products = (grad_rows * read_rows(weight, indices)).sum(axis=1)
        grad_factors = xp.where(is_inside, products, 0)
        grad_rows = grad_rows * per_sample_weights[:, None]
    if weight_grad:
        read = xp.where(is_inside, indices, -1)
        grad_weight = gradient_of_rows(grad_rows, read, weight.shape[0], scale_grad_by_freq)
    return grad_weight, grad_factors


@op(
    formula="output = (arange(num_bags)[:, None] == bags) @ weight[indices] "
    "/ maximum((arange(num_bags)[:, None] == bags).sum(1), 1)[:, None]"
)
def bag_mean_forward(
    weight: Array, indices: Array, bags: Array, num_bags: int
) -> tuple[Array, Any]:
    """Average the rows of each bag, ``y_b = sum over i in b of W[x_i] / n_b``; no rows give 0.

    Parameters
    ----------
    weight, indices, bags, num_bags
        As :func:`bag_sum_forward`.

    Returns
    -------
    output : array, shape (num_bags, embedding_dim)
    saved : (weight, indices, bags, counts)
        How many rows there are in each bag, at least 1.

    Notes
    -----
    ``dLoss/dW[v] = sum of g_b(i) / n_b(i)`` over all ``i`` with ``x_i = v``.
    """
    counts = get_array_module(weight).maximum(count_by_index(bags, num_bags), 1)
    total = sum_by_index(read_rows(weight, indices), bags, num_bags)
    return total / counts[:, None].astype(total.dtype), (weight, indices, bags, counts)


@op(
    formula="grad_weight = (arange(weight.shape[0])[:, None] == where((bags >= 0) "
    "& (bags < len(counts)), indices, -1)) "
    "@ (grad_output / counts[:, None])[clip(bags, 0, len(counts) - 1)]"
)
def bag_mean_backward(
    grad_output: Array,
    weight: Array,
    indices: Array,
    bags: Array,
    counts: Array,
    scale_grad_by_freq: bool = False,
) -> Array | None:
    """Return the sums of ``g_b / n_b``."""
    shared = grad_output / counts[:, None].astype(grad_output.dtype)
    arguments = (weight, indices, bags, counts.shape[0], None, scale_grad_by_freq)
    return bag_sum_backward(shared, *arguments)[0]


@op
def bag_max_forward(weight: Array, indices: Array, bags: Array, num_bags: int) -> tuple[Array, Any]:
    """Take the greatest element of each column in a bag, ``y_b = max over i in b of W[x_i]``.

    Parameters
    ----------
    weight, indices, bags, num_bags
        As :func:`bag_sum_forward`.

    Returns
    -------
    output : array, shape (num_bags, embedding_dim)
        Zeros where a bag has no rows; NaN where one of them is NaN.
    saved : (indices, bags, positions, num_embeddings)
        The place in ``indices`` of each greatest element, the first of several.

    Notes
    -----
    The gradient of an element goes to the one that it was taken from.
    """
    rows = read_rows(weight, indices)
    output, positions = max_by_index(rows, bags, num_bags)
    return output, (indices, bags, positions, weight.shape[0])


@op
def bag_max_backward(
    grad_output: Array, indices: Array, bags: Array, positions: Array, num_embeddings: int
) -> Array:
    """Return ``g_b`` where an element was the greatest of its bag, summed over equal indices."""
    xp = get_array_module(grad_output)
    num_bags = positions.shape[0]
    place = xp.clip(bags, 0, max(num_bags - 1, 0))
    is_greatest = positions[place] == xp.arange(indices.shape[0])[:, None]  # never outside a bag
    grad_rows = xp.where(is_greatest, grad_output[place], 0)
    return gradient_of_rows(grad_rows, indices, num_embeddings, False)
