"""A trainer's whole state into a file and back: a run goes on as if it had never stopped."""

import copy
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from xbackprop.backend.transfer import to_device, to_host
from xbackprop.module import precision_of
from xbackprop.module.state import check_state
from xbackprop.optim import Optimizer
from xbackprop.training.checkpoint import CheckpointError, State, read_state, save_state
from xbackprop.training.history import history_arrays, history_rows
from xbackprop.training.metrics import RunningMeans

if TYPE_CHECKING:
    from xbackprop.training.trainer import Trainer

_GRAD, _LOSS = "grad:", "loss:"


@dataclass
class FitProgress:
    """How far a call of :meth:`Trainer.fit` has come.

    Attributes
    ----------
    source : iterable of pairs
        The batches.
    means : RunningMeans
        Of the unfinished epoch.
    epochs : int
        Finished in this call.
    batches : int
        Done in the unfinished epoch.
    lr : float
        Learning rate at its start.
    skipped : int
        Steps of the unfinished epoch known to have been skipped.
    seconds : float
        Spent in the unfinished epoch.
    """

    source: Any
    means: RunningMeans
    epochs: int = 0
    batches: int = 0
    lr: float = 0.0
    skipped: int = 0
    seconds: float = 0.0


_COUNTS = ("epochs", "batches", "lr", "skipped", "seconds")


def save_trainer(
    trainer: "Trainer", path: str | os.PathLike[str], counters: dict[str, Any]
) -> None:
    """Write what :meth:`Trainer.save` promises."""
    stepper, loss_fn = trainer.stepper, trainer.loss_fn
    stepper.look_for_nonfinite()  # a file that hides a skipped step would be resumed in good faith
    training = {
        **_identity(trainer),
        "steps": stepper.steps,
        "epochs": trainer.epochs,
        "group": stepper.group.state(),
        "scheduler": None if trainer.scheduler is None else trainer.scheduler.state_dict(),
        "fit": None if trainer.progress is None else _progress_state(trainer),
        "scaler": None if trainer.scaler is None else trainer.scaler.state_dict(),
    }
    arrays = history_arrays(trainer.history)
    arrays |= {_LOSS + key: values for key, values in loss_fn.state_dict().items()}
    if stepper.group.batches:
        for key, parameter in trainer.model.named_parameters():
            if parameter.has_grad:
                arrays[_GRAD + key] = to_host(parameter.grad)
    save_state(
        path, trainer.model, trainer.optimizer,
        counters=counters, training=training, arrays=arrays,
    )  # fmt: skip


def _identity(trainer: "Trainer") -> dict[str, Any]:
    """Return what must be the same in the trainer that goes on."""
    scheduler = trainer.scheduler
    return {
        "loss": trainer.loss_fn.config(),
        "scheduler_type": None if scheduler is None else type(scheduler).__name__,
        "scheduler_interval": trainer.scheduler_interval,
        "accumulation_steps": trainer.stepper.group.every,
        "clip_norm": trainer.stepper.clip_norm,
        "precision": precision_of(trainer.model),
    }


def _progress_state(trainer: "Trainer") -> dict[str, Any]:
    progress = trainer.progress
    assert progress is not None
    progress.skipped += trainer.stepper.count_skipped()
    source = progress.source
    return {
        **{name: getattr(progress, name) for name in _COUNTS},
        "means": progress.means.state(),
        "source": source.state_dict() if hasattr(source, "state_dict") else None,
    }


def restore_progress(progress: FitProgress, saved: Mapping[str, Any]) -> None:
    """Set a new call of ``fit`` to where the saved one stood.

    Parameters
    ----------
    progress : FitProgress
        Of the new call.
    saved : mapping
        From the file.

    Raises
    ------
    ValueError
        When the data are not those of the saved call.
    """
    if (saved["source"] is None) is hasattr(progress.source, "load_state_dict"):
        raise ValueError(
            "fit goes on with a saved run only from data given in the same way: arrays in both "
            "runs, or an iterable in both"
        )
    if saved["source"] is not None:
        progress.source.load_state_dict(saved["source"])
    for name in _COUNTS:
        setattr(progress, name, saved[name])
    progress.means.restore(saved["means"])


def resume_trainer(trainer: "Trainer", path: str | os.PathLike[str]) -> None:
    """Restore what :func:`save_trainer` wrote; change nothing unless all of it fits."""
    state = read_state(path, like=trainer.model)
    name = os.fspath(path)
    try:
        _check_same(trainer, state)
        _prepare(trainer, state)()
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        raise CheckpointError(f"{name}: cannot be resumed by this trainer: {error}") from error


