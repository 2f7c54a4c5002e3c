"""Cross-entropy of rows of logits with class indices."""

import math

import numpy as np

from xbackprop.kernels.loops.compiling import SUM, loop
from xbackprop.kernels.loops.maths import exp_of_negative
from xbackprop.kernels.loops.rows import LANES, largest

F = np.float32
_BLOCK = 512  # exponentials whose sum is made in float32


@loop()
def target_weights(target, classes, ignored, weights):
    """Fill in 1, 0 for targets that are ignored, and NaN for those out of range."""
    for n in range(target.size):
        is_known = 0 <= target[n] < classes
        weights[n] = F(0.0) if target[n] == ignored else F(1.0) if is_known else F(math.nan)


@loop(*SUM)
def _block_total(row, shift):
    total = F(0.0)
    for i in range(row.size):
        total += exp_of_negative(row[i] - shift)
    return total


@loop()
def _maximum_of_any(row):
    """Return the largest, NaN where there is one: of rows that others make no sense of."""
    best = row[0]
    for i in range(row.size):
        if row[i] > best or row[i] != row[i]:
            best = row[i]
    return best


@loop()
def cross_entropy(logits, target, weights, losses, shifts, log_totals):
    """Fill ``logsumexp(x) - x[target]`` times the weight, and the logsumexp in two parts."""
    rows, classes = logits.shape
    lanes = np.empty(LANES, F)
    for n in range(rows):
        row = logits[n]
        shift, total = largest(row, lanes), 0.0
        for start in range(0, classes, _BLOCK):
            total += _block_total(row[start : start + _BLOCK], shift)
        log_total = F(math.log(total))
        if total != total:  # no finite maximum, or a NaN somewhere
            shift, log_total = F(0.0), _maximum_of_any(row)
        shifts[n], log_totals[n] = shift, log_total
        if weights[n] == 1:
            losses[n] = -((row[target[n]] - shift) - log_total)
        else:
            losses[n] = weights[n]


@loop()
def cross_entropy_backward(factors, logits, target, shifts, log_totals, result):
    """Fill ``(softmax(x) - one_hot(target))`` times the row's factor."""
    rows, classes = logits.shape
    for n in range(rows):
        row, out, factor = logits[n], result[n], factors[n]
        shift, rest = shifts[n], log_totals[n]
        for i in range(classes):
            out[i] = exp_of_negative((row[i] - shift) - rest) * factor
        if 0 <= target[n] < classes:
            t = target[n]
            out[t] = (exp_of_negative((row[t] - shift) - rest) - F(1.0)) * factor
