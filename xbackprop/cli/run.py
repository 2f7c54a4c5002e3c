"""A run before it starts: data, network, optimizer and folder, and what would repeat it."""

import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import xbackprop
from xbackprop.backend.device import DeviceChoice
from xbackprop.cli.choices import has_meaning
from xbackprop.cli.datasets import NAMES, TextSplit, data_config, describe_split
from xbackprop.cli.devices import describe_device
from xbackprop.cli.errors import CommandError
from xbackprop.cli.networks import (
    describe_network,
    find_warmup,
    make_network,
    make_optimizer,
    make_schedule,
    refuse_single_samples,
)
from xbackprop.cli.options import TrainOptions
from xbackprop.cli.run_folder import CHECKPOINTS, make_run_folder, write_config
from xbackprop.cli.scaling import Scaling, measure_scaling, reaches_too_far
from xbackprop.cli.tasks import Task, make_task
from xbackprop.data import Split
from xbackprop.data.columns import TableSplit
from xbackprop.module import Module, set_precision
from xbackprop.training import CheckpointFolder, Trainer
from xbackprop.training.sharding import check_shards

_NO_SETTINGS = ("out", "quiet", "resume", "device_asked_by", "detect_anomaly")
CONFIG_VERSION = 1  # grows when a key is renamed or removed, not when one is added


@dataclass(frozen=True, eq=False)
class Run:
    """Everything that a run works with.

    Attributes
    ----------
    options : TrainOptions
        The request, completed: loss, learning rate and device are those that are used.
    choice : DeviceChoice
        The device, and why.
    split : Split
        The data in its own units.
    task : Task
        What the loss makes of the data.
    trainer : Trainer
        With network, loss and optimizer.
    rng : numpy.random.Generator
        Draws the order of the samples.
    folder : Path
        The run folder.
    checkpoints : CheckpointFolder
        In it.
    x_scaling, y_scaling : Scaling or None
        How inputs and targets are scaled.
    """

    options: TrainOptions
    choice: DeviceChoice
    split: Split
    task: Task
    trainer: Trainer
    rng: np.random.Generator
    folder: Path
    checkpoints: CheckpointFolder
    x_scaling: Scaling | None
    y_scaling: Scaling | None

    def inputs(self, x: np.ndarray) -> np.ndarray:
        """Return inputs as the network sees them."""
        return x if self.x_scaling is None else self.x_scaling.apply(x)

    def targets(self, y: np.ndarray) -> np.ndarray:
        """Return targets as the loss sees them."""
        return self.task.encode(y if self.y_scaling is None else self.y_scaling.apply(y))

    def scaling_config(self) -> dict[str, Any] | None:
        """Return the scaling as plain data, for those who use the model later."""
        scalings = {"x": self.x_scaling, "y": self.y_scaling}
        plain = {key: None if one is None else one.as_dict() for key, one in scalings.items()}
        return plain if any(plain.values()) else None

    def table_config(self) -> dict[str, Any]:
        """Return what predictions for other tables need, as plain data."""
        split, options = self.split, self.options
        target = (options.target,) if options.target else ()
        learned = split.preprocessing.config() if isinstance(split, TableSplit) else None
        return {
            "features": list(split.feature_names),
            "targets": list(split.targets if isinstance(split, TableSplit) else target),
            "classes": None if split.classes is None else list(split.classes),
            "outputs": self.task.outputs,
            "loss": self.task.loss_name,
            "sample_shape": list(split.x_train.shape[1:]),
            "preprocessing": learned,
        }


def prepare_run(options: TrainOptions, choice: DeviceChoice, split: Split) -> Run:
    """Set everything up on the default device, and create the run folder last.

    Parameters
    ----------
    options : TrainOptions
        The request.
    choice : DeviceChoice
        The default device, and why it is.
    split : Split
        The data.

    Returns
    -------
    Run

    Raises
    ------
    CommandError
        For what cannot be combined or created.
    """
    run = build_run(options, choice, split, lambda: make_run_folder(options.out, split.name))
    write_config(run.folder, make_config(run))
    return run


