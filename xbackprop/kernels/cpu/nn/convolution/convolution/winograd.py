"""Convolutions with kernels of 3x3 by products of sums, some tiles at a time.

What is summed up, and why: :mod:`xbackprop.kernels.loops.winograd`. The blocks of tiles, and what
is added up in which order, depend on shapes alone, so the bits do not depend on how many threads
share in the work.
"""

import itertools
from contextlib import AbstractContextManager
from typing import NamedTuple

import numpy as np

from xbackprop.backend.threads import share_work
from xbackprop.kernels.cpu.parts import Workspace, in_parts
from xbackprop.kernels.loops import loops

F = np.float32
SUMS = (0, 1, 2, 3)  # along each axis
PLACES = len(SUMS) ** 2
COLUMNS = 144  # of a product, at most about: the operands, all places, stay in the cache
PARTS, PARTS_BYTES = 8, 1 << 20  # of a gradient of the weight, at most
SHARED = 3 << 24  # multiplications, from which on threads are worth their start


def _over_both_axes(rows: list[list[float]]) -> np.ndarray:
    """Return the matrix that does along two flattened axes what this one does along each."""
    return np.kron(rows, rows).astype(F)


_OF_WEIGHTS = _over_both_axes([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
_TO_WEIGHTS = _over_both_axes([[1, 1, 1, 0], [0, 1, -1, 0], [0, 1, 1, -1]])


class Block(NamedTuple):
    """Tiles of 2x2 outputs that are computed together: of several samples, or some lines of one."""

    samples: slice
    line: int  # of the output, the first
    step: int  # tiles in a line, with the one that straddles its end
    tiles: int  # in each sample


def _blocks(batch: int, counts: tuple[int, ...], most: int = COLUMNS) -> list[Block]:
    """Cut the outputs of a batch into blocks of so many tiles at most, about."""
    rows, step = -(-counts[0] // 2), -(-counts[1] // 2) + 1
    samples = max(1, most // (rows * step))
    height = -(-rows // -(-rows * step // most))
    return [
        Block(slice(n, min(n + samples, batch)), 2 * i, step, min(height, rows - i) * step)
        for n in range(0, batch, samples)
        for i in range(0, rows, height)
    ]


def sharing(weight: np.ndarray, batch: int, counts: tuple[int, ...]) -> AbstractContextManager[int]:
    """Return the block in which a convolution, or its backward, has the threads that it yields.

    The smaller ones keep to one, and leave BLAS as many as it has.
    """
    tiles = batch * -(-counts[0] // 2) * -(-counts[1] // 2)
    products = PLACES * weight.shape[0] * weight.shape[1] * tiles
    parts = tiles // COLUMNS
    return share_work(parts if products >= SHARED and parts >= len(SUMS) else 1)


def convolve(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None,
    before: tuple[int, int],
    counts: tuple[int, ...],
    threads: int,
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
    threads : int
        That share in it.

    Returns
    -------
    numpy.ndarray, shape (batch, outputs, *counts)
    """
    outputs, channels = weight.shape[:2]
    offsets = np.zeros(outputs, F) if bias is None else np.ascontiguousarray(bias)
    output, blocks = np.empty((len(x), outputs, *counts), F), _blocks(len(x), counts)

    def fill(block: Block, workspace: Workspace) -> None:
        seen = np.ascontiguousarray(x[block.samples])
        sums = workspace.take(PLACES, channels, len(seen), block.tiles)
        products = workspace.take(PLACES, outputs, len(seen), block.tiles)
        line, step = block.line, block.step
        loops("winograd").sums_of_inputs(seen, line - before[0], before[1], step, SUMS, sums)
        columns = sums.reshape(PLACES, channels, -1)
        np.matmul(kernels, columns, out=products.reshape(PLACES, outputs, -1))
        loops("winograd").outputs(products, offsets, line, step, output[block.samples])

    with Workspace() as workspace:
        kernels = workspace.take(PLACES, outputs, channels)
        kept, flat = workspace.taken, workspace.take(*weight.shape)
        flat[...] = weight
        np.matmul(_OF_WEIGHTS, flat.reshape(-1, 9).T, out=kernels.reshape(PLACES, -1))
        workspace.clear(kept)
        in_parts(fill, blocks, threads, workspace)
    return output


def weight_gradient(
    grad: np.ndarray, x: np.ndarray, before: tuple[int, int], threads: int
) -> np.ndarray:
    """Return ``dw[o, c, k, l] = sum g[n, o, i, j] x[n, c, i + k - before, j + l - before]``.

    Parameters
    ----------
    grad : numpy.ndarray of float32, shape (batch, outputs, rows, columns)
        Of the output.
    x : numpy.ndarray, shape (batch, channels, height, width)
        As for :func:`convolve`.
    before, threads
        As for :func:`convolve`.

    Returns
    -------
    numpy.ndarray, shape (outputs, channels, 3, 3)
    """
    channels, outputs = x.shape[1], grad.shape[1]
    # Threads have a part of the batch each; or some of the places, where a matrix for all is large.
    most = min(PARTS, PARTS_BYTES // (PLACES * channels * outputs * 4))
    lines = [SUMS] if most >= len(SUMS) else [(a,) for a in SUMS]
    blocks = _blocks(len(x), grad.shape[2:], COLUMNS * len(lines))
    length = -(-len(blocks) // most) if most >= len(SUMS) else len(blocks)
    batches = [blocks[i : i + length] for i in range(0, len(blocks), length)]

    def multiply(
        block: Block, which: tuple[int, ...], workspace: Workspace, product: np.ndarray
    ) -> None:
        seen = np.ascontiguousarray(x[block.samples])
        grads = np.ascontiguousarray(grad[block.samples])
        sums = workspace.take(len(product), channels, len(seen), block.tiles)
        grad_sums = workspace.take(len(product), len(seen), block.tiles, outputs)
        line, step = block.line, block.step
        where = line - before[0], before[1], step, which
        loops("winograd").sums_of_inputs(seen, *where, sums)
        loops("winograd").sums_of_gradients(grads, line, step, which, grad_sums)
        rows = sums.reshape(len(product), channels, -1)
        np.matmul(rows, grad_sums.reshape(len(product), -1, outputs), out=product)

    def add_up(part: tuple[int, tuple[int, ...]], workspace: Workspace) -> None:
        (number, which), kept = part, workspace.taken
        result = totals[number, which[0] : which[-1] + 1].reshape(-1, channels, outputs)
        multiply(batches[number][0], which, workspace, result)
        for block in batches[number][1:]:
            workspace.clear(kept)
            product = workspace.take(*result.shape)
            multiply(block, which, workspace, product)
            result += product

    parts = list(itertools.product(range(len(batches)), lines))
    with Workspace() as workspace:
        totals = workspace.take(len(batches), len(SUMS), len(SUMS), channels, outputs)
        in_parts(add_up, parts, threads, workspace)
        for other in totals[1:]:
            totals[0] += other
        grad_weight = totals[0].reshape(PLACES, -1).T.dot(_TO_WEIGHTS.T)
    return grad_weight.reshape(channels, outputs, 3, 3).swapaxes(0, 1)
