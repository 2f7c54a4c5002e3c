"""Pairs of layers that run as one on a GPU: a linear map's bias and the activation after it.

The numbers are those of the two layers. Whatever is out of the ordinary (an observer, another
class, an input that a layer would refuse) goes through the layers themselves.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from xbackprop.backend.array_module import Array, is_array
from xbackprop.backend.device import device_of
from xbackprop.backend.half import HALF_NAMES, is_half, widened
from xbackprop.dispatch import Op, is_observed, op
from xbackprop.module import Module, current_frame
from xbackprop.module.precision import precision_of
from xbackprop.nn.activations.gates import GELU, gelu_tanh_backward, gelu_tanh_forward
from xbackprop.nn.activations.rectifiers import ReLU, relu_backward, relu_forward
from xbackprop.nn.linear import Linear, accumulate_gradients
from xbackprop.ops.matmul import flatten_rows, product_rows, sum_rows


@op(formula="output = maximum(x + bias, 0)")
def bias_relu_forward(x: Array, bias: Array) -> tuple[Array, Any]:
    """Compute ``y = max(x + b, 0)``; ``x`` is ``(..., n)``, ``b`` ``(n,)``; saves ``y``."""
    output, _ = relu_forward(_widen(x + bias))
    output = output.astype(x.dtype, copy=False)
    return output, (output,)


@op(
    formula="grad_input = where(output > 0, grad_output, 0); "
    "grad_bias = where(output > 0, grad_output, 0).reshape(-1, output.shape[-1]).sum(0)"
)
def bias_relu_backward(
    grad_output: Array, output: Array, bias_grad: bool = True
) -> tuple[Array, Array | None]:
    """Return ``g`` where ``y > 0``, else 0; and its sum over the rows, None if not wanted."""
    return _with_sum(relu_backward(grad_output, output), bias_grad)


_CUBIC = "sqrt(2 / pi) * (x + bias + 0.044715 * (x + bias) * (x + bias) * (x + bias))"
_GELU_GRADIENT = (
    f"grad_output * (1 + tanh({_CUBIC}) + (x + bias) / cosh({_CUBIC}) ** 2 "
    "* sqrt(2 / pi) * (1 + 3 * 0.044715 * (x + bias) * (x + bias))) / 2"
)


@op(formula=f"output = (x + bias) * (1 + tanh({_CUBIC})) / 2")
def bias_gelu_tanh_forward(x: Array, bias: Array) -> tuple[Array, Any]:
    """Compute ``gelu_tanh(x + b)``; ``x`` is ``(..., n)``, ``b`` ``(n,)``; saves both.

    Their sum is made again in the backward: that writes one array less.
    """
    output, _ = gelu_tanh_forward(_widen(x + bias))
    return output.astype(x.dtype, copy=False), (x, bias)


@op(
    formula=f"grad_input = {_GELU_GRADIENT}; "
    f"grad_bias = ({_GELU_GRADIENT}).reshape(-1, x.shape[-1]).sum(0)"
)
def bias_gelu_tanh_backward(
    grad_output: Array, x: Array, bias: Array, bias_grad: bool = True
) -> tuple[Array, Array | None]:
    """Return the gradient of ``x``, and its sum over the rows, None if not wanted."""
    grad_input = gelu_tanh_backward(_widen(grad_output), _widen(x + bias))
    return _with_sum(grad_input.astype(x.dtype, copy=False), bias_grad)


def _widen(x: Array) -> Array:
    # A model in half precision gives activations float32 and rounds what they return.
    return x.astype(widened(x.dtype), copy=False)


def _with_sum(grad_input: Array, bias_grad: bool) -> tuple[Array, Array | None]:
    return grad_input, sum_rows(flatten_rows(grad_input)) if bias_grad else None


class OpPair(NamedTuple):
    """What takes the place of a bias and an activation."""

    forward: Op
    backward: Op


class FusedSaved(NamedTuple):
    """What a pair of layers saved, in the place of the first; the second has :data:`IN_PAIR`."""

    pair: OpPair
    x: Array
    weight: Array
    content: Any


class PairedSaved(list[Any]):
    """What layers saved that may have run in pairs."""


IN_PAIR: Any = object()  # what the second layer of a pair saved
BIAS_RELU = OpPair(bias_relu_forward, bias_relu_backward)
BIAS_GELU_TANH = OpPair(bias_gelu_tanh_forward, bias_gelu_tanh_backward)


def _find_activation(layer: Module) -> OpPair | None:
    if type(layer) is ReLU:
        return BIAS_RELU
    return BIAS_GELU_TANH if type(layer) is GELU and layer.approximate == "tanh" else None


def may_fuse(x: Any) -> bool:
    """Tell whether layers may run in pairs: on a GPU, and nothing watches their ops."""
    return type(x) is not np.ndarray and is_array(x) and not is_observed()


def find_pair(layers: tuple[Module, ...], x: Any) -> OpPair | None:
    """Return what serves the first two of some layers, if the pair has the numbers of the two.

    Parameters
    ----------
    layers : tuple of Module
        The layers that are still to run.
    x : array
        The input of the first one.

    Returns
    -------
    OpPair or None
    """
    if len(layers) < 2 or type(layers[0]) is not Linear:
        return None
    linear, activation = layers[:2]
    pair = _find_activation(activation)
    if pair is None or linear.bias is None or is_replaced(linear) or is_replaced(activation):
        return None
    precision = precision_of(linear)
    is_served = (
        is_array(x)
        and x.dtype.itemsize <= 4  # the kernels have no float64
        and precision == precision_of(activation)
        and is_half(x.dtype) == (precision in HALF_NAMES)
        and x.ndim > 0
        and x.shape[-1] == linear.in_features
        and all(
            x.dtype == value.dtype and device_of(x) == device_of(value)
            for value in (linear.weight.value, linear.bias.value)
        )
    )
    return pair if is_served else None


def is_replaced(layer: Module) -> bool:
    """Tell whether an instance has methods of its own, as those that are watched."""
    return "forward" in vars(layer) or "backward" in vars(layer)


def forward_in_pairs(layers: tuple[Module, ...], x: Any) -> tuple[Any, PairedSaved]:
    """Pass ``x`` through layers, two at once where they are a pair.

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
    saved : list
        What each saved; of a pair the first for both, beside :data:`IN_PAIR`.
    """
    saved = PairedSaved()
    while len(saved) < len(layers):
        position = len(saved)
        pair = find_pair(layers[position : position + 2], x)
        if pair is None:
            x, layer_saved = layers[position].forward(x)
            saved.append(layer_saved)
        else:
            x, layer_saved = forward_pair(pair, layers[position], x)
            saved += (layer_saved, IN_PAIR)
    return x, saved


def backward_in_pairs(
    layers: tuple[Module, ...], grad_output: Any, saved: PairedSaved, input_grad: bool
) -> Any:
    """Pass a gradient back through layers that may have run in pairs; empties ``saved``."""
    for position in range(len(layers) - 1, -1, -1):
        layer, layer_saved = layers[position], saved.pop()
        is_wanted = input_grad or position > 0
        backward = BACKWARDS.get(layer_saved.__class__)
        if backward is not None:
            grad_output = backward(layer, grad_output, layer_saved, is_wanted)
        elif layer_saved is not IN_PAIR:
            grad_output = layer.backward(grad_output, layer_saved, input_grad=is_wanted)
    return grad_output


def forward_pair(pair: OpPair, linear: Any, x: Array) -> tuple[Array, FusedSaved | None]:
    """Return the activation of a linear map, and what :func:`backward_pair` needs."""
    weight = linear.weight.value
    output, content = pair.forward(product_rows(x, weight.T), linear.bias.value)
    if current_frame().inference:
        return output, None
    return output, FusedSaved(pair, x, weight, content)


def backward_pair(
    linear: Any, grad_output: Array, saved: FusedSaved, input_grad: bool
) -> Array | None:
    """Add the gradients of a linear map before an activation; return its input's if wanted."""
    weight, bias = linear.weight, linear.bias
    grad, grad_bias = saved.pair.backward(grad_output, *saved.content, bias.requires_grad)
    if grad_bias is not None:
        bias.accumulate(grad_bias)
    return accumulate_gradients(weight, None, grad, (saved.x, saved.weight), input_grad)


# How to go back through a pair, by the class of what its Linear saved for both.
BACKWARDS: dict[type, Callable[..., Array | None]] = {FusedSaved: backward_pair}
