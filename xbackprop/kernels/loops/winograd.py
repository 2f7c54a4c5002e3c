"""Convolutions with kernels of 3x3, in 16 products where 36 would be: Winograd's way.

Two outputs of a kernel of three elements need four products of sums in place of six,
``y0 = d0 w0 + d1 w1 + d2 w2 = p0 + p1 + p2`` and ``y1 = p1 - p2 - p3`` with

    p0 = (d0 - d2) w0                   p1 = (d1 + d2) (w0 + w1 + w2) / 2
    p2 = (d2 - d1) (w0 - w1 + w2) / 2   p3 = (d1 - d3) w2

and over two axes a tile of 2x2 outputs needs 16 in place of 36. The sums over channels stay
products of matrices, one for each of the 16 places. The gradient of the weight has the same sums of
the input; in the kernel's place stands a tile of two gradients, ``g0``, ``(g0 + g1) / 2``,
``(g0 - g1) / 2`` and ``g1``, and it has three results, ``p0 + p1 + p2``, ``p1 - p2`` and
``p1 + p2 - p3``.

References
----------
Lavin and Gray, "Fast algorithms for convolutional neural networks", CVPR 2016, section 4.
"""

from collections.abc import Iterator

import numpy as np
from numpy.lib.stride_tricks import as_strided

from xbackprop.kernels.loops.compiling import loop

F = np.float32
PLACES = 16
COLUMNS = 512  # of a product, about; fewer leave BLAS waiting


@loop()
def _sums_of_inputs(phases, step, result):
    """Fill ``result`` ``(16, images, tiles)`` with the sums of ``d`` over both axes.

    ``phases[a, b, n]`` holds the elements ``x[n, 2 i + a, 2 j + b]`` as one row, lines of ``step``:
    so ``d0, d1, d2, d3`` are the row of ``a = 0``, of ``a = 1``, and both from the next line on.
    """
    count = result.shape[2]
    across = np.empty((2, 4, count + 1), F)
    for n in range(result.shape[1]):
        for b in range(2):
            d0, d1 = phases[0, b, n], phases[1, b, n]
            d2, d3 = d0[step:], d1[step:]
            a0, a1, a2, a3 = across[b, 0], across[b, 1], across[b, 2], across[b, 3]
            for t in range(count + 1):
                a0[t] = d0[t] - d2[t]
                a1[t] = d1[t] + d2[t]
            for t in range(count + 1):
                a2[t] = d2[t] - d1[t]
                a3[t] = d1[t] - d3[t]
        for a in range(4):
            e0, e1 = across[0, a], across[1, a]
            e2, e3 = e0[1:], e1[1:]
            r0, r1 = result[4 * a, n], result[4 * a + 1, n]
            r2, r3 = result[4 * a + 2, n], result[4 * a + 3, n]
            for t in range(count):
                r0[t] = e0[t] - e2[t]
                r1[t] = e1[t] + e2[t]
            for t in range(count):
                r2[t] = e2[t] - e1[t]
                r3[t] = e1[t] - e3[t]


@loop()
def _sums_of_gradients(phases, result):
    """Fill ``result`` ``(16, images, tiles)`` with the sums of ``g``, from phases as above."""
    half, count = F(0.5), result.shape[2]
    across = np.empty((2, 4, count), F)
    for n in range(result.shape[1]):
        for b in range(2):
            g0, g1 = phases[0, b, n], phases[1, b, n]
            a0, a1, a2, a3 = across[b, 0], across[b, 1], across[b, 2], across[b, 3]
            for t in range(count):
                a0[t] = g0[t]
                a3[t] = g1[t]
            for t in range(count):
                a1[t] = (g0[t] + g1[t]) * half
                a2[t] = (g0[t] - g1[t]) * half
        for a in range(4):
            e0, e1 = across[0, a], across[1, a]
            r0, r1 = result[4 * a, n], result[4 * a + 1, n]
            r2, r3 = result[4 * a + 2, n], result[4 * a + 3, n]
            for t in range(count):
                r0[t] = e0[t]
                r3[t] = e1[t]
            for t in range(count):
                r1[t] = (e0[t] + e1[t]) * half
                r2[t] = (e0[t] - e1[t]) * half