def build_run(
    options: TrainOptions, choice: DeviceChoice, split: Split, find_folder: Callable[[], Path]
) -> Run:
    """Set everything up in memory, and ask for the folder last.

    Parameters
    ----------
    options, choice, split
        As for :func:`prepare_run`.
    find_folder : callable
        Returns the run folder.

    Returns
    -------
    Run
    """
    task = make_task(split, options.loss)
    refuse_single_samples(split, options)
    options = replace(options, warmup=find_warmup(options, len(split.x_train)))
    weights_rng, order_rng = np.random.default_rng(options.seed).spawn(2)
    model = make_network(split.x_train.shape[1:], options, task, weights_rng)
    _set_precision(model, options.precision)
    loss_fn = task.make_loss()
    _check_shards(model, loss_fn, options)
    optimizer = make_optimizer(model, options, task)
    lr = float(optimizer.param_groups[0]["lr"])  # a schedule that rises begins with less
    trainer = Trainer(
        model,
        loss_fn,
        optimizer,
        scheduler=make_schedule(optimizer, options, len(split.x_train)),
        scheduler_interval="step",
        accumulation_steps=options.accumulate,
        clip_norm=options.clip_norm,
        shards=options.shards,
        graph=options.graph,
        on_nan=options.on_nan,
        count_correct=None if task.num_classes is None else task.count_correct,
    )
    used: dict[str, Any] = {
        "data": options.data if options.data in NAMES else str(Path(options.data).resolve()),
        "loss": task.loss_name,
        "lr": lr,
        "device": str(choice.device),
    }
    is_table = isinstance(split, TableSplit)
    if is_table:
        used["regression"] = task.num_classes is None
        used["task"] = "regression" if task.num_classes is None else "classification"
    scales_target = task.num_classes is None and (is_table or options.standardize)
    folder = find_folder()
    return Run(
        options=replace(options, **used),
        choice=choice,
        split=split,
        task=task,
        trainer=trainer,
        rng=order_rng,
        folder=folder,
        checkpoints=CheckpointFolder(folder / CHECKPOINTS, keep=options.keep),
        x_scaling=measure_scaling(split.x_train) if options.standardize else None,
        y_scaling=measure_scaling(split.y_train) if scales_target else None,
    )


def make_config(run: Run) -> dict[str, Any]:
    """Return what is needed to repeat a run, as plain data.

    Parameters
    ----------
    run : Run
        The run.

    Returns
    -------
    dict
        ``command`` is the command line that does the same, with nothing left to defaults.
    """
    options, choice, trainer = run.options, run.choice, run.trainer
    versions = {
        "xbackprop": xbackprop.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "safetensors": version("safetensors"),
    }
    if choice.device.kind == "cuda":
        versions["cupy"] = choice.device.xp.__version__
    plain_options = {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in asdict(options).items()
        if key not in (*_NO_SETTINGS, "seed")
    }
    return {
        "config_version": CONFIG_VERSION,
        "command": make_command(options),
        "arguments": plain_options,
        "seed": options.seed,
        "device": {
            "device": str(choice.device),
            "asked": choice.asked,
            "asked_by": choice.asked_by,
            "reason": choice.reason,
        },
        "versions": versions,
        "platform": platform.platform(),
        "data": data_config(run.split, options.data),
        "standardize": run.scaling_config(),
        "architecture": trainer.model.config(),
        "parameters": count_parameters(run),
        "loss": trainer.loss_fn.config(),
        "optimizer": {
            "type": type(trainer.optimizer).__name__,
            **{
                key: list(value) if isinstance(value, tuple) else value
                for key, value in trainer.optimizer.param_groups[0].items()
                if key != "params"
            },
            "lr": options.lr,
        },
    }


def make_command(options: TrainOptions) -> list[str]:
    """Return the words of a command line for a request, defaults included.

    Parameters
    ----------
    options : TrainOptions
        The request; where its results go is left out.

    Returns
    -------
    list of str
    """
    words = ["xbackprop", "train"]
    for name, value in asdict(options).items():
        option = "--" + name.replace("_", "-")
        if name in _NO_SETTINGS or value is None or value is False:
            continue
        if not has_meaning(name, options.model):
            continue
        if value is True:
            words.append(option)
        else:
            text = ",".join(map(str, value)) or "none" if isinstance(value, tuple) else value
            words.append(f"{option}={text}")
    return words


