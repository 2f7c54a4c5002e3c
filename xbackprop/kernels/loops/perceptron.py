"""A whole small network: forward, loss and backward in one loop over its layers."""

import math

import numpy as np

from xbackprop.kernels.loops.columns import RELU, SIGMOID, TANH
from xbackprop.kernels.loops.compiling import SUM, loop


@loop()
def _work_arrays(x, weights):
    """Return room for the inputs of all layers and the output, and for a gradient."""
    width = x.shape[1]
    for k in range(len(weights)):
        width = max(width, weights[k].shape[0])
    return np.empty((len(weights) + 1, len(x), width), x.dtype), np.empty((len(x), width), x.dtype)


@loop(*SUM)
def _forward(x, weights, biases, kinds, values):
    """Fill ``values[k]`` with the input of layer k, in its first columns; last with the output."""
    rows = len(x)
    for n in range(rows):
        for i in range(x.shape[1]):
            values[0, n, i] = x[n, i]
    for k in range(len(weights)):
        weight, bias, kind = weights[k], biases[k], kinds[k]
        for n in range(rows):
            for o in range(weight.shape[0]):
                total = bias[o]
                for i in range(weight.shape[1]):
                    total += values[k, n, i] * weight[o, i]
                if kind == RELU:
                    total = bias.dtype.type(0) if total < 0 else total  # a NaN stays one
                elif kind == TANH:
                    total = math.tanh(total)
                elif kind == SIGMOID:
                    total = 1 / (1 + math.exp(-total))
                values[k + 1, n, o] = total


@loop(*SUM)
def _backward(weights, grad_weights, grad_biases, kinds, values, grad, is_first):
    """Go from the gradient of the output, in the first columns of ``grad``, to all others."""
    before = np.empty_like(grad[0])
    for k in range(len(weights) - 1, -1, -1):
        weight, kind = weights[k], kinds[k]
        grad_weight, grad_bias = grad_weights[k], grad_biases[k]
        outputs, inputs = weight.shape
        if is_first:
            grad_weight[:] = 0
            grad_bias[:] = 0
        for n in range(len(grad)):
            for o in range(outputs):
                y = values[k + 1, n, o]
                if kind == RELU:
                    grad[n, o] = grad[n, o] if y > 0 else 0
                elif kind == TANH:
                    grad[n, o] *= 1 - y * y
                elif kind == SIGMOID:
                    grad[n, o] *= y * (1 - y)
                grad_bias[o] += grad[n, o]
                for i in range(inputs):
                    grad_weight[o, i] += grad[n, o] * values[k, n, i]
            if k > 0:
                before[:inputs] = 0
                for o in range(outputs):
                    for i in range(inputs):
                        before[i] += grad[n, o] * weight[o, i]
                for i in range(inputs):
                    grad[n, i] = before[i]


@loop(*SUM)
def squared(x, target, weights, biases, grad_weights, grad_biases, kinds, factor, is_first, output):
    """Return ``factor * sum((output - target)^2)``; write the output, write or add gradients."""
    depth, outputs = len(weights), target.shape[1]
    values, grad = _work_arrays(x, weights)
    _forward(x, weights, biases, kinds, values)
    total = x.dtype.type(0)
    for n in range(len(x)):
        for o in range(outputs):
            y = values[depth, n, o]
            difference = y - target[n, o]
            output[n, o] = y
            total += difference * difference
            grad[n, o] = difference * (2 * factor)
    _backward(weights, grad_weights, grad_biases, kinds, values, grad, is_first)
    return total * factor


@loop(*SUM)
def cross_entropy(
    x, target, weights, biases, grad_weights, grad_biases, kinds, factor, is_first, output
):
    """Return ``factor`` times the sum of the cross-entropies; -1, and do nothing, for bad labels.

    Otherwise as :func:`squared`.
    """
    depth, classes = len(weights), output.shape[1]
    for n in range(len(x)):
        if target[n] < 0 or target[n] >= classes:
            return x.dtype.type(-1)
    values, grad = _work_arrays(x, weights)
    _forward(x, weights, biases, kinds, values)
    total = x.dtype.type(0)
    for n in range(len(x)):
        logits = values[depth, n, :classes]
        shift = logits[0]
        for o in range(classes):
            output[n, o] = logits[o]
            shift = logits[o] if logits[o] > shift or logits[o] != logits[o] else shift
        exponentials = x.dtype.type(0)
        for o in range(classes):
            grad[n, o] = math.exp(logits[o] - shift)
            exponentials += grad[n, o]
        total += math.log(exponentials) + shift - logits[target[n]]
        for o in range(classes):
            grad[n, o] *= factor / exponentials
        grad[n, target[n]] -= factor
    _backward(weights, grad_weights, grad_biases, kinds, values, grad, is_first)
    return total * factor
