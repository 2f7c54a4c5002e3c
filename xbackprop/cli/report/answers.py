"""What the model of a run makes of its test part: mistakes, and the samples it is worst at."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from xbackprop.backend.device import DeviceChoice, use_device
from xbackprop.cli.datasets import TextSplit, data_config, find_change, load_split
from xbackprop.cli.errors import CommandError
from xbackprop.cli.options import TrainOptions, options_of_run
from xbackprop.cli.pictures import sample_losses
from xbackprop.cli.report.record import RunRecord
from xbackprop.cli.results import predict_test
from xbackprop.cli.run import Run, build_run
from xbackprop.cli.run_folder import CHECKPOINTS, MODEL
from xbackprop.training import Checkpoint, CheckpointError, CheckpointFolder, load

WORST = 20


@dataclass(frozen=True, eq=False)
class Answers:
    """Right and wrong on the test part.

    Attributes
    ----------
    truth, predicted : numpy.ndarray
        Class indices, or quantities of shape (samples, targets) in their own units.
    losses : numpy.ndarray, shape (samples,)
        Of each sample.
    classes : tuple or None
        None for quantities.
    targets : tuple of str
        Names of the quantities.
    images : numpy.ndarray or None
        Of shape (samples, channels, height, width).
    """

    truth: np.ndarray
    predicted: np.ndarray
    losses: np.ndarray
    classes: tuple[Any, ...] | None
    targets: tuple[str, ...]
    images: np.ndarray | None

    @property
    def worst(self) -> np.ndarray:
        """The samples with the largest losses, the largest first."""
        return np.argsort(-self.losses, kind="stable")[:WORST]


@dataclass(frozen=True, eq=False)
class Judged:
    """The model, and what it answers where that can be found out.

    Attributes
    ----------
    model : dict
        ``file`` and ``steps`` of the model that was asked, or nothing.
    status : str
        How the run stands, in words.
    answers : Answers or None
        None where there are none.
    why_not : str
        The reason then.
    """

    model: dict[str, Any]
    status: str
    answers: Answers | None
    why_not: str = ""


def judge(record: RunRecord, choice: DeviceChoice) -> Judged:
    """Ask the newest model of a run about its test part.

    Parameters
    ----------
    record : RunRecord
        The run.
    choice : DeviceChoice
        Where to compute.

    Returns
    -------
    Judged
    """
    with use_device(choice.device):
        found = _newest_model(record)
        if found is None:
            status = "broken off or still going on; no checkpoint has been written yet"
            return Judged({}, status, None, "there is no model yet")
        path, checkpoint = found
        model = {"file": str(path.relative_to(record.folder)), "steps": _steps(checkpoint)}
        status = _status(record, checkpoint)
        try:
            return Judged(model, status, _answers(record, checkpoint, choice))
        except CommandError as error:
            return Judged(model, status, None, str(error))


def _newest_model(record: RunRecord) -> tuple[Path, Checkpoint] | None:
    """Return what the end of the run wrote, or else the newest checkpoint that is whole."""
    checkpoints = CheckpointFolder(record.folder / CHECKPOINTS)
    for path in (record.folder / MODEL, *checkpoints.newest_first()):
        try:
            return path, load(path)
        except (OSError, CheckpointError):
            continue
    return None


def _steps(checkpoint: Checkpoint) -> int:
    return int(checkpoint.counters.get("steps", 0))


def _status(record: RunRecord, checkpoint: Checkpoint) -> str:
    steps, epochs = _steps(checkpoint), checkpoint.counters.get("epochs", 0)
    if not record.has_ended:
        return f"broken off or still going on; judged by its checkpoint after update {steps:,}"
    wanted = record.arguments.get("epochs")
    status = checkpoint.counters.get("status", "finished")
    if status == "finished":
        return f"finished: {epochs:,} epochs, {steps:,} updates"
    return f"{status} after {epochs:,} of {wanted:,} epochs, {steps:,} updates"


def _answers(record: RunRecord, checkpoint: Checkpoint, choice: DeviceChoice) -> Answers:
    request = options_of_run(record.folder, record.config, "RUN")
    split = load_split(request)
    changed = find_change(record.config.get("data", {}), data_config(split, request.data))
    if changed:
        raise CommandError(f"its data {request.data} has changed: {changed}")
    if isinstance(split, TextSplit):
        raise CommandError("of a text only losses are told; `xbackprop explain` shows samples")
    alone = replace(request, shards=1)  # of training, which may have been on another machine
    run = build_run(alone, choice, split, lambda: record.folder)
    run.trainer.model.load_state_dict(checkpoint.model.state_dict())
    return Answers(
        truth=split.y_test,
        predicted=predict_test(run),
        losses=sample_losses(run),
        classes=split.classes,
        targets=_targets(run, request),
        images=_images(run, request),
    )


def _targets(run: Run, request: TrainOptions) -> tuple[str, ...]:
    width = run.split.y_test.shape[1] if run.split.classes is None else 1
    named = (request.target,) if request.target and width == 1 else ()
    return named or tuple(f"y{place}" for place in range(width))


def _images(run: Run, request: TrainOptions) -> np.ndarray | None:
    """Return the test samples as images, also where the network takes them as rows of numbers."""
    if run.split.x_test.ndim == 4:
        return run.split.x_test
    if request.preprocess == "columns" or Path(request.data).suffix.lower() == ".csv":
        return None  # a table, which need not be read again to find that out
    try:
        return load_split(replace(request, model="cnn")).x_test
    except CommandError:  # no images
        return None
