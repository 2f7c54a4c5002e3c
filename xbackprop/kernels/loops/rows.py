"""Normalization and softmax of rows."""

import math

import numpy as np

from xbackprop.kernels.loops.compiling import SUM, loop
from xbackprop.kernels.loops.maths import exp_of_negative

F = np.float32
_BLOCK = 64  # rows whose sum is made in float32
LANES = 32  # maxima of parts of a row, four registers of AVX2


@loop(*SUM)
def _sum(row):
    total = 0.0
    for i in range(row.size):
        total += row[i]
    return total


@loop(*SUM)
def _sum_of_squares(row):
    total = 0.0
    for i in range(row.size):
        value = np.float64(row[i])
        total += value * value
    return total


@loop()
def normalize(x, weight, bias, eps, output, x_hat, rstd, mean, var):
    """Rows of mean 0 and variance 1, then weight and bias; moments in float64."""
    rows, size = x.shape
    for n in range(rows):
        row, hat, out = x[n], x_hat[n], output[n]
        center = _sum(row) / size
        shift = F(center)
        rest = F(center - shift)
        for i in range(size):
            hat[i] = row[i] - shift - rest
        variance = _sum_of_squares(hat) / size
        scale = F(1.0 / math.sqrt(variance + eps))
        for i in range(size):
            hat[i] *= scale
        for i in range(size):
            out[i] = hat[i] * weight[i] + bias[i]
        mean[n], var[n], rstd[n] = center, variance, scale


@loop(*SUM)
def _two_sums(grad, weight, hat):
    first, second = 0.0, 0.0
    for i in range(grad.size):
        value = np.float64(grad[i] * weight[i])
        first += value
        second += value * hat[i]
    return first, second


@loop()
def normalize_backward(grad, x_hat, rstd, weight, result, grad_weight, grad_bias):
    """Gradients of input, weight and bias; the last two are float64 and are added to."""
    rows, size = grad.shape
    weight_part, bias_part = np.zeros(size, F), np.zeros(size, F)
    for n in range(rows):
        g, hat, out = grad[n], x_hat[n], result[n]
        first, second = _two_sums(g, weight, hat)
        mean, slope, scale = F(first / size), F(second / size), rstd[n]
        for i in range(size):
            out[i] = (g[i] * weight[i] - mean - hat[i] * slope) * scale
        for i in range(size):
            weight_part[i] += g[i] * hat[i]
            bias_part[i] += g[i]
        if n % _BLOCK == _BLOCK - 1 or n == rows - 1:
            for i in range(size):
                grad_weight[i] += weight_part[i]
                grad_bias[i] += bias_part[i]
                weight_part[i] = bias_part[i] = 0


@loop()
def rms_normalize(x, weight, eps, output, rstd):
    """Rows of mean square 1, then the weight; the mean square in float64."""
    rows, size = x.shape
    for n in range(rows):
        row, out = x[n], output[n]
        scale = F(1.0 / math.sqrt(_sum_of_squares(row) / size + eps))
        for i in range(size):
            out[i] = row[i] * scale * weight[i]
        rstd[n] = scale


@loop()
def rms_normalize_backward(grad, x, rstd, weight, result, grad_weight):
    """Gradients of input and weight; the last one is float64 and is added to."""
    rows, size = grad.shape
    hat, weight_part = np.empty(size, F), np.zeros(size, F)
    for n in range(rows):
        g, row, out, scale = grad[n], x[n], result[n], rstd[n]
        for i in range(size):
            hat[i] = row[i] * scale
        _, second = _two_sums(g, weight, hat)
        slope = F(second / size)
        for i in range(size):
            out[i] = (g[i] * weight[i] - hat[i] * slope) * scale
        for i in range(size):
            weight_part[i] += g[i] * hat[i]
        if n % _BLOCK == _BLOCK - 1 or n == rows - 1:
            for i in range(size):
                grad_weight[i] += weight_part[i]
                weight_part[i] = 0


@loop(*SUM)
def _exponentials(row, shift):
    total = F(0.0)
    for i in range(row.size):
        value = exp_of_negative(row[i] - shift)
        row[i] = value
        total += value
    return total


@loop()
def largest(row, lanes):
    """Return the maximum of those that are no NaN; ``lanes`` is scratch.

    In lanes of its own, since LLVM vectorizes no maximum of a row that may hold a NaN.
    """
    width = lanes.size
    whole = row.size // width * width
    best = F(-math.inf)
    if whole:
        for j in range(width):
            lanes[j] = best
        for start in range(0, whole, width):
            part = row[start : start + width]
            for j in range(width):
                lanes[j] = part[j] if part[j] > lanes[j] else lanes[j]
        for j in range(width):
            best = lanes[j] if lanes[j] > best else best
    for i in range(whole, row.size):
        best = row[i] if row[i] > best else best
    return best


@loop()
def softmax_numerators(scores, scale, is_causal, shifts, totals):
    """Turn scores into ``exp(scale scores - shift)`` in place; 0 for keys behind a query."""
    queries, keys = scores.shape
    lanes = np.empty(LANES, F)
    for n in range(queries):
        seen = min(n + 1, keys) if is_causal else keys
        row = scores[n, :seen]
        for i in range(seen):
            row[i] *= scale
        shift = largest(row, lanes)
        shifts[n] = shift
        totals[n] = _exponentials(row, shift)
        for i in range(seen, keys):
            scores[n, i] = 0


@loop("contract")
def score_gradients(scores, grads, scale, is_causal, shifts, log_totals, means):
    """Turn scores into probabilities and ``grads = G V^T`` into ``P (G V^T - D)``, in place."""
    queries, keys = scores.shape
    for n in range(queries):
        seen = min(n + 1, keys) if is_causal else keys
        shift, rest, mean = shifts[n], log_totals[n], means[n]
        for i in range(seen):
            p = exp_of_negative(min(scores[n, i] * scale - shift - rest, F(0.0)))
            scores[n, i] = p
            grads[n, i] = p * (grads[n, i] - mean)
        for i in range(seen, keys):
            scores[n, i] = grads[n, i] = 0
