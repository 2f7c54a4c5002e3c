"""Projections of queries, keys and values: one product for what is one array."""

from typing import Any

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.nn.linear import linear_backward, linear_forward


def project(
    inputs: list[Array], weights: list[Array], bias: Array | None
) -> tuple[list[Array], list[Any]]:
    """Map query, key and value to as many features each.

    Parameters
    ----------
    inputs : list of array
        Three; neighbours that are the same array share a product where the weight is one.
    weights : list of array
        One of shape ``(3 * features, features)``, or three of ``(features, ...)``.
    bias : array of shape (3 * features,), or None
        Added to the three.

    Returns
    -------
    outputs : list of array
        Three of shape ``(..., features)``, views where a product is shared.
    saved : list
        What each product saved.
    """
    is_packed = len(weights) == 1
    features = weights[0].shape[0] // 3 if is_packed else weights[0].shape[0]
    outputs, saved = [], []
    for start, stop in _runs(inputs, is_packed):
        rows = slice(start * features, stop * features)
        weight = weights[0][rows] if is_packed else weights[start]
        output, product_saved = linear_forward(
            inputs[start], weight, None if bias is None else bias[rows]
        )
        outputs += _parts(output, stop - start)
        saved.append(product_saved)
    return outputs, saved


def project_backward(
    grads: list[Array],
    saved: list[Any],
    input_grad: bool,
    weight_grads: list[bool],
    bias_grad: bool,
) -> tuple[list[Array | None], list[Array | None], Array | None]:
    """Return the gradients of the three inputs, of the weight or weights, and of the bias."""
    xp = get_array_module(*grads)
    grad_inputs: list[Array | None] = []
    grad_weights, grad_biases = [], []
    for x, weight in saved:
        start = len(grad_inputs)
        count = weight.shape[0] // grads[0].shape[-1]
        run = grads[start : start + count]
        joined = run[0] if count == 1 else xp.concatenate(run, axis=-1)
        wanted = weight_grads[start if len(weight_grads) > 1 else 0]
        _, grad_weight, grad_bias = linear_backward(joined, x, weight, False, wanted, bias_grad)
        grad_weights.append(grad_weight)
        grad_biases.append(grad_bias)
        for grad, rows in zip(run, xp.split(weight, count), strict=True):
            grad_inputs.append(linear_backward(grad, x, rows, input_grad, False, False)[0])
    if len(weight_grads) == 1:
        grad_weights = [_joined(grad_weights)]
    return grad_inputs, grad_weights, _joined(grad_biases)


def _runs(inputs: list[Array], is_packed: bool) -> list[tuple[int, int]]:
    """Return where inputs begin and end that are one and the same array."""
    runs = [(0, 1)]
    for position in range(1, len(inputs)):
        if is_packed and inputs[position] is inputs[position - 1]:
            runs[-1] = (runs[-1][0], position + 1)
        else:
            runs.append((position, position + 1))
    return runs


def _parts(x: Array, count: int) -> list[Array]:
    """Cut the last axis into equal parts."""
    features = x.shape[-1] // count
    return [x[..., n * features : (n + 1) * features] for n in range(count)]


def _joined(grads: list[Array | None]) -> Array | None:
    """Put gradients of rows under each other; None where they are not wanted."""
    wanted = [grad for grad in grads if grad is not None]
    if len(wanted) < 2:
        return wanted[0] if wanted else None
    return get_array_module(*wanted).concatenate(wanted)
