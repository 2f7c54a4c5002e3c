"""One step of an LSTM, between its products."""

import numpy as np

from xbackprop.kernels.loops.compiling import loop
from xbackprop.kernels.loops.maths import sigmoid, tanh

F = np.float32


@loop("contract")
def lstm_step(gates, products, c, cells, hidden):
    """Turn activations ``(rows, 4 size)`` into gates; move cells and hidden states on."""
    rows, size = cells.shape
    for n in range(rows):
        i, f = gates[n, :size], gates[n, size : 2 * size]
        g, o = gates[n, 2 * size : 3 * size], gates[n, 3 * size :]
        row, extra = gates[n], products[n]
        for k in range(4 * size):
            row[k] += extra[k]
        for k in range(2 * size):
            row[k] = sigmoid(row[k])
        for k in range(size):
            g[k] = tanh(g[k])
            o[k] = sigmoid(o[k])
        for k in range(size):
            cell = f[k] * c[n, k] + i[k] * g[k]
            cells[n, k] = c[n, k] = cell
            hidden[n, k] = o[k] * tanh(cell)


@loop("contract")
def lstm_step_backward(grad_output, grad_h, grad_c, gates, c_before, cells, grad_gates):
    """Fill the gradients of a step's activations, and replace ``grad_c`` by the one before it."""
    rows, size = cells.shape
    t, dh, dc = np.empty(size, F), np.empty(size, F), np.empty(size, F)
    for n in range(rows):
        i, f = gates[n, :size], gates[n, size : 2 * size]
        g, o = gates[n, 2 * size : 3 * size], gates[n, 3 * size :]
        grad_i, grad_f = grad_gates[n, :size], grad_gates[n, size : 2 * size]
        grad_g, grad_o = grad_gates[n, 2 * size : 3 * size], grad_gates[n, 3 * size :]
        # Few arrays a loop: of more, LLVM does not ask whether they overlap.
        for k in range(size):
            t[k] = tanh(cells[n, k])
        for k in range(size):
            dh[k] = grad_output[n, k] + grad_h[n, k]
        for k in range(size):
            dc[k] = grad_c[n, k] + dh[k] * o[k] * (F(1.0) - t[k] * t[k])
        for k in range(size):
            grad_o[k] = dh[k] * t[k] * o[k] * (F(1.0) - o[k])
        for k in range(size):
            grad_i[k] = dc[k] * g[k] * i[k] * (F(1.0) - i[k])
        for k in range(size):
            grad_f[k] = dc[k] * c_before[n, k] * f[k] * (F(1.0) - f[k])
        for k in range(size):
            grad_g[k] = dc[k] * i[k] * (F(1.0) - g[k] * g[k])
        for k in range(size):
            grad_c[n, k] = dc[k] * f[k]
