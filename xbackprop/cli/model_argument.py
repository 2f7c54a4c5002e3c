"""What stands for MODEL on a command line: a run, a file, a kind of network, or code of yours."""

import importlib.util
import itertools
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xbackprop.backend.array_module import is_array
from xbackprop.backend.device import use_device
from xbackprop.backend.transfer import to_host
from xbackprop.cli.choices import MODELS
from xbackprop.cli.datasets import load_split
from xbackprop.cli.errors import FAILED, CommandError
from xbackprop.cli.model_words import WHAT_A_MODEL_IS
from xbackprop.cli.networks import make_network
from xbackprop.cli.options import read_options
from xbackprop.cli.run_folder import CONFIG, MODEL
from xbackprop.cli.tasks import make_task
from xbackprop.module import Module
from xbackprop.training import CheckpointError, load

# Heights and widths of images, likely ones first; the rest up to where all are small.
_SIDES = (8, 28, 32, 16, 64, 224, *(side for side in range(1, 41) if side not in (8, 16, 28, 32)))


@dataclass(frozen=True)
class GivenModel:
    """A model, and inputs that it takes.

    Attributes
    ----------
    name : str
        As it was given.
    model : Module
        On the CPU, as it was built or saved, in training mode.
    inputs : tuple of numpy.ndarray
        One batch: float32 numbers or integers.
    """

    name: str
    model: Module
    inputs: tuple[Any, ...]


def read_model(
    text: str,
    *,
    batch: int = 4,
    length: int | None = None,
    shape: tuple[int, ...] | None = None,
    seed: int = 0,
) -> GivenModel:
    """Build or load the model that a word of the command line stands for.

    Parameters
    ----------
    text : str
        A run folder, a model file, a name of ``--model``, or ``FILE.py:function``. The function
        returns a Module, or a tuple of a Module and its inputs.
    batch : int, default 4
        Samples of the inputs that are made.
    length : int or None
        Most tokens of a sequence; None takes all that the model sees.
    shape : tuple of int or None
        Of one sample; None finds one that the model takes.
    seed : int, default 0
        Of weights and inputs.

    Returns
    -------
    GivenModel

    Raises
    ------
    CommandError
        For what is none of these, cannot be read, or takes no inputs that could be made for it.
    """
    rng = np.random.default_rng(seed)
    with use_device("cpu"):
        found = _built(text, seed)
        model = found[0].train()
        if inputs := found[1:]:
            return GivenModel(text, model, tuple(_on_host(value) for value in inputs))
        return GivenModel(text, model, (_sample_input(text, model, batch, length, shape, rng),))


def _built(text: str, seed: int) -> tuple[Any, ...]:
    """Return the model, with inputs behind it where its author gave some."""
    path, colon, function = text.rpartition(":")
    if colon and path.endswith(".py"):
        return _called(Path(path), function)
    if text in MODELS:
        return (_named(text, seed),)
    place = Path(text)
    if place.is_dir():
        if not (place / MODEL).exists():
            raise CommandError(f"MODEL {text}: a folder without {MODEL}, so it holds no run")
        return (_loaded(place / MODEL),)
    if place.is_file():
        return (_loaded(place),)
    raise CommandError(f"MODEL: expected {WHAT_A_MODEL_IS}; got {text!r}")


def _named(name: str, seed: int) -> Module:
    """Return the network that ``xbackprop train --model NAME`` trains."""
    options = read_options(["--model", name])
    split = load_split(options)
    task = make_task(split, options.loss)
    return make_network(split.x_train.shape[1:], options, task, np.random.default_rng(seed))


def _loaded(path: Path) -> Module:
    try:
        return load(path, device="cpu").model
    except (OSError, CheckpointError) as error:
        reason = str(error).removeprefix(f"{path}: ")
        raise CommandError(f"MODEL {path}: {reason}") from error


def _called(path: Path, function: str) -> tuple[Any, ...]:
    """Run a function of a file; whatever that file raises becomes one line."""
    if not path.is_file():
        raise CommandError(f"MODEL {path}: no such file")
    spec: Any = importlib.util.spec_from_file_location(f"_xbackprop_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickle look for it there
    try:
        spec.loader.exec_module(module)
        build = getattr(module, function, None)
        if not callable(build):
            raise CommandError(f"MODEL {path}:{function}: the file has no function {function!r}")
        result = build()
    except CommandError:
        raise
    except Exception as error:
        raise CommandError(
            f"MODEL {path}:{function}: {type(error).__name__}: {error}", FAILED
        ) from error
    parts = result if isinstance(result, tuple) else (result,)
    if len(parts) == 2 and isinstance(parts[1], tuple) and not hasattr(parts[1], "_fields"):
        parts = (parts[0], *parts[1])
    if not parts or not isinstance(parts[0], Module):
        got = type(parts[0]).__name__ if parts else "nothing"
        raise CommandError(
            f"MODEL {path}:{function}: expected a Module, or a tuple of a Module and its inputs; "
            f"got {got}"
        )
    return parts


def _on_host(value: Any) -> Any:
    return np.array(to_host(value)) if is_array(value) else value


def _sample_input(
    text: str,
    model: Module,
    batch: int,
    length: int | None,
    shape: tuple[int, ...] | None,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return the first of the candidates that the model takes."""
    shapes = _recorded_shape(text) if shape is None else [shape]
    refusal: Exception | None = None
    for candidate in _candidates(model, batch, length, shapes, rng):
        try:
            model.eval()(candidate)
            return candidate
        except (ValueError, TypeError, IndexError) as error:
            refusal = refusal or error
        finally:
            model.train()
    reason = f" ({refusal})" if refusal is not None else ""
    raise CommandError(
        f"MODEL {text}: found no input that it takes{reason}. Give --shape, or let a function "
        "return the model and its inputs: FILE.py:build"
    )


def _recorded_shape(text: str) -> list[tuple[int, ...]]:
    """Return the shape of a run's samples, where its folder says one."""
    try:
        config = json.loads((Path(text) / CONFIG).read_text(encoding="utf-8"))
        return [tuple(int(side) for side in config["data"]["sample_shape"])]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []


def _candidates(
    model: Module,
    batch: int,
    length: int | None,
    shapes: list[tuple[int, ...]],
    rng: np.random.Generator,
) -> Iterator[np.ndarray]:
    first = next((part for part in model.modules() if any(part.own_parameters())), None)
    tokens = getattr(first, "num_embeddings", None)
    if tokens is not None:
        context = getattr(model, "context_length", None) or 8
        for sides in shapes or [(min(context, length or context),)]:
            cut = (min(sides[0], length or sides[0]), *sides[1:])
            yield rng.integers(tokens, size=(batch, *cut))
        return
    for sides in shapes or _shapes_for(first):
        yield rng.normal(size=(batch, *sides)).astype(np.float32)


def _shapes_for(first: Any) -> Iterator[tuple[int, ...]]:
    """Return shapes that the first layer with parameters may be meant for."""
    if hasattr(first, "in_channels") and hasattr(first, "kernel_size"):
        axes = len(first.kernel_size)
        yield from ((first.in_channels, *(side,) * axes) for side in _SIDES)
        return
    width = next(
        (
            int(getattr(first, name))
            for name in ("in_features", "input_size", "num_features")
            if hasattr(first, name)
        ),
        8,
    )
    yield (width,)
    if isinstance(getattr(first, "normalized_shape", None), tuple):
        yield first.normalized_shape
    features = getattr(first, "embed_dim", width)
    yield from itertools.chain([(5, features)], ((width, side, side + 1) for side in (5, 8)))
