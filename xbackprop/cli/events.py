"""Event files of TensorBoard, written through tensorboardX."""

import contextlib
import math
from pathlib import Path
from typing import Any, Self

import numpy as np

from xbackprop.cli.errors import FAILED, CommandError
from xbackprop.cli.run_folder import writing
from xbackprop.observe.statistics import EDGES
from xbackprop.training import EpochMetrics

_SCALARS = {
    "train_loss": "loss/train",
    "test_loss": "loss/test",
    "train_accuracy": "accuracy/train",
    "test_accuracy": "accuracy/test",
    "lr": "lr",
}


def require_tensorboard() -> None:
    """Refuse ``--tensorboard`` before anything is trained.

    Raises
    ------
    CommandError
        Where tensorboardX is not installed, or fails.
    """
    try:
        import tensorboardX  # noqa: F401
    except ImportError as error:
        is_missing = isinstance(error, ModuleNotFoundError) and error.name == "tensorboardX"
        reason = "tensorboardX is not installed" if is_missing else f"tensorboardX fails ({error})"
        raise CommandError(
            f'--tensorboard: {reason}; this installs it: pip install "xbackprop[tensorboard]"',
            FAILED,
        ) from error


class EventWriter:
    """Writes what a run records as events; ``step`` counts updates.

    Parameters
    ----------
    folder : Path
        Of the event files; a resumed run adds one.
    first_step : int
        Events from here on that an earlier part of the run wrote are void.
    """

    def __init__(self, folder: Path, *, first_step: int) -> None:
        self._folder, self._first_step = folder, first_step

    def __enter__(self) -> Self:
        from tensorboardX import SummaryWriter

        with writing(self._folder):
            purge = self._first_step if self._folder.exists() else None
            # Of two files of one second the second would take the first one's place.
            suffix = f".from-step-{self._first_step}"
            self._writer = SummaryWriter(
                str(self._folder), purge_step=purge, filename_suffix=suffix
            )
        return self

    def __exit__(self, *exception: object) -> None:
        with contextlib.suppress(OSError):
            self._writer.close()

    def write_epoch(self, row: EpochMetrics) -> None:
        """Write the metrics of an epoch at its last update."""
        metrics = row.as_dict()
        with writing(self._folder):
            for key, tag in _SCALARS.items():
                if metrics[key] is not None:
                    self._writer.add_scalar(tag, metrics[key], row.step)
            self._writer.flush()

    def write_statistics(self, row: dict[str, Any]) -> None:
        """Write what :class:`xbackprop.observe.StatisticsRecorder` tells of an update."""
        step = row["step"]
        with writing(self._folder):
            self._scalar("grad_norm", row["grad_norm"], step)
            for path, layer in row["layers"].items():
                name = path or layer["type"]
                self._scalar(f"grad_norm/{name}", layer.get("grad_norm"), step)
                self._scalar(f"update_ratio/{name}", update_ratio(layer), step)
                for kind in ("gradients", "outputs"):
                    if kind in layer:
                        self._histogram(f"{kind}/{name}", layer[kind], step)

    def _scalar(self, tag: str, value: float | None, step: int) -> None:
        if value is not None:
            self._writer.add_scalar(tag, value, step)

    def _histogram(self, tag: str, told: dict[str, Any], step: int) -> None:
        counts, first = told["counts"], told["first"]
        if told["min"] is None or told["max"] is None or math.isnan(told["min"] + told["max"]):
            return  # TensorBoard draws no NaN
        number, mean, std = sum(counts), told["mean"], told["std"]
        limits = np.append(EDGES, max(float(EDGES[-1]), told["max"]))
        self._writer.add_histogram_raw(
            tag,
            min=told["min"],
            max=told["max"],
            num=number,
            sum=mean * number,
            sum_squares=(std * std + mean * mean) * number,
            # The first bin begins where the one before it ends, so an empty one stands before.
            bucket_limits=limits[max(0, first - 1) : first + len(counts)].tolist(),
            bucket_counts=([0] if first else []) + counts,
            global_step=step,
        )


def update_ratio(layer: dict[str, Any]) -> float | None:
    """Return how large an update is beside the weights; None where there are none, or all are 0."""
    update, weight = layer.get("update_norm"), layer.get("weight_norm")
    return update / weight if weight and update is not None else None
