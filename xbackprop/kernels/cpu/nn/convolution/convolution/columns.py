"""What a kernel of stride 1 sees, copied from arrays that are flattened with their padding.

In a padded array that is read as one long row, element ``k`` of a kernel sees, for all positions of
the output at once, a slice: the row from the offset of ``k`` on. What a kernel sees is therefore
copied slice by slice, at the speed of a plain copy, and multiplied while it is in the cache.
Positions that straddle the end of a line are computed too, and passed over when the result is
picked out of the row.
"""

import math
from collections.abc import Iterator

import numpy as np
from numpy.lib.stride_tricks import as_strided

from xbackprop.ops.windows import Sizes, window_counts

BLOCK = 1 << 20  # numbers in a block of columns: 4 MB in float32
PRODUCT = 1 << 18  # numbers in what they are multiplied with, or their product


class Grid:
    """A padded array as one row, and where the elements of a kernel and of an output are in it.

    Parameters
    ----------
    lengths : tuple of int
        Of the padded axes.
    kernel_size, dilation : sequence of int
        One number an axis.
    """

    def __init__(self, lengths: tuple[int, ...], kernel_size: Sizes, dilation: Sizes) -> None:
        self.kernel_size = tuple(kernel_size)
        self.elements = math.prod(kernel_size)
        self.counts = window_counts(lengths, kernel_size, (1,) * len(lengths), dilation)
        self.steps = tuple(math.prod(lengths[axis + 1 :]) for axis in range(len(lengths)))
        self.kernel_steps = tuple(d * s for d, s in zip(dilation, self.steps, strict=True))
        self.size = math.prod(lengths)
        # From the first element of a kernel to its last; and all positions it can start at.
        self.reach = sum((k - 1) * s for k, s in zip(kernel_size, self.kernel_steps, strict=True))
        self.span = self.size - self.reach

    def place(self, index: list[int]) -> int:
        """Return where an element is in the row."""
        return sum(i * s for i, s in zip(index, self.steps, strict=True))


class Columns:
    """What a kernel sees in some samples at a time: a row an element of it, a column a position.

    Parameters
    ----------
    grid : Grid
        Of the kernel.
    array : numpy.ndarray, shape (batch, channels, lengths...)
        What is seen.
    width, place : int
        Length of the row in which ``array`` lies among zeros, and where it starts.
    first, count : int
        The positions that are looked at.
    others : int
        Rows of what the columns are multiplied with or to: of few rows a block is a long one.
    """

    def __init__(
        self,
        grid: Grid,
        array: np.ndarray,
        width: int,
        place: int,
        first: int,
        count: int,
        others: int,
    ) -> None:
        channels, height = array.shape[1], array.shape[1] * grid.elements
        self.grid, self.array, self.first, self.count = grid, array, first, count
        fitting = min(BLOCK // (height * count), PRODUCT // (others * count))
        self.samples = min(len(array), max(1, fitting))
        # A sample that is larger than a block is looked at in pieces.
        self.piece = count if self.samples > 1 else min(count, max(64, BLOCK // height))
        self.rows = np.zeros((self.samples, channels, width), array.dtype)
        self.inside = view(self.rows, place, (self.samples, channels), grid, array.shape[2:])
        self.buffer = np.empty(height * self.samples * self.piece, array.dtype)

    def blocks(self) -> Iterator[slice]:
        """Go through the samples; each block is there for `pieces` until the next."""
        for start in range(0, len(self.array), self.samples):
            block = slice(start, min(start + self.samples, len(self.array)))
            self.inside[: block.stop - block.start] = self.array[block]
            yield block

    def pieces(self, samples: int) -> Iterator[tuple[slice, np.ndarray]]:
        """Go through the positions of a block; yield which they are, and the columns."""
        grid, rows = self.grid, self.rows
        channels, item = rows.shape[1], rows.itemsize
        steps = (rows.shape[2], *grid.kernel_steps, channels * rows.shape[2], 1)
        for start in range(0, self.count, self.piece):
            length = min(self.piece, self.count - start)
            seen = as_strided(
                rows[:, :, self.first + start :],
                (channels, *grid.kernel_size, samples, length),
                [item * step for step in steps],
                writeable=False,
            )
            columns = self.buffer[: seen.size].reshape(seen.shape)
            np.copyto(columns, seen)
            matrix = columns.reshape(channels * grid.elements, samples * length)
            # Columns of several samples lie side by side, and of one sample where they belong.
            yield slice(start, start + samples * length), matrix


def view(
    rows: np.ndarray, place: int, lead: tuple[int, int], grid: Grid, lengths: tuple[int, ...]
) -> np.ndarray:
    """Return the view of rows ``(a, b, width)`` with the axes that were flattened into them."""
    strides = (*rows.strides[:2], *(step * rows.itemsize for step in grid.steps))
    return as_strided(rows[:, :, place:], (*lead, *lengths), strides)
