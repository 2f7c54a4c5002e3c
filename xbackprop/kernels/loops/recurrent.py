"""One step of a recurrent layer, between its products."""

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


@loop("contract")
def gru_step(gates, products, bias, h, hidden_n, output):
    """Turn input sides ``(rows, 3 size)`` into gates; move states on; ``bias`` is ``b_hh``."""
    rows, size = output.shape
    for n in range(rows):
        row, extra, kept, out = gates[n], products[n], hidden_n[n], output[n]
        r, z, candidate = row[:size], row[size : 2 * size], row[2 * size :]
        for k in range(3 * size):
            extra[k] += bias[k]
        for k in range(2 * size):
            row[k] = sigmoid(row[k] + extra[k])
        for k in range(size):
            kept[k] = extra[2 * size + k]
        for k in range(size):
            candidate[k] = tanh(candidate[k] + r[k] * kept[k])
        for k in range(size):
            out[k] = candidate[k] + (h[n, k] - candidate[k]) * z[k]
        for k in range(size):
            h[n, k] = out[k]


@loop("contract")
def gru_step_backward(grad_output, grad_h, gates, before, hidden_n, grad_input, grad_hidden):
    """Fill a step's gradients of both sides; replace ``grad_h`` by its part that ``z`` lets by."""
    rows, size = before.shape
    dh, slope = np.empty(size, F), np.empty(size, F)
    for n in range(rows):
        r, z, candidate = gates[n, :size], gates[n, size : 2 * size], gates[n, 2 * size :]
        to_input, to_hidden = grad_input[n], grad_hidden[n]
        du_n, dv_n = to_input[2 * size :], to_hidden[2 * size :]
        dv_z = to_hidden[size : 2 * size]
        for k in range(size):
            dh[k] = grad_output[n, k] + grad_h[n, k]
        for k in range(size):
            du_n[k] = dh[k] * (F(1.0) - z[k]) * (F(1.0) - candidate[k] * candidate[k])
        for k in range(size):
            dv_n[k] = du_n[k] * r[k]
        for k in range(size):
            to_hidden[k] = du_n[k] * hidden_n[n, k] * r[k] * (F(1.0) - r[k])
        for k in range(size):
            slope[k] = (before[n, k] - candidate[k]) * z[k] * (F(1.0) - z[k])
        for k in range(size):
            dv_z[k] = dh[k] * slope[k]
        for k in range(2 * size):
            to_input[k] = to_hidden[k]
        for k in range(size):
            grad_h[n, k] = dh[k] * z[k]


@loop("contract")
def rnn_step(sums, products, is_tanh, h):
    """Turn input sides ``(rows, size)`` into states, and move ``h`` on to them."""
    rows, size = sums.shape
    for n in range(rows):
        row, extra = sums[n], products[n]
        if is_tanh:
            for k in range(size):
                row[k] = tanh(row[k] + extra[k])
        else:
            for k in range(size):
                value = row[k] + extra[k]
                row[k] = F(0.0) if value < 0 else value  # a NaN stays one
        for k in range(size):
            h[n, k] = row[k]


@loop("contract")
def rnn_step_backward(grad_output, grad_h, output, is_tanh, grad):
    """Fill the gradients of a step's sums."""
    rows, size = output.shape
    for n in range(rows):
        state, out = output[n], grad[n]
        for k in range(size):
            out[k] = grad_output[n, k] + grad_h[n, k]
        if is_tanh:
            for k in range(size):
                out[k] *= F(1.0) - state[k] * state[k]
        else:
            for k in range(size):
                out[k] *= F(1.0) if state[k] > 0 else F(0.0)