def _set_precision(model: Module, precision: str) -> None:
    """Let the network compute in what was asked for, or end with what stands in the way."""
    try:
        set_precision(model, precision)
    except (ImportError, NotImplementedError) as error:
        raise CommandError(f"--precision {precision}: {error}") from error


def _check_shards(model: Module, loss_fn: Module, options: TrainOptions) -> None:
    """End with what stands in the way of cutting each batch, as it was asked for."""
    asked = f"--shards {options.shards}"
    watching = {
        "--record-statistics": options.record_statistics is not None,
        "--detect-anomaly": options.detect_anomaly,
    }
    for name in (name for name, is_asked in watching.items() if is_asked and options.shards > 1):
        raise CommandError(f"{asked}: {name} looks at whole batches. Leave it out, or --shards 1")
    try:
        check_shards(model, loss_fn, options.shards)
    except (ImportError, NotImplementedError) as error:
        raise CommandError(f"{asked}: {error}") from error


def describe_run(run: Run) -> list[str]:
    """Return what a run is going to do, in a few lines."""
    options = run.options
    network = describe_network(run.split.x_train.shape[1:], options, run.task)
    lines = [
        f"data      {describe_split(run.split)}",
        f"network   {network} ({count_parameters(run):,} parameters)",
        f"training  {options.loss}, {options.optimizer} with {_describe_rate(options)}, "
        f"batches of {_describe_batch(options)}, {options.epochs} epochs, seed {options.seed}",
        f"device    {describe_device(run.choice)}",
    ]
    split = run.split
    if isinstance(split, TableSplit):
        lines[1:1] = _describe_table(split)
    if options.precision != "float32":
        lines.append(f"precision {options.precision}")
    is_plain = not options.standardize and not isinstance(split, (TextSplit, TableSplit))
    hint = _describe_scale(run) if is_plain else None
    return [*lines, f"hint      {hint}; --standardize brings it to 1"] if hint else lines


def _describe_table(split: TableSplit) -> list[str]:
    columns = split.preprocessing.columns
    numbers = [column for column in columns if column.categories is None]
    texts = [
        f"{column.name}: {len(column.categories)}"
        for column in columns
        if column.categories is not None
    ]
    kinds = [f"{len(numbers)} of numbers"] if numbers else []
    kinds += [f"{len(texts)} of texts ({', '.join(texts[:8])}{', …' * (len(texts) > 8)})"] * bool(
        texts
    )
    task = "regression" if split.classes is None else "classification"
    other = "classification" if split.classes is None else "regression"
    lines = [f"columns   {' and '.join(kinds)}"]
    if split.reason:
        choice = "" if "texts" in split.reason else f"; --task {other} says otherwise"
        lines.append(f"task      {task}, since {split.reason}{choice}")
    return [*lines, *(f"note      {note}" for note in split.notes)]


def _describe_rate(options: TrainOptions) -> str:
    rate = f"learning rate {options.lr:g}"
    if options.schedule != "constant":
        rate += f" down to 0 by {options.schedule}"
    return f"{rate} after {options.warmup} updates that raise it" if options.warmup else rate


def _describe_batch(options: TrainOptions) -> str:
    groups = "" if options.accumulate == 1 else f"{options.accumulate} x "
    shards = "" if options.shards == 1 else f", each in {options.shards} shards"
    return f"{groups}{options.batch_size}{shards}"


def _describe_scale(run: Run) -> str | None:
    """Return what is badly scaled about the data, as a table in its own units often is."""
    values = {"features": run.split.x_train}
    if run.options.regression:
        values["target"] = run.split.y_train
    largest = {name: reaches_too_far(array) for name, array in values.items()}
    parts = [f"{name} of size {size:,.4g}" for name, size in largest.items() if size is not None]
    return f"{' and '.join(parts)} may train badly" if parts else None


def count_parameters(run: Run) -> int:
    """Return how many numbers the network learns."""
    return int(sum(np.prod(parameter.shape) for parameter in run.trainer.model.parameters()))
