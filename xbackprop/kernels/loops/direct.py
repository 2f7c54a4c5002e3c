"""Convolutions between few channels, added up element by element of the kernel.

Of an image laid in the rows of its phases an element of the kernel sees slices, and long loops over
slices that are in the cache need no product of matrices. Positions that straddle the end of a line
are computed too and passed over; their gradients are 0, which times infinity is NaN where the
reference has none.
"""

import numpy as np

from xbackprop.kernels.loops.compiling import SUM, loop
from xbackprop.kernels.loops.phases import merge, pick, split, spread


@loop()
def _flatten(lines, step, row):
    """Lay ``(height, width)`` in a row, its lines ``step`` apart; what is between them stays."""
    for i in range(lines.shape[0]):
        source, target = lines[i], row[i * step :]
        for j in range(source.size):
            target[j] = source[j]


@loop("contract")
def convolve(x, weight, bias, before, stride, places, lengths, output):
    """Fill ``output`` ``(samples, groups, outputs, height, width)``.

    ``x`` is ``(samples, groups, channels, height, width)``, ``weight`` ``(groups, outputs,
    channels, elements)``; ``shape`` is that of the phases, and ``places`` tells where in them,
    flattened, an element of the kernel sees the first position.
    """
    samples, groups, outputs, height, width = output.shape
    channels, elements, step = weight.shape[2], weight.shape[3], lengths[1]
    lines = np.zeros((channels, stride[0], lengths[0], stride[1] * step), x.dtype)
    whole = lines.reshape(channels, -1)
    rows = whole if stride[1] == 1 else np.empty_like(whole)
    result = np.empty((height - 1) * step + width, x.dtype)
    for n in range(samples):
        for g in range(groups):
            for c in range(channels):
                spread(x[n, g, c], before, lines[c])
                if stride[1] > 1:
                    split(whole[c], rows[c].reshape(stride[1], -1))
            for o in range(outputs):
                result[:] = bias[g, o]
                for c in range(channels):
                    row, w = rows[c], weight[g, o, c]
                    rest = elements % 3
                    for k in range(rest):
                        seen0, w0 = row[places[k] :], w[k]
                        for t in range(result.size):
                            result[t] += w0 * seen0[t]
                    for k in range(rest, elements, 3):  # three, since adding loads and stores too
                        seen0, seen1 = row[places[k] :], row[places[k + 1] :]
                        seen2 = row[places[k + 2] :]
                        w0, w1, w2 = w[k], w[k + 1], w[k + 2]
                        for t in range(result.size):
                            result[t] += w0 * seen0[t] + w1 * seen1[t] + w2 * seen2[t]
                for i in range(height):
                    line, source = output[n, g, o, i], result[i * step :]
                    for j in range(width):
                        line[j] = source[j]


@loop("contract")
def input_gradient(grad, weight, before, stride, places, lengths, result):
    """Fill ``result``, of the shape of ``x``, with ``grad`` put back; the rest as above."""
    samples, groups, outputs, height, width = grad.shape
    channels, elements, step = weight.shape[2], weight.shape[3], lengths[1]
    lines = np.empty((channels, stride[0], lengths[0], stride[1] * step), grad.dtype)
    whole = lines.reshape(channels, -1)
    rows = whole if stride[1] == 1 else np.empty_like(whole)
    flat = np.zeros((height - 1) * step + width, grad.dtype)
    for n in range(samples):
        for g in range(groups):
            rows[:] = 0
            for o in range(outputs):
                _flatten(grad[n, g, o], step, flat)
                for c in range(channels):
                    for k in range(elements):
                        seen, w = rows[c, places[k] :], weight[g, o, c, k]
                        for t in range(flat.size):
                            seen[t] += w * flat[t]
            for c in range(channels):
                if stride[1] > 1:
                    merge(rows[c].reshape(stride[1], -1), whole[c])
                pick(lines[c], before, result[n, g, c])


@loop(*SUM)
def weight_gradient(grad, x, before, stride, places, lengths, result):
    """Add to ``result``, of the shape of ``weight``, what ``grad`` and ``x`` make; as above."""
    samples, groups, outputs, height, width = grad.shape
    channels, elements, step = result.shape[2], result.shape[3], lengths[1]
    lines = np.zeros((channels, stride[0], lengths[0], stride[1] * step), x.dtype)
    whole = lines.reshape(channels, -1)
    rows = whole if stride[1] == 1 else np.empty_like(whole)
    flat, zero = np.zeros((height - 1) * step + width, x.dtype), x.dtype.type(0)
    for n in range(samples):
        for g in range(groups):
            for c in range(channels):
                spread(x[n, g, c], before, lines[c])
                if stride[1] > 1:
                    split(whole[c], rows[c].reshape(stride[1], -1))
            for o in range(outputs):
                _flatten(grad[n, g, o], step, flat)
                for c in range(channels):
                    row, total = rows[c], result[g, o, c]
                    rest = elements % 3
                    for k in range(rest):
                        seen0, sum0 = row[places[k] :], zero
                        for t in range(flat.size):
                            sum0 += flat[t] * seen0[t]
                        total[k] += sum0
                    for k in range(rest, elements, 3):
                        seen0, seen1 = row[places[k] :], row[places[k + 1] :]
                        seen2 = row[places[k + 2] :]
                        sum0, sum1, sum2 = zero, zero, zero
                        for t in range(flat.size):
                            sum0 += flat[t] * seen0[t]
                            sum1 += flat[t] * seen1[t]
                            sum2 += flat[t] * seen2[t]
                        total[k] += sum0
                        total[k + 1] += sum1
                        total[k + 2] += sum2
