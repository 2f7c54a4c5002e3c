"""Maxima of windows over two axes."""

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
    """The same for windows of 2x2 that neither overlap nor reach beyond."""
    images, _, width = x.shape
    for n in range(images):
        for i in range(output.shape[1]):
            top, bottom = x[n, 2 * i], x[n, 2 * i + 1]
            start = 2 * i * width
            for j in range(output.shape[2]):
                a, b, c, d = top[2 * j], top[2 * j + 1], bottom[2 * j], bottom[2 * j + 1]
                best, place = a, 0
                if b > best or b != b:
                    best, place = b, 1
                if c > best or c != c:
                    best, place = c, width
                if d > best or d != d:
                    best, place = d, width + 1
                output[n, i, j] = best
                indices[n, i, j] = start + 2 * j + place


@loop()
def give_back(grad, indices, result):
    """Add each gradient ``(images, outputs)`` where its maximum stands in ``result``."""
    for n in range(grad.shape[0]):
        for i in range(grad.shape[1]):
            place = indices[n, i]
            if place >= 0:
                result[n, place] += grad[n, i]
