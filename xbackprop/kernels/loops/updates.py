"""Updates of optimizers, one pass over all they read and write."""

import math

from xbackprop.kernels.loops.compiling import loop


@loop()
def adam(data, grad, exp_avg, exp_avg_sq, beta1, share1, beta2, share2, step_size, correction, eps):
    """One step of Adam, in place."""
    for i in range(data.size):
        g = grad[i]
        mean = exp_avg[i] * beta1 + g * share1
        square = exp_avg_sq[i] * beta2 + g * g * share2
        exp_avg[i], exp_avg_sq[i] = mean, square
        data[i] -= mean / (math.sqrt(square) * correction + eps) * step_size


@loop("reassoc")
def coupled_adam(data, grad, exp_avg, exp_avg_sq, decay, beta1, share1, beta2, share2, size, eps):
    """One step of Adam with a penalty and ``eps`` beside the uncorrected root, in place.

    Returns the sum of the squares that ``data`` had.
    """
    squares = data.dtype.type(0)
    for i in range(data.size):
        squares += data[i] * data[i]
        g = grad[i] + data[i] * decay
        mean = exp_avg[i] * beta1 + g * share1
        square = exp_avg_sq[i] * beta2 + g * g * share2
        exp_avg[i], exp_avg_sq[i] = mean, square
        data[i] -= mean / (math.sqrt(square) + eps) * size
    return squares


@loop()
def sgd(data, grad, sign, decay, lr):
    """One step of gradient descent, in place."""
    for i in range(data.size):
        g = grad[i] * sign
        if decay != 0:  # else weights that are infinite would make a NaN
            g += data[i] * decay
        data[i] -= g * lr


@loop()
def momentum_sgd(data, grad, buffer, sign, decay, lr, momentum, factor, nesterov):
    """One step of gradient descent with momentum, in place."""
    for i in range(data.size):
        g = grad[i] * sign
        if decay != 0:
            g += data[i] * decay
        velocity = buffer[i] * momentum + g * factor
        buffer[i] = velocity
        data[i] -= (g + velocity * momentum if nesterov else velocity) * lr
