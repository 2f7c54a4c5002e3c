"""Max pooling over two axes, one window after the other."""

import math
from typing import Any

import numpy as np

from xbackprop.dispatch import ArraySpec
from xbackprop.kernels.loops import HAS_NUMBA, is_plain, loops
from xbackprop.nn.pooling.maximum import index_dtype
from xbackprop.nn.pooling.maximum import max_pool_backward as backward_op
from xbackprop.nn.pooling.maximum import max_pool_forward as forward_op
from xbackprop.nn.pooling.windows import Window


def can_serve(x: ArraySpec, windows: tuple[Window, ...]) -> bool:
    """Tell whether the windows have two axes, of images of float32 in C order."""
    return len(windows) == 2 and is_plain(x)


def can_go_back(
    grad_output: ArraySpec,
    indices: ArraySpec,
    spatial: tuple[int, ...],
    windows: tuple[Window, ...],
) -> bool:
    """Tell the same of a backward; any number of axes."""
    return HAS_NUMBA and is_plain(grad_output) and indices.is_contiguous


@forward_op.kernel("cpu", when=can_serve, smallest=4096)
def max_pool_forward(x: np.ndarray, windows: tuple[Window, ...]) -> tuple[np.ndarray, Any]:
    """Return output and saved, as the op of this name."""
    spatial = x.shape[-2:]
    counts = tuple(window.outputs for window in windows)
    output = np.empty((*x.shape[:-2], *counts), x.dtype)
    indices = np.empty(output.shape, index_dtype(spatial))
    images = x.reshape(-1, *spatial), output.reshape(-1, *counts), indices.reshape(-1, *counts)
    if all(window[:4] == (2, 2, 0, 1) for window in windows) and counts == (
        spatial[0] // 2, spatial[1] // 2,
    ):  # fmt: skip
        loops("pooling").maxima_of_pairs(*images)
    else:
        rows, columns = (tuple(window[:4]) for window in windows)
        loops("pooling").maxima(images[0], rows, columns, *images[1:])
    return output, (indices, spatial, windows)


@backward_op.kernel("cpu", when=can_go_back, smallest=4096)
def max_pool_backward(
    grad_output: np.ndarray,
    indices: np.ndarray,
    spatial: tuple[int, ...],
    windows: tuple[Window, ...],
) -> np.ndarray:
    """Return the gradient, as the op of this name."""
    lead = grad_output.shape[: -len(windows)]
    images, size = math.prod(lead), math.prod(spatial)
    result = np.zeros((images, size), grad_output.dtype)
    loops("pooling").give_back(grad_output.reshape(images, -1), indices.reshape(images, -1), result)
    return result.reshape(*lead, *spatial)
