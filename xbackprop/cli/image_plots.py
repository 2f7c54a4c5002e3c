"""Pictures of what a network of convolutions looks for, finds, and mistakes."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xbackprop.cli.plots import literally, new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_FILTERS = 64
_MOST_MAPS = 16


def draw_filters(weight: np.ndarray, path: Path) -> None:
    """Draw the kernels of a first convolution.

    Parameters
    ----------
    weight : numpy.ndarray, shape (out_channels, in_channels, height, width)
        Of images in grey or colour; of other images the first channel is shown.
    path : Path
        The PNG file.
    """
    shown = weight[:_MOST_FILTERS]
    columns = min(8, len(shown))
    rows = math.ceil(len(shown) / columns)
    figure = new_figure((0.9 * columns + 1.2, 0.9 * rows + 0.6))
    limit = float(np.abs(shown).max()) or 1.0
    is_colour = weight.shape[1] == 3
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    image = None
    for axes, kernel in zip(panels, shown, strict=False):
        picture = 0.5 + kernel.transpose(1, 2, 0) / (2 * limit) if is_colour else kernel[0]
        options = {} if is_colour else {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit}
        image = _show(axes, picture, **options)
    for axes in panels[len(shown) :]:
        axes.axis("off")
    if image is not None and not is_colour:
        figure.colorbar(image, ax=list(panels), shrink=0.8, label="weight")
    figure.suptitle(
        f"kernels of the first convolution ({len(shown)} of {len(weight)})", fontsize=11
    )
    save_figure(figure, path)


def draw_features(sample: np.ndarray, maps: Sequence[np.ndarray], path: Path) -> None:
    """Draw a sample, and what the layers make of it.

    Parameters
    ----------
    sample : numpy.ndarray, shape (channels, height, width)
        The input.
    maps : sequence of numpy.ndarray, shape (channels, height, width)
        Outputs of activations, from the first layer to the last.
    path : Path
        The PNG file.
    """
    columns = 1 + _MOST_MAPS // 2
    figure = new_figure((0.9 * columns, 0.9 * (2 * len(maps)) + 0.8 * len(maps)))
    parts = figure.subfigures(max(1, len(maps)), 1, squeeze=False)[:, 0]
    for number, (part, images) in enumerate(zip(parts, maps, strict=True), 1):
        count, height, width = images.shape
        shown = images[:_MOST_MAPS]
        part.suptitle(
            f"after activation {number}: {len(shown)} of {count} maps of {height} x {width}",
            fontsize=10,
        )
        grid = part.add_gridspec(2, columns)
        if number == 1:
            _show(part.add_subplot(grid[0, 0]), _as_picture(sample), cmap="gray")
        for place, image in enumerate(shown):
            axes = part.add_subplot(grid[place // (columns - 1), 1 + place % (columns - 1)])
            _show(axes, image, cmap="viridis")
    save_figure(figure, path)


def draw_samples(
    samples: np.ndarray, labels: Sequence[str], losses: np.ndarray, path: Path, *, title: str
) -> None:
    """Draw samples with what was made of them.

    Parameters
    ----------
    samples : numpy.ndarray, shape (samples, channels, height, width)
        In the order of the labels.
    labels : sequence of str
        What stands above each.
    losses : numpy.ndarray, shape (samples,)
        Stand below the labels.
    path : Path
        The PNG file.
    title : str
        Above the picture.
    """
    columns = min(5, len(samples))
    rows = math.ceil(len(samples) / columns)
    figure = new_figure((1.7 * columns, 1.9 * rows + 0.4))
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, sample, label, loss in zip(panels, samples, labels, losses, strict=False):
        _show(axes, _as_picture(sample), cmap="gray")
        axes.set_title(literally(f"{label}\nloss {loss:.3g}"), fontsize=8)
    for axes in panels[len(samples) :]:
        axes.axis("off")
    figure.suptitle(literally(title), fontsize=11)
    save_figure(figure, path)


def _as_picture(sample: np.ndarray) -> np.ndarray:
    """Return ``(height, width)`` or, of three channels, ``(height, width, 3)`` from 0 to 1."""
    picture = sample.transpose(1, 2, 0) if len(sample) == 3 else sample[0]
    low, high = float(picture.min()), float(picture.max())
    return np.asarray((picture - low) / (high - low) if high > low else picture * 0.0)


def _show(axes: "Axes", picture: np.ndarray, **options: Any) -> Any:
    axes.set_xticks([])
    axes.set_yticks([])
    return axes.imshow(picture, interpolation="nearest", **options)
