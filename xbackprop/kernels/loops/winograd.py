"""Sums for convolutions with kernels of 3x3, in 16 products where 36 would be: Winograd's way.

Two outputs of a kernel of three elements need four products of sums in place of six,
``y0 = d0 w0 + d1 w1 + d2 w2 = p0 + p1 + p2`` and ``y1 = p1 - p2 - p3`` with

    p0 = (d0 - d2) w0                   p1 = (d1 + d2) (w0 + w1 + w2) / 2
    p2 = (d2 - d1) (w0 - w1 + w2) / 2   p3 = (d1 - d3) w2

and over two axes a tile of 2x2 outputs needs 16 in place of 36. The sums over channels stay
products of matrices, one for each of the 16 places. The gradient of the weight has the same sums of
the input; in the kernel's place stands a tile of two gradients, ``g0``, ``(g0 + g1) / 2``,
``(g0 - g1) / 2`` and ``g1``, and it has three results, ``p0 + p1 + p2``, ``p1 - p2`` and
``p1 + p2 - p3``.

The tiles of a line follow those of the line before, after one that is for nothing: it straddles the
end of the line. So the loops are long ones, over ``count`` tiles, ``step`` of them in a line; two
neighbours in a line, which belong to one tile, are the real and imaginary part of a number.

References
----------
Lavin and Gray, "Fast algorithms for convolutional neural networks", CVPR 2016, section 4.
"""

import numpy as np

from xbackprop.kernels.loops.compiling import loop

F, PAIR = np.float32, np.complex64


@loop()
def sums_of_inputs(x, line, before, step, which, result):
    """Fill ``result`` ``(places, channels, samples, count)`` with the sums of ``d`` over both axes.

    ``line`` is the first that the tiles see of ``x`` ``(samples, channels, height, width)``, which
    has ``before`` columns of zeros before it, and zeros wherever else it ends. The places are four
    for each sum over lines, of which ``start`` is the first.
    """
    count, width = result.shape[3], 2 * step
    rows = count // step
    lines = np.zeros((2, (rows + 1) * width + 2), F)  # the even ones, the odd ones
    pairs = np.empty((4, count + 1), PAIR)
    across = pairs.view(F)
    columns = min(x.shape[3], width - before)
    first, last = max(0, -line), min(2 * rows + 2, x.shape[2] - line)
    for n in range(x.shape[0]):
        for c in range(x.shape[1]):
            for i in range(first, last):
                source, target = x[n, c, line + i], lines[i % 2, i // 2 * width + before :]
                for t in range(columns):
                    target[t] = source[t]
            d0, d1 = lines[0], lines[1]
            d2, d3 = d0[width:], d1[width:]
            a0, a1, a2, a3 = across[0], across[1], across[2], across[3]
            for t in range(a0.size):
                x0, x1, x2, x3 = d0[t], d1[t], d2[t], d3[t]
                a0[t] = x0 - x2
                a1[t] = x1 + x2
                a2[t] = x2 - x1
                a3[t] = x1 - x3
            for a in range(len(which)):
                e = pairs[which[a]]
                f = e[1:]
                r0, r1 = result[4 * a, c, n], result[4 * a + 1, c, n]
                r2, r3 = result[4 * a + 2, c, n], result[4 * a + 3, c, n]
                for t in range(count):
                    x0, x1, x2, x3 = e[t].real, e[t].imag, f[t].real, f[t].imag
                    r0[t] = x0 - x2
                    r1[t] = x1 + x2
                    r2[t] = x2 - x1
                    r3[t] = x1 - x3


@loop()
def sums_of_gradients(grad, line, step, which, result):
    """Fill ``result`` ``(places, samples, count, outputs)`` with the sums of ``g``, as above.

    ``line`` is the first one of the tiles in ``grad`` ``(samples, outputs, rows, columns)``, beyond
    which everything is 0. Outputs come last, as BLAS takes twice as long for a product with the
    transpose.
    """
    half, outputs, columns = F(0.5), grad.shape[1], grad.shape[3]
    lines = min(2 * (result.shape[2] // step), grad.shape[2] - line)
    width = step * outputs
    tiles = np.zeros((2, 2, step, outputs), F)  # of one line
    phases, across = tiles.reshape(2, 2, width), np.empty((2, 4, width), F)
    sums = result.reshape(result.shape[0], grad.shape[0], -1, width)
    for n in range(grad.shape[0]):
        for i in range(0, lines, 2):
            if i + 1 == lines:
                tiles[1] = 0
            for a in range(min(2, lines - i)):
                for o in range(outputs):
                    source = grad[n, o, line + i + a]
                    for t in range(columns):
                        tiles[a, t % 2, t // 2, o] = source[t]
            for b in range(2):
                g0, g1 = phases[0, b], phases[1, b]
                a0, a1, a2, a3 = across[b, 0], across[b, 1], across[b, 2], across[b, 3]
                for t in range(width):
                    x0, x1 = g0[t], g1[t]
                    a0[t] = x0
                    a1[t] = (x0 + x1) * half
                    a2[t] = (x0 - x1) * half
                    a3[t] = x1
            for a in range(len(which)):
                e0, e1 = across[0, which[a]], across[1, which[a]]
                r0, r1 = sums[4 * a, n, i // 2], sums[4 * a + 1, n, i // 2]
                r2, r3 = sums[4 * a + 2, n, i // 2], sums[4 * a + 3, n, i // 2]
                for t in range(width):
                    x0, x1 = e0[t], e1[t]
                    r0[t] = x0
                    r1[t] = (x0 + x1) * half
                    r2[t] = (x0 - x1) * half
                    r3[t] = x1


@loop()
def outputs(products, bias, line, step, result):
    """Fill lines of ``result`` ``(samples, outputs, rows, columns)``, from ``line`` on.

    The products are ``(16, outputs, samples, count)``; a bias is added.
    """
    count, columns = products.shape[3], result.shape[3]
    sums, pairs = np.empty((2, 4, count), F), np.empty((2, count), PAIR)
    flat = pairs.view(F)
    lines = min(2 * (count // step), result.shape[2] - line)
    for o in range(products.shape[1]):
        offset = bias[o]
        for n in range(result.shape[0]):
            for b in range(4):
                m0, m1 = products[b, o, n], products[4 + b, o, n]
                m2, m3 = products[8 + b, o, n], products[12 + b, o, n]
                top, bottom = sums[0, b], sums[1, b]
                for t in range(count):
                    x0, x1, x2, x3 = m0[t], m1[t], m2[t], m3[t]
                    top[t] = x0 + x1 + x2
                    bottom[t] = x1 - x2 - x3
            for a in range(2):
                s0, s1, s2, s3 = sums[a, 0], sums[a, 1], sums[a, 2], sums[a, 3]
                pair = pairs[a]
                for t in range(count):
                    x0, x1, x2, x3 = s0[t], s1[t], s2[t], s3[t]
                    pair[t] = complex(x0 + x1 + x2 + offset, x1 - x2 - x3 + offset)
            for i in range(lines):
                source, target = flat[i % 2, i // 2 * 2 * step :], result[n, o, line + i]
                for t in range(columns):
                    target[t] = source[t]
