"""An epoch of a small perceptron, compiled as a whole.

Activations hold a sample in each column, as in :mod:`xbackprop.kernels.loops.columns`; those of all
layers lie one after the other, as weights and biases do. Products are ``np.dot``, for which numba
takes the BLAS that SciPy offers for the purpose.
"""

import math

import numpy as np

from xbackprop.kernels.loops.columns import (
    RELU,
    activation_backward,
    add_bias,
    loss_of_output,
)
from xbackprop.kernels.loops.compiling import loop
from xbackprop.kernels.loops.updates import coupled_adam


@loop()
def perceptron_epoch(
    x, target, order, batch_size, units, kind, output_kind, weights, biases, alpha, adam, step
):
    """Make one update after the other; return the sum of the losses.

    ``weights`` and ``biases`` are values, gradients and both means; ``units`` is an array.
    """
    lr, beta1, beta2, eps = adam
    batch_size = min(batch_size, order.size)
    number = x.dtype.type
    inputs = np.empty((batch_size, x.shape[1]), x.dtype)
    labels = np.empty((batch_size, target.shape[1]), target.dtype)
    values = np.empty(batch_size * units[1:].sum(), x.dtype)
    grads = np.empty_like(values)
    factors = np.empty(batch_size, x.dtype)
    total = 0.0
    for start in range(0, order.size, batch_size):
        samples = min(batch_size, order.size - start)
        for n in range(samples):
            inputs[n] = x[order[start + n]]
            labels[n] = target[order[start + n]]
        factors[:samples] = number(1 / samples)
        scores = _forward(inputs[:samples], units, kind, weights[0], biases[0], values)
        grad_bias = biases[1][biases[1].size - scores.shape[0] :]
        loss = loss_of_output(scores, labels[:samples], output_kind, factors[:samples], grad_bias)
        _backward(inputs[:samples], units, kind, weights[0], weights[1], biases[1], values, grads)
        step += 1
        size = lr * math.sqrt(1 - beta2**step) / (1 - beta1**step)
        decay = alpha / samples
        numbers = (
            number(beta1), number(1 - beta1), number(beta2), number(1 - beta2), number(size),
            number(eps),
        )  # fmt: skip
        squares = coupled_adam(
            weights[0], weights[1], weights[2], weights[3], number(decay), *numbers
        )
        coupled_adam(biases[0], biases[1], biases[2], biases[3], number(0), *numbers)
        total += (loss + 0.5 * decay * squares) * samples
    return total


@loop()
def _forward(x, units, kind, weights, biases, values):
    """Fill in what each layer gives; return the scores."""
    samples = x.shape[0]
    matrix, row = 0, 0  # where the layer's weights begin, and its units
    result = _matrix(values, 0, units[1], samples)
    for k in range(units.size - 1):
        inputs, outputs = units[k], units[k + 1]
        weight = _matrix(weights, matrix, outputs, inputs)
        result = _matrix(values, row * samples, outputs, samples)
        if k == 0:
            np.dot(weight, x.T, result)
        else:
            np.dot(weight, _matrix(values, (row - inputs) * samples, inputs, samples), result)
        is_hidden = k < units.size - 2
        add_bias(result, biases[row : row + outputs], is_hidden and kind == RELU)
        matrix += outputs * inputs
        row += outputs
    return result


@loop()
def _backward(x, units, kind, weights, grad_weights, grad_biases, values, grads):
    """Go from the gradient by the scores, which lies in their place, to all others."""
    samples, depth = x.shape[0], units.size - 1
    matrix, row = weights.size, grad_biases.size
    for k in range(depth - 1, -1, -1):
        inputs, outputs = units[k], units[k + 1]
        matrix -= outputs * inputs
        row -= outputs
        grad = _matrix(values if k == depth - 1 else grads, row * samples, outputs, samples)
        grad_weight = _matrix(grad_weights, matrix, outputs, inputs)
        if k == 0:
            np.dot(grad, x, grad_weight)
        else:
            start = row - inputs
            value = _matrix(values, start * samples, inputs, samples)
            before = _matrix(grads, start * samples, inputs, samples)
            np.dot(grad, value.T, grad_weight)
            np.dot(_matrix(weights, matrix, outputs, inputs).T, grad, before)
            activation_backward(before, value, kind, grad_biases[start:row])


@loop()
def _matrix(flat, start, rows, columns):
    return flat[start : start + rows * columns].reshape(rows, columns)
