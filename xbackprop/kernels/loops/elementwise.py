"""Activations, element by element, on flat arrays."""

import math

import numpy as np

from xbackprop.kernels.loops.compiling import loop
from xbackprop.kernels.loops.maths import sigmoid

F = np.float32
_TWICE_SCALE = F(2 * math.sqrt(2 / math.pi))
_CUBIC = F(0.044715)


@loop()
def relu_backward(grad, output, result):
    """Pass the gradient on where the output is positive."""
    for i in range(grad.size):
        result[i] = grad[i] if output[i] > 0 else 0


@loop("contract")
def gelu_tanh(x, result):
    """``x sigmoid(2 u)``, ``u`` the cubic of the formula."""
    for i in range(x.size):
        v = x[i]
        square = v * v
        result[i] = v * sigmoid(_TWICE_SCALE * (v + _CUBIC * v * square))


@loop("contract")
def gelu_tanh_backward(grad, x, result):
    """``g (s + x s (1 - s) 2 du/dx)``."""
    for i in range(x.size):
        v = x[i]
        square = v * v
        s = sigmoid(_TWICE_SCALE * (v + _CUBIC * v * square))
        inner = _TWICE_SCALE * (F(1.0) + F(3.0) * _CUBIC * square)
        result[i] = grad[i] * (s + v * s * (F(1.0) - s) * inner)


@loop("contract")
def gelu_tanh_twice(grad, x, output):
    """The output of :func:`gelu_tanh`; ``grad`` becomes what its backward returns."""
    for i in range(x.size):
        v = x[i]
        square = v * v
        s = sigmoid(_TWICE_SCALE * (v + _CUBIC * v * square))
        inner = _TWICE_SCALE * (F(1.0) + F(3.0) * _CUBIC * square)
        output[i] = v * s
        grad[i] = grad[i] * (s + v * s * (F(1.0) - s) * inner)
