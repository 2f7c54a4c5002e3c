"""What lies between the products of a perceptron whose activations hold a sample in each column.

So every bias belongs to one row, whose loop is over samples that lie side by side.
"""

import math

import numpy as np

from xbackprop.kernels.loops.compiling import SUM, loop
from xbackprop.kernels.loops.maths import double_exp_of_negative, exp_of_negative

IDENTITY, RELU, TANH, SIGMOID, SOFTMAX = range(5)  # kinds of activations


@loop(*SUM)
def add_bias(values, bias, is_rectified):
    """Add each row's bias in place; leave nothing negative where that is asked for."""
    zero = values.dtype.type(0)
    for o in range(values.shape[0]):
        b = bias[o]
        for n in range(values.shape[1]):
            v = values[o, n] + b
            values[o, n] = zero if is_rectified and v < zero else v  # a NaN stays one


@loop(*SUM)
def activation_backward(grad, values, kind, grad_bias):
    """Multiply by the derivative, told from what the activation gave; sum up over the samples."""
    one = values.dtype.type(1)
    for o in range(grad.shape[0]):
        total = grad.dtype.type(0)
        for n in range(grad.shape[1]):
            g, y = grad[o, n], values[o, n]
            if kind == RELU:
                g = g if y > 0 else grad.dtype.type(0)
            elif kind == TANH:
                g *= one - y * y
            elif kind == SIGMOID:
                g *= y * (one - y)
            grad[o, n] = g
            total += g
        grad_bias[o] = total


@loop()
def loss_of_output(scores, target, kind, factors, grad_bias):
    """Return the loss that belongs to the activation of the output, of each sample by its factor.

    The gradient by the scores is left in their place, and its sums in ``grad_bias``.
    """
    if kind == SOFTMAX:
        return _softmax_loss(scores, target, factors, _rounding(scores), grad_bias)
    if kind == SIGMOID:
        return _sigmoid_loss(scores, target, factors, _rounding(scores), grad_bias)
    return _squared_loss(scores, target, factors, grad_bias)


@loop()
def _rounding(values):
    return values.dtype.type(np.finfo(values.dtype).eps)


@loop(*SUM)
def _subtract_largest(scores, largest):
    """Take the largest of each column away in place; with a NaN, which stays one, any of them."""
    rows, columns = scores.shape
    largest[:] = scores[0]
    for o in range(1, rows):
        for n in range(columns):
            largest[n] = max(scores[o, n], largest[n])
    for o in range(rows):
        for n in range(columns):
            scores[o, n] -= largest[n]


@loop("contract")
def exponentials(values):
    """Take the exponential of what is not positive, in place."""
    for o in range(values.shape[0]):
        row = values[o]
        if values.itemsize == 4:
            for n in range(row.size):
                row[n] = exp_of_negative(np.float32(row[n]))
        else:
            for n in range(row.size):
                row[n] = double_exp_of_negative(np.float64(row[n]))


@loop(*SUM)
def _softmax_loss(scores, target, factors, eps, grad_bias):
    """Return the cross-entropy of classes."""
    one, zero = scores.dtype.type(1), scores.dtype.type(0)
    classes = scores.shape[0]
    totals = np.empty(scores.shape[1], scores.dtype)
    _subtract_largest(scores, totals)
    exponentials(scores)
    totals[:] = 0
    for o in range(classes):
        for n in range(totals.size):
            totals[n] += scores[o, n]
    for n in range(totals.size):
        totals[n] = one / totals[n]
    loss = zero
    for n in range(totals.size):
        for o in range(classes):
            if target[n, o]:
                p = scores[o, n] * totals[n]
                loss -= math.log(_clipped(p, eps, one - eps)) * factors[n]
    for o in range(classes):
        total = totals.dtype.type(0)
        for n in range(totals.size):
            p = scores[o, n] * totals[n]
            g = (p - (one if target[n, o] else zero)) * factors[n]
            scores[o, n] = g
            total += g
        grad_bias[o] = total
    return loss


@loop(*SUM)
def _sigmoid_loss(scores, target, factors, eps, grad_bias):
    """Return the cross-entropies of labels."""
    one, zero = scores.dtype.type(1), scores.dtype.type(0)
    loss = zero
    for o in range(scores.shape[0]):
        total = zero
        for n in range(scores.shape[1]):
            z = math.exp(-abs(scores[o, n]))
            p = (z if scores[o, n] < 0 else one) / (one + z)
            clipped = _clipped(p, eps, one - eps)
            loss -= math.log(clipped if target[n, o] else one - clipped) * factors[n]
            g = (p - (one if target[n, o] else zero)) * factors[n]
            scores[o, n] = g
            total += g
        grad_bias[o] = total
    return loss


@loop(*SUM)
def _squared_loss(scores, target, factors, grad_bias):
    """Return half the mean of squares over outputs; the gradient is that of half their sum."""
    loss = scores.dtype.type(0)
    for o in range(scores.shape[0]):
        total = scores.dtype.type(0)
        for n in range(scores.shape[1]):
            difference = scores[o, n] - target[n, o]
            g = difference * factors[n]
            loss += difference * g
            scores[o, n] = g
            total += g
        grad_bias[o] = total
    return loss * scores.dtype.type(0.5 / scores.shape[0])


@loop()
def _clipped(p, lowest, highest):
    return lowest if p < lowest else highest if p > highest else p  # a NaN stays one