def _check_same(trainer: "Trainer", state: State) -> None:
    """Refuse a file of another network, loss, optimizer or schedule, and name what differs."""
    if state.training is None:
        raise ValueError("it holds a model and no run; use xbackprop.load, or Trainer.save")
    # What files from before these options did.
    training = {"clip_norm": None, "precision": "float32", **state.training}
    here = {
        "network": trainer.model.config(),
        "optimizer": type(trainer.optimizer).__name__,
        **_identity(trainer),
    }
    saved = {
        "network": state.architecture,
        "optimizer": state.optimizer_type,
        **{key: training[key] for key in _identity(trainer)},
    }
    different = [key for key, value in here.items() if value != saved[key]]
    if different:
        details = "; ".join(f"{key}: saved {saved[key]}, here {here[key]}" for key in different)
        raise ValueError(f"another {', another '.join(different)} ({details})")


def _prepare(trainer: "Trainer", state: State) -> Callable[[], None]:
    """Check everything; return a function that then sets everything."""
    model, training = trainer.model, state.training or {}
    check_state(model, state.model_state, state.extra_state)
    for key, parameter in model.named_parameters():
        saved_dtype = state.model_state[key].dtype
        if saved_dtype != parameter.dtype:
            raise TypeError(f"{key} is {parameter.dtype}, and was saved as {saved_dtype}")
    parameters = dict(model.named_parameters())
    frozen = set(state.frozen)
    if not frozen <= parameters.keys():
        raise ValueError(f"no parameter {sorted(frozen - parameters.keys())[0]!r} to freeze")
    grads = _take(state.arrays, _GRAD)
    for key, values in grads.items():
        if values.shape != parameters[key].shape or values.dtype != parameters[key].dtype:
            raise ValueError(f"the gradient of {key} has shape {values.shape}, {values.dtype}")
    loss_state = _take(state.arrays, _LOSS)
    check_state(trainer.loss_fn, loss_state, {})
    _check_optimizer(trainer.optimizer, state.optimizer_state)
    rows = history_rows(state.arrays)
    counts = [_whole(training[key]) for key in ("steps", "epochs")]
    group = {key: training["group"][key] for key in ("batches", "loss", "weight")}
    _whole(group["batches"])
    if not all(isinstance(value, (int, float)) for value in group.values()):
        raise ValueError("the sums of the unfinished group are damaged")
    _check_progress(training["fit"])
    if trainer.scaler is not None:
        copy.deepcopy(trainer.scaler).load_state_dict(training["scaler"])  # may refuse it

    def restore() -> None:
        if trainer.scheduler is not None:  # first, for only it may still refuse
            trainer.scheduler.load_state_dict(training["scheduler"])
        for key, parameter in parameters.items():
            parameter.requires_grad = key not in frozen
        model.load_state_dict(state.model_state)
        model.load_extra_state(state.extra_state)
        trainer.loss_fn.load_state_dict(loss_state)
        trainer.optimizer.load_state_dict(state.optimizer_state or {})
        model.zero_grad()
        for key, values in grads.items():
            parameters[key].accumulate(to_device(values, parameters[key].device))
        stepper = trainer.stepper
        if trainer.scaler is not None:
            trainer.scaler.load_state_dict(training["scaler"])
        stepper.steps, stepper.epochs = counts
        stepper.group.restore(group)
        trainer.history = rows
        trainer.progress, trainer.resumed_fit = None, training["fit"]

    return restore


def _check_optimizer(optimizer: Optimizer, saved: dict[str, Any] | None) -> None:
    if saved is None:
        raise ValueError("it holds no state of the optimizer")
    optimizer.check_state_dict(saved)


def _check_progress(saved: Any) -> None:
    """Look at the parts that are used only when ``fit`` is called."""
    if saved is None:
        return
    sums = saved["means"]["sums"]
    _whole(saved["means"]["samples"])
    for name in ("epochs", "batches", "skipped"):
        _whole(saved[name])
    numbers = [saved["lr"], saved["seconds"], *(number for number in sums if number is not None)]
    if len(sums) != 4 or not all(type(number) in (int, float) for number in numbers):
        raise ValueError("the sums of the unfinished epoch are damaged")
    if saved["source"] is not None and not isinstance(saved["source"], dict):
        raise ValueError("the place in the data is damaged")


def _whole(number: Any) -> int:
    if type(number) is not int or number < 0:
        raise ValueError(f"expected a count; got {number!r}")
    return number


def _take(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {
        key.removeprefix(prefix): values for key, values in arrays.items() if key.startswith(prefix)
    }
