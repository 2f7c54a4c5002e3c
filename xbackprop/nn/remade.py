"""GELU by tanh and the Linear after it: GELU's output is not kept, the backward makes it anew.

It is the largest array that a block of a transformer saves, and its tanh is what GELU's derivative
takes anyway. The bits are those of the two layers. Only where a kernel makes both in one pass;
whatever is out of the ordinary goes through the layers themselves.
"""

from typing import Any

import numpy as np

from xbackprop.backend.array_module import Array
from xbackprop.dispatch import ArraySpec, may_replace_ops, op
from xbackprop.module import Module, current_frame
from xbackprop.nn.activations.gates import GELU, gelu_tanh_backward, gelu_tanh_forward
from xbackprop.nn.fusion import BACKWARDS, IN_PAIR, PairedSaved, is_replaced
from xbackprop.nn.linear import Linear, accumulate_gradients, linear_backward, linear_forward

SMALLEST = 4096  # elements of GELU's input, below which there is nothing to gain
SMALLEST_INPUT = 1024  # elements of a chain's input, below which nobody looks for a pair

_CUBIC = "sqrt(2 / pi) * (x + 0.044715 * x * x * x)"
_HIDDEN = f"(x * (1 + tanh({_CUBIC})) / 2)"
_SLOPE = (
    f"(1 + tanh({_CUBIC}) + x / cosh({_CUBIC}) ** 2 "
    "* sqrt(2 / pi) * (1 + 3 * 0.044715 * x * x)) / 2"
)
_ROWS = "grad_output.reshape(-1, weight.shape[0])"


def _flops(x: ArraySpec, weight: ArraySpec, *_: Any) -> int:
    return 2 * int(np.prod(x.shape)) * weight.shape[0]


def _backward_flops(
    grad_output: ArraySpec,
    x: ArraySpec,
    weight: ArraySpec,
    input_grad: bool = True,
    weight_grad: bool = True,
    *_: Any,
) -> int:
    return (input_grad + weight_grad) * _flops(x, weight)


@op(formula=f"output = {_HIDDEN} @ weight.T + bias", flops=_flops)
def gelu_tanh_linear_forward(x: Array, weight: Array, bias: Array | None) -> tuple[Array, Any]:
    """Compute ``y = gelu_tanh(x) W^T + b`` over the last axis.

    Parameters
    ----------
    x : array, shape (..., in_features)
        What GELU is given.
    weight : array, shape (out_features, in_features)
        Same float dtype as ``x``.
    bias : array, shape (out_features,), or None
        Added to every row.

    Returns
    -------
    output : array, shape (..., out_features)
    saved : (x, weight)

    Notes
    -----
    With ``g = dLoss/dy`` and ``h = gelu_tanh(x)``: ``dLoss/dh = g W``, ``dLoss/dx = dLoss/dh
    gelu_tanh'(x)``, ``dLoss/dW = g^T h`` and ``dLoss/db = sum of g over the rows``. Of the two
    factors only ``x`` is held; ``h`` is made of it again.

    References
    ----------
    Chen et al., "Training deep nets with sublinear memory cost", 2016, section 3.
    """
    hidden, _ = gelu_tanh_forward(x)
    output, _ = linear_forward(hidden, weight, bias)
    return output, (x, weight)


@op(
    formula=f"grad_input = (grad_output @ weight) * {_SLOPE}; "
    f"grad_weight = {_ROWS}.T @ {_HIDDEN}.reshape(-1, weight.shape[1]); "
    f"grad_bias = {_ROWS}.sum(0)",
    flops=_backward_flops,
)
def gelu_tanh_linear_backward(
    grad_output: Array,
    x: Array,
    weight: Array,
    input_grad: bool = True,
    weight_grad: bool = True,
    bias_grad: bool = True,
    out: Array | None = None,
) -> tuple[Array | None, Array | None, Array | None]:
    """Return ``(g W) gelu_tanh'(x)``, ``g^T h`` and the sum of ``g``; None for what is not wanted.

    ``out``, on the CPU, is where ``g^T h`` is written to.
    """
    hidden, _ = gelu_tanh_forward(x)
    grad_hidden, grad_weight, grad_bias = linear_backward(
        grad_output, hidden, weight, input_grad, weight_grad, bias_grad, out
    )
    grad_input = None if grad_hidden is None else gelu_tanh_backward(grad_hidden, x)
    return grad_input, grad_weight, grad_bias


class RemadeSaved(tuple[Any, ...]):
    """What a GELU and its Linear saved, in the Linear's place; GELU's has ``IN_PAIR``."""


def may_remake(layers: tuple[Module, ...]) -> bool:
    """Tell whether there is a GELU by tanh before a Linear, and nothing watches their ops."""
    followers = layers[1:]
    return any(map(_is_pair, layers, followers)) and may_replace_ops()


def _is_pair(activation: Module, linear: Module) -> bool:
    return (
        type(activation) is GELU
        and type(linear) is Linear
        and activation.approximate == "tanh"
        and activation._precision is linear._precision is None
        and not is_replaced(activation)
        and not is_replaced(linear)
    )


def forward_remade(layers: tuple[Module, ...], x: Any) -> tuple[Any, PairedSaved]:
    """Pass ``x`` through layers, a GELU and the Linear after it at once where a kernel serves both.

    Parameters
    ----------
    layers : tuple of Module
        In order.
    x : array
        What the first one takes.

    Returns
    -------
    output : array or structure of arrays
        What the last one gives.
    saved : PairedSaved
        What each saved; of a pair the second for both, beside ``IN_PAIR``.
    """
    saved = PairedSaved()
    while len(saved) < len(layers):
        layer, *others = layers[len(saved) :]
        if others and _is_pair(layer, others[0]) and _is_served(x, others[0]):
            x, pair_saved = _forward_pair(x, others[0])
            saved += (IN_PAIR, pair_saved)
        else:
            x, layer_saved = layer.forward(x)
            saved.append(layer_saved)
    return x, saved


def _is_served(x: Any, linear: Any) -> bool:
    """Tell whether a kernel takes the input, and neither layer would refuse it."""
    weight, bias = linear.weight.value, linear.bias
    arrays = (x, weight) if bias is None else (x, weight, bias.value)
    return (
        all(type(array) is np.ndarray for array in arrays)
        and all(array.dtype == x.dtype for array in arrays)
        and x.ndim > 0
        and x.shape[-1] == linear.in_features
        and gelu_tanh_linear_forward.kernel_on_cpu(*arrays) is not None
    )


def _forward_pair(x: Array, linear: Any) -> tuple[Array, RemadeSaved | None]:
    bias = linear.bias
    output, saved = gelu_tanh_linear_forward(
        x, linear.weight.value, None if bias is None else bias.value
    )
    return output, None if current_frame().inference else RemadeSaved(saved)


def _backward_pair(
    linear: Any, grad_output: Array, saved: RemadeSaved, input_grad: bool
) -> Array | None:
    return accumulate_gradients(
        linear.weight, linear.bias, grad_output, saved, input_grad, gelu_tanh_linear_backward
    )


BACKWARDS[RemadeSaved] = _backward_pair