@loop()
def _outputs(products, bias, step, planes):
    """Fill planes ``(samples, outputs, rows, columns)`` from products, and add a bias.

    The products are ``(16, outputs, samples, tiles)``; rows and columns are even.
    """
    count, columns = products.shape[3], planes.shape[3] // 2
    sums, line = np.empty((2, 4, count), F), np.empty((2, count), F)
    for o in range(planes.shape[1]):
        offset = bias[o]
        for n in range(planes.shape[0]):
            for b in range(4):
                m0, m1 = products[b, o, n], products[4 + b, o, n]
                m2, m3 = products[8 + b, o, n], products[12 + b, o, n]
                top, bottom = sums[0, b], sums[1, b]
                for t in range(count):
                    top[t] = m0[t] + m1[t] + m2[t]
                    bottom[t] = m1[t] - m2[t] - m3[t]
            for a in range(2):
                s0, s1, s2, s3 = sums[a, 0], sums[a, 1], sums[a, 2], sums[a, 3]
                even, odd = line[0], line[1]
                for t in range(count):
                    even[t] = s0[t] + s1[t] + s2[t] + offset
                    odd[t] = s1[t] - s2[t] - s3[t] + offset
                for i in range(planes.shape[2] // 2):
                    out = planes[n, o, 2 * i + a]
                    for j in range(columns):
                        out[2 * j] = even[i * step + j]
                        out[2 * j + 1] = odd[i * step + j]


def _over_both_axes(rows: list[list[float]]) -> np.ndarray:
    """Return the matrix that does along two flattened axes what this one does along each."""
    return np.kron(rows, rows).astype(F)


_OF_WEIGHTS = _over_both_axes([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
_TO_WEIGHTS = _over_both_axes([[1, 1, 1, 0], [0, 1, -1, 0], [0, 1, 1, -1]])


class Phases:
    """The elements of images apart by whether their line and column are even, among zeros.

    Parameters
    ----------
    samples, channels : int
        Of the images.
    counts : sequence of int
        Rows and columns of the outputs; a tile has two of each, and a line of tiles one more, so
        that those of all lines follow each other.
    before : tuple of int
        Lines and columns of zeros before the image.
    """

    def __init__(
        self, samples: int, channels: int, counts: tuple[int, ...], before: tuple[int, int]
    ) -> None:
        self.rows, self.columns = (-(-count // 2) for count in counts)
        self.step, self.before = self.columns + 1, before
        self.count = self.rows * self.step
        self.memory = np.zeros((2, 2, channels, samples, self.count + self.step + 1), F)
        shape = (2, 2, channels, samples, self.rows + 1, self.step)
        strides = (*self.memory.strides[:-1], self.step * 4, 4)
        self.planes = as_strided(self.memory, shape, strides)
        self.flat = self.memory.reshape(2, 2, channels * samples, -1)

    def take(self, images: np.ndarray) -> np.ndarray:
        """Put images in the place of those before; return the phases."""
        by_channel = images.swapaxes(0, 1)
        for a in range(2):
            for b in range(2):
                # The first line and column of an image that have this phase.
                line, column = (self.before[0] + a) % 2, (self.before[1] + b) % 2
                part = by_channel[:, :, line::2, column::2]
                line, column = (self.before[0] + line) // 2, (self.before[1] + column) // 2
                target = self.planes[a, b, :, :, line:, column:]
                rows = slice(min(part.shape[2], target.shape[2]))
                columns = slice(min(part.shape[3], target.shape[3]))
                target[:, :, rows, columns] = part[:, :, rows, columns]
        return self.flat


def _blocks(batch: int, counts: tuple[int, ...]) -> Iterator[slice]:
    """Go through the samples, so many at a time that the products have enough columns."""
    size = max(1, min(batch, COLUMNS // ((counts[0] + 1) // 2 * (counts[1] // 2 + 1))))
    for start in range(0, batch, size):
        yield slice(start, min(start + size, batch))


def convolve(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None,
    before: tuple[int, int],
    counts: tuple[int, ...],
) -> np.ndarray:
    """Return ``y[n, o, i, j] = b[o] + sum w[o, c, k, l] x[n, c, i + k - before, j + l - before]``.

    Parameters
    ----------
    x : numpy.ndarray of float32, shape (batch, channels, height, width)
        What lies beyond it is 0.
    weight : numpy.ndarray, shape (outputs, channels, 3, 3)
        The kernels.
    bias : numpy.ndarray, shape (outputs,), or None
        Added to every channel.
    before : tuple of int
        Lines and columns of zeros before the first of ``x``, at least 0.
    counts : tuple of int
        Rows and columns of the output.

    Returns
    -------
    numpy.ndarray, shape (batch, outputs, *counts)
    """
    outputs, channels = weight.shape[:2]
    kernels = _OF_WEIGHTS.dot(weight.reshape(-1, 9).T).reshape(PLACES, outputs, channels)
    offsets = np.zeros(outputs, F) if bias is None else np.ascontiguousarray(bias)
    output, samples = np.empty((len(x), outputs, *counts), F), 0
    for block in _blocks(len(x), counts):
        if samples != block.stop - block.start:  # the first block, and a shorter last one
            samples = block.stop - block.start
            phases = Phases(samples, channels, counts, before)
            sums = np.empty((PLACES, channels * samples, phases.count), F)
            products = np.empty((PLACES, outputs, samples, phases.count), F)
            planes = np.empty((samples, outputs, 2 * phases.rows, 2 * phases.columns), F)
        _sums_of_inputs(phases.take(x[block]), phases.step, sums)
        columns = sums.reshape(PLACES, channels, -1)
        np.matmul(kernels, columns, out=products.reshape(PLACES, outputs, -1))
        fits = planes.shape[2:] == counts
        _outputs(products, offsets, phases.step, output[block] if fits else planes)
        if not fits:
            output[block] = planes[:, :, : counts[0], : counts[1]]
    return output


def weight_gradient(grad: np.ndarray, x: np.ndarray, before: tuple[int, int]) -> np.ndarray:
    """Return ``dw[o, c, k, l] = sum g[n, o, i, j] x[n, c, i + k - before, j + l - before]``.

    Parameters
    ----------
    grad : numpy.ndarray of float32, shape (batch, outputs, rows, columns)
        Of the output.
    x : numpy.ndarray, shape (batch, channels, height, width)
        As for :func:`convolve`.
    before : tuple of int
        As for :func:`convolve`.

    Returns
    -------
    numpy.ndarray, shape (outputs, channels, 3, 3)
    """
    channels, outputs, counts = x.shape[1], grad.shape[1], grad.shape[2:]
    product, samples = np.empty((PLACES, outputs, channels), F), 0
    total = np.zeros_like(product)
    for block in _blocks(len(x), counts):
        if samples != block.stop - block.start:
            samples = block.stop - block.start
            phases = Phases(samples, channels, counts, before)
            grads = Phases(samples, outputs, counts, (0, 0))
            sums = np.empty((PLACES, channels * samples, phases.count), F)
            grad_sums = np.empty((PLACES, outputs * samples, phases.count), F)
        _sums_of_inputs(phases.take(x[block]), phases.step, sums)
        _sums_of_gradients(grads.take(grad[block]), grad_sums)
        rows = grad_sums.reshape(PLACES, outputs, -1)
        columns = sums.reshape(PLACES, channels, -1).swapaxes(1, 2)
        np.matmul(rows, columns, out=product)
        total += product
    grad_weight = _TO_WEIGHTS.dot(total.reshape(PLACES, -1)).T
    return grad_weight.reshape(outputs, channels, 3, 3)
