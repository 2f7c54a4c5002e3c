"""Maxima of windows over two axes."""

import numpy as np

from xbackprop.kernels.loops.compiling import loop


@loop()
def maxima(x, rows, columns, output, indices):
    """Fill ``output`` and ``indices`` ``(images, ., .)`` from ``x`` ``(images, height, width)``.

    ``rows`` and ``columns`` are kernel, stride, padding and dilation of an axis.
    """
    images, height, width = x.shape
    for n in range(images):
        for i in range(output.shape[1]):
            for j in range(output.shape[2]):
                best, place = x.dtype.type(-float("inf")), -1
                for a in range(rows[0]):
                    y = i * rows[1] - rows[2] + a * rows[3]
                    if y < 0 or y >= height:
                        continue
                    for b in range(columns[0]):
                        z = j * columns[1] - columns[2] + b * columns[3]
                        if z < 0 or z >= width:
                            continue
                        value = x[n, y, z]
                        if value > best or value != value or place < 0:
                            best, place = value, y * width + z
                output[n, i, j] = best
                indices[n, i, j] = place


@loop()
def maxima_of_pairs(x, output, indices):
    """The same for windows of 2x2 that neither overlap nor reach beyond.

    Places are chosen in 32 bits and widened after, so that both loops vectorize.
    """
    images, _, width = x.shape
    zero, one, below = np.int32(0), np.int32(1), np.int32(width)
    places = np.empty(output.shape[2], np.int32)
    for n in range(images):
        for i in range(output.shape[1]):
            top, bottom, maximum = x[n, 2 * i], x[n, 2 * i + 1], output[n, i]
            for j in range(places.size):
                a, b, c, d = top[2 * j], top[2 * j + 1], bottom[2 * j], bottom[2 * j + 1]
                is_b = (b > a) | (b != b)
                best, place = b if is_b else a, one if is_b else zero
                is_c = (c > best) | (c != c)
                best, place = c if is_c else best, below if is_c else place
                is_d = (d > best) | (d != d)
                maximum[j], places[j] = d if is_d else best, below + one if is_d else place
            start, index = 2 * i * width, indices[n, i]
            for j in range(places.size):
                index[j] = start + 2 * j + places[j]


@loop()
def give_back(grad, indices, result):
    """Add each gradient ``(images, outputs)`` where its maximum stands in ``result``."""
    for n in range(grad.shape[0]):
        for i in range(grad.shape[1]):
            place = indices[n, i]
            if place >= 0:
                result[n, place] += grad[n, i]
