"""Pictures of a run: curves of loss and accuracy, and the confusion matrix.

matplotlib is imported here only, by its objects: no pyplot, no window, no state of the process.
"""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xbackprop.training import EpochMetrics
from xbackprop.training.progress import loss_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Blue and vermillion of Okabe and Ito's palette, which colour-blind readers tell apart.
_TRAIN, _TEST = "#0072B2", "#D55E00"
_LOG_FROM = 20.0  # largest by smallest loss, from which a linear axis shows a corner only
_MOST_NUMBERED = 40  # classes; with more, the numbers in the cells could not be read
_LONGEST_NAME = 18


def draw_curves(
    history: Sequence[EpochMetrics], path: Path, *, title: str, loss_label: str
) -> None:
    """Draw loss and, for classes, accuracy over the epochs.

    Parameters
    ----------
    history : sequence of EpochMetrics
        At least one epoch.
    path : Path
        The PNG file.
    title : str
        Above the picture.
    loss_label : str
        Name and unit of the loss.

    Raises
    ------
    ImportError
        Without matplotlib.
    OSError
        When the file cannot be written.
    """
    has_accuracy = history[0].train_accuracy is not None
    figure = new_figure((9.6 if has_accuracy else 5.4, 3.9))
    panels = figure.subplots(1, 2 if has_accuracy else 1, squeeze=False)[0]
    epochs = [row.epoch for row in history]
    train = _numbers(row.train_loss for row in history)
    test = _numbers(row.test_loss for row in history)
    if _spans_decades(np.concatenate([train, test])):
        panels[0].set_yscale("log")
        panels[0].yaxis.set_major_formatter("{x:g}")
        loss_label += ", log scale"
    _draw_panel(panels[0], epochs, train, test, loss_text)
    panels[0].set_ylabel(loss_label)
    if has_accuracy:
        train = 100 * _numbers(row.train_accuracy for row in history)
        test = 100 * _numbers(row.test_accuracy for row in history)
        _draw_panel(panels[1], epochs, train, test, "{:.2f} %".format)
        panels[1].set_ylabel("accuracy (%)")
    figure.suptitle(literally(title), fontsize=11)
    save_figure(figure, path)


def draw_confusion(
    matrix: np.ndarray, class_names: Sequence[str], path: Path, *, title: str
) -> None:
    """Draw how often each class was taken for which.

    Parameters
    ----------
    matrix : numpy.ndarray of int, shape (classes, classes)
        Rows are true classes, columns predicted ones.
    class_names : sequence of str
        In the order of the rows.
    path : Path
        The PNG file.
    title : str
        Above the picture; says the accuracy.

    Raises
    ------
    ImportError, OSError
        As :func:`draw_curves`.
    """
    classes = len(matrix)
    side = min(12.0, 1.8 + 0.34 * classes)
    figure = new_figure((side + 0.6, side + 0.6))
    axes = figure.subplots()
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axes.imshow(_colour_cells(shares), interpolation="nearest")
    if classes <= _MOST_NUMBERED:
        _name_classes(axes, class_names)
        edges = np.arange(classes - 1) + 0.5
        axes.hlines(edges, -0.5, classes - 0.5, color="0.9", linewidth=0.6)
        axes.vlines(edges, -0.5, classes - 0.5, color="0.9", linewidth=0.6)
        size = 10 if classes <= 12 else max(4, 120 / classes)
        for row, column in np.argwhere(matrix > 0):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(
                column, row, str(matrix[row, column]),
                ha="center", va="center", color=colour, fontsize=size,
            )  # fmt: skip
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    axes.set_title(literally(title), fontsize=11)
    save_figure(figure, path)


def new_figure(size: tuple[float, float]) -> "Figure":
    """Return an empty figure of a size in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: "Figure", path: Path) -> None:
    """Write a figure as PNG."""
    with warnings.catch_warnings():
        # A name in a script that the font lacks is drawn as boxes, and needs no words.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(path, format="png")


def _draw_panel(
    axes: "Axes",
    epochs: Sequence[int],
    train: np.ndarray,
    test: np.ndarray,
    value_text: Callable[[float], str],
) -> None:
    from matplotlib.ticker import MaxNLocator

    marker = "o" if len(epochs) == 1 else ""  # a line of one point cannot be seen
    is_train_above = train[-1] >= test[-1]
    for values, colour, name in ((train, _TRAIN, "training"), (test, _TEST, "test")):
        axes.plot(epochs, values, color=colour, linewidth=1.6, marker=marker, label=name)
        if not np.isfinite(values[-1]):
            continue
        axes.plot(epochs[-1], values[-1], "o", color=colour, markersize=5)
        is_above = is_train_above == (name == "training")
        axes.annotate(
            value_text(float(values[-1])), (epochs[-1], values[-1]),
            xytext=(7, 1 if is_above else -1), textcoords="offset points",
            va="bottom" if is_above else "top", color=colour, fontsize=9,
            annotation_clip=False,
        )  # fmt: skip
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(True, color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(frameon=False, loc="best")


def _colour_cells(shares: np.ndarray) -> np.ndarray:
    """Colour right answers from white to blue, and wrong ones from white to vermillion.

    The square root lets one mistake among many right answers be seen.
    """
    from matplotlib.colors import to_rgb

    is_right = np.eye(len(shares), dtype=bool)[..., np.newaxis]
    full = np.where(is_right, to_rgb(_TRAIN), to_rgb(_TEST))
    strength = np.where(is_right, shares[..., np.newaxis], np.sqrt(shares)[..., np.newaxis])
    cells: np.ndarray = 1.0 - strength * (1.0 - full)
    return cells


def _name_classes(axes: "Axes", class_names: Sequence[str]) -> None:
    names = [
        name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 3]}..."
        for name in class_names
    ]
    is_long = max(map(len, names)) > 3
    size = 10 if len(names) <= 20 else 7
    labels = [literally(name) for name in names]
    axes.set_yticks(range(len(names)), labels, fontsize=size)
    axes.set_xticks(
        range(len(names)), labels, fontsize=size,
        rotation=45 if is_long else 0, ha="right" if is_long else "center",
        rotation_mode="anchor" if is_long else "default",
    )  # fmt: skip
    axes.tick_params(length=0)


def _spans_decades(values: np.ndarray) -> bool:
    values = values[np.isfinite(values)]
    return bool(values.size and values.min() > 0 and values.max() > _LOG_FROM * values.min())


def _numbers(values: Any) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def literally(text: str) -> str:
    """Keep matplotlib from reading formulas between dollar signs."""
    return text.replace("$", r"\$")
