"""``xbackprop explain --model``: what a trained network makes of one sample, layer by layer."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xbackprop import nn
from xbackprop.cli.datasets import TextSplit, data_config, find_change, load_split
from xbackprop.cli.errors import CommandError
from xbackprop.cli.explain_options import OF_BARE_MODEL, ExplainOptions
from xbackprop.cli.options import options_of_run
from xbackprop.cli.run_folder import CONFIG, MODEL, read_config
from xbackprop.cli.scaling import Scaling
from xbackprop.cli.tasks import Task, make_task
from xbackprop.observe import Survey, survey
from xbackprop.observe.explanation import plain
from xbackprop.observe.render import escaped
from xbackprop.observe.wording import phrase
from xbackprop.training import CheckpointError, load

_FORMATS = ("text", "markdown", "latex", "json")


@dataclass(frozen=True, eq=False)
class _Sample:
    """A batch of one sample, as network and loss take it.

    Attributes
    ----------
    x, y : numpy.ndarray
        Input and target.
    loss : Module
        Of the run.
    about : dict
        Plain data: ``number`` and ``data``, or nothing for a sample that was given.
    task, split : Task, Split or None
        Of the run.
    y_scaling : Scaling or None
        From the network's output to the target's own units.
    """

    x: np.ndarray
    y: np.ndarray
    loss: nn.Module
    about: dict[str, Any]
    task: Task | None = None
    split: Any = None
    y_scaling: Scaling | None = None


def explain_model(options: ExplainOptions) -> str:
    """Return what is printed about a trained network on one sample.

    Parameters
    ----------
    options : ExplainOptions
        With ``model``.

    Returns
    -------
    str

    Raises
    ------
    CommandError
        For a model, run, data or sample that cannot be had, or do not fit each other.
    """
    if options.format not in _FORMATS:
        raise CommandError(
            f"--format {options.format}: with --model expected one of {', '.join(_FORMATS)}"
        )
    file, folder = _find(Path(options.model or ""))
    model, counters = _load(file)
    sample = _given(options, model) if folder is None else _of_run(options, folder, model, counters)
    try:
        told = survey(model, sample.loss, sample.x, sample.y)
    except (ValueError, TypeError, IndexError, NotImplementedError) as error:
        raise CommandError(f"--model {options.model}: {error}") from error
    about = {**sample.about, **_answers(sample, told)}
    if options.format == "json":
        return json.dumps({"sample": about, **told.as_dict()}, indent=2, allow_nan=False)
    write = {"text": told.to_text, "markdown": told.to_markdown, "latex": told.to_latex}
    text = write[options.format](options.lang)
    return f"{_headline(about, options)}\n\n{text}"


def _find(path: Path) -> tuple[Path, Path | None]:
    """Return the model file, and the run folder where there is one."""
    if path.is_dir():
        return path / MODEL, path
    for folder in (path.parent, path.parent.parent):  # the latter of a checkpoint
        if (folder / CONFIG).is_file():
            return path, folder
    return path, None


def _load(file: Path) -> tuple[nn.Module, dict[str, Any]]:
    try:
        loaded = load(file)
    except FileNotFoundError as error:
        raise CommandError(
            f"--model {file}: no such file. Expected a run folder of `xbackprop train`, or a "
            "model file"
        ) from error
    except (CheckpointError, OSError) as error:
        raise CommandError(f"--model: {error}") from error
    return loaded.model, loaded.counters


def _of_run(
    options: ExplainOptions, folder: Path, model: nn.Module, counters: dict[str, Any]
) -> _Sample:
    for name in OF_BARE_MODEL:
        if getattr(options, name) is not None:
            raise CommandError(f"--{name}: {folder} is a run, whose data is used. Use --sample N")
    config = read_config(folder, "--model")
    if config.get("architecture") != model.config():
        raise CommandError(
            f"--model: the network in {options.model} is not the one that {folder / CONFIG} "
            "describes. Expected a model of this run"
        )
    request = options_of_run(folder, config, "--model")
    try:
        split = load_split(request)
    except CommandError as error:
        raise CommandError(f"--model {folder}: its data: {error}") from error
    changed = find_change(config.get("data", {}), data_config(split, request.data))
    if changed:
        raise CommandError(f"--model {folder}: its data {request.data} has changed: {changed}")
    number = options.sample or 0
    if number >= len(split.x_test):
        raise CommandError(
            f"--sample: expected a number from 0 to {len(split.x_test) - 1}, as the test part of "
            f"{split.name} has; got {number}"
        )
    task = make_task(split, request.loss)
    x, y = split.x_test[[number]], split.y_test[[number]]
    saved = counters.get("standardize") or {}
    x_scaling, y_scaling = (Scaling.from_dict(saved.get(key)) for key in ("x", "y"))
    x = x if x_scaling is None else x_scaling.apply(x)
    y = task.encode(y if y_scaling is None else y_scaling.apply(y))
    about = {"number": number, "data": split.name}
    return _Sample(x, y, task.make_loss(), about, task, split, y_scaling)


def _given(options: ExplainOptions, model: nn.Module) -> _Sample:
    """Return the sample of the command line, for a model that belongs to no run."""
    inputs, target, loss = options.inputs, options.target, options.loss
    if options.sample is not None or inputs is None or target is None or loss is None:
        raise CommandError(
            f"--model {options.model}: belongs to no run, which would have data. Give the sample "
            f"by {', '.join(f'--{name}' for name in OF_BARE_MODEL)}, or name a run folder"
        )
    has_sigmoid = isinstance(list(model.modules())[-1], nn.Sigmoid)
    y = np.array([target])
    if loss == "cross_entropy":
        if len(target) != 1 or target[0] < 0 or target[0] != int(target[0]):
            raise CommandError(f"--target: expected a class from 0 on for {loss}")
        y = np.array([int(target[0])])
    elif loss == "bce" and not all(0 <= number <= 1 for number in target):
        raise CommandError(f"--target: expected numbers from 0 to 1 for {loss}")
    about: dict[str, Any] = {}
    return _Sample(
        np.array([inputs]), y, make_loss(loss, "sigmoid" if has_sigmoid else "linear"), about
    )


def make_loss(name: str | None, output: str) -> nn.Module:
    """Return a loss of ``xbackprop explain``; ``bce`` of a linear output takes it as a logit."""
    if name == "bce":
        return nn.BCELoss() if output == "sigmoid" else nn.BCEWithLogitsLoss()
    losses = {"mse": nn.MSELoss, "cross_entropy": nn.CrossEntropyLoss}
    return losses.get(name or "", nn.HalfSquaredError)()


def _answers(sample: _Sample, told: Survey) -> dict[str, Any]:
    """Return target and prediction as one reads them."""
    split, task, output = sample.split, sample.task, told.output
    if split is None or task is None:
        found: tuple[Any, Any] = (sample.y[0].tolist(), output[0].tolist())
    elif isinstance(split, TextSplit):  # what follows the last token
        ids = (sample.y[0, -1:], np.asarray(task.decode(output))[0, -1:])
        found = (split.tokenizer.decode(ids[0]), split.tokenizer.decode(ids[1]))
    elif task.num_classes is None:
        own = output if sample.y_scaling is None else sample.y_scaling.undo(output)
        found = (split.y_test[sample.about["number"]].tolist(), own[0].tolist())
    else:
        names = split.classes or range(task.num_classes)
        classes = (split.y_test[sample.about["number"]], task.decode(output)[0])
        found = (str(names[int(classes[0])]), str(names[int(classes[1])]))
    return {"target": plain(found[0]), "prediction": plain(found[1])}


def _headline(about: dict[str, Any], options: ExplainOptions) -> str:
    """Return which sample it is, what is right, and what the network says."""
    lang = options.lang
    first = phrase("sample_given", lang)
    if "number" in about:
        first = phrase("sample_of_run", lang, about["number"], about["data"])
    answers = (_shown(about[key]) for key in ("target", "prediction"))
    line = phrase("sample_answers", lang, first, *answers)
    forms = {"text": line, "markdown": f"# {line}", "latex": rf"\part*{{{escaped(line)}}}"}
    return forms[options.format]


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return value if value.isprintable() and value.strip() else repr(value)
    numbers = value if isinstance(value, list) else [value]
    return ", ".join(number if isinstance(number, str) else f"{number:.6g}" for number in numbers)
