"""Activations, element by element, on flat arrays."""

import math

import numpy as np

from xbackprop.kernels.loops.compiling import loop
from xbackprop.kernels.loops.maths import exp_of_negative, normal_distribution, sigmoid

F = np.float32
_TWICE_SCALE = F(2 * math.sqrt(2 / math.pi))
_CUBIC = F(0.044715)
_NORMAL_PEAK = F(1 / math.sqrt(2 * math.pi))


@loop()
def relu(x, result):
    """What is negative becomes 0; a NaN stays one."""
    for i in range(x.size):
        result[i] = 0 if x[i] <= 0 else x[i]


@loop()
def relu_backward(grad, output, result):
    """Pass the gradient on where the output is positive."""
    for i in range(grad.size):
        result[i] = grad[i] if output[i] > 0 else 0


@loop()
def leaky_relu(x, slope, result):
    """What is not positive times the slope."""
    for i in range(x.size):
        result[i] = x[i] if x[i] > 0 else x[i] * slope


@loop()
def leaky_relu_backward(grad, x, slope, result):
    """The gradient times the slope where ``x`` is not positive."""
    for i in range(grad.size):
        result[i] = grad[i] if x[i] > 0 else grad[i] * slope


@loop("contract")
def sigmoid_forward(x, result):
    """``1 / (1 + exp(-x))``."""
    for i in range(x.size):
        result[i] = sigmoid(x[i])


@loop()
def sigmoid_backward(grad, output, result):
    """``g y (1 - y)``."""
    for i in range(grad.size):
        result[i] = grad[i] * (output[i] * (F(1.0) - output[i]))


@loop("contract")
def gelu(x, result):
    """``x Phi(x)``."""
    for i in range(x.size):
        v = x[i]
        result[i] = v * normal_distribution(v, exp_of_negative(F(-0.5) * v * v))


@loop("contract")
def gelu_backward(grad, x, result):
    """``g (Phi + x phi)``; the tails have the exponential of the density in common."""
    for i in range(x.size):
        v = x[i]
        exponential = exp_of_negative(F(-0.5) * v * v)
        slope = normal_distribution(v, exponential) + v * (_NORMAL_PEAK * exponential)
        result[i] = grad[i] * slope


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


@loop("contract")
def silu(x, result):
    """``x sigmoid(x)``."""
    for i in range(x.size):
        result[i] = x[i] * sigmoid(x[i])


@loop("contract")
def silu_backward(grad, x, result):
    """``g (s + x s (1 - s))``."""
    for i in range(x.size):
        s = sigmoid(x[i])
        result[i] = grad[i] * (s + x[i] * s * (F(1.0) - s))
