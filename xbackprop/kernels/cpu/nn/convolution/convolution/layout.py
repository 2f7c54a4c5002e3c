"""Where the elements of a kernel are in an image that is laid in the rows of its phases."""

from typing import NamedTuple

import numpy as np

from xbackprop.nn.convolution.base import Widths
from xbackprop.nn.convolution.convolution import padded_lengths
from xbackprop.ops.windows import Sizes


class Layout(NamedTuple):
    """How an image lies in its phases; all numbers are of height and width."""

    before: tuple[int, int]
    stride: tuple[int, int]
    places: np.ndarray
    lengths: tuple[int, int]


def layout(
    x: np.ndarray, weight: np.ndarray, stride: Sizes, padding: Widths, dilation: Sizes
) -> Layout:
    """Lay out two axes, or one as a line of height 1."""
    lengths = padded_lengths(x.shape[2:], padding)
    axes = zip(lengths, weight.shape[2:], stride, dilation, padding, strict=True)
    both = [(1, 1, 1, 1, (0, 0)), *axes][-2:]
    (sh, sw), (rows, step) = (axis[2] for axis in both), (-(-axis[0] // axis[2]) for axis in both)
    seen = np.indices([axis[1] for axis in both]).reshape(2, -1)
    i, j = (index * axis[3] for index, axis in zip(seen, both, strict=True))
    places = np.ravel_multi_index((j % sw, i % sh, i // sh, j // sw), (sw, sh, rows, step))
    return Layout((both[0][4][0], both[1][4][0]), (sh, sw), places, (rows, step))
