"""Saving and loading: one file with the architecture in its header, and nothing to execute.

What stands where is said in ``sections``, the file format in ``container``.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from xbackprop import nn
from xbackprop.backend.device import Device, resolve_device
from xbackprop.module.config import check_paths
from xbackprop.optim import Optimizer
from xbackprop.training.assembly import assemble, compare
from xbackprop.training.container import CheckpointError, open_container, write
from xbackprop.training.sections import (
    EXTRA,
    TRAINING,
    check_training_size,
    read_sections,
    refuse_clashes,
    split_optimizer,
)

__all__ = ["Checkpoint", "CheckpointError", "State", "load", "read_state", "save", "save_state"]


@dataclass
class Checkpoint:
    """What a file held.

    Attributes
    ----------
    model : Module
        Rebuilt, with its values, dtypes, random counters and frozen parameters.
    optimizer_state : dict or None
        For ``Optimizer.load_state_dict``.
    optimizer_type : str or None
        Class name of the optimizer that was saved.
    counters : dict
        Plain data: steps, epochs and whatever else was saved with the model.
    """

    model: nn.Module
    optimizer_state: dict[str, Any] | None = None
    optimizer_type: str | None = None
    counters: dict[str, Any] = field(default_factory=dict)


@dataclass
class State:
    """What a file held, as plain data and host arrays; no model was built.

    Attributes
    ----------
    model_state, extra_state : dict of str to numpy.ndarray
        For ``Module.load_state_dict`` and ``Module.load_extra_state``.
    architecture : dict
        For ``from_config``.
    frozen : list of str
        Paths of the parameters that are not trained.
    optimizer_state, optimizer_type, counters
        See :class:`Checkpoint`.
    training : dict or None
        Plain data of the training run that wrote the file.
    arrays : dict of str to numpy.ndarray
        Its arrays.
    """

    model_state: dict[str, np.ndarray]
    extra_state: dict[str, np.ndarray]
    architecture: dict[str, Any]
    frozen: list[str]
    optimizer_state: dict[str, Any] | None
    optimizer_type: str | None
    counters: dict[str, Any]
    training: dict[str, Any] | None
    arrays: dict[str, np.ndarray]


def save(
    path: str | os.PathLike[str],
    model: nn.Module,
    optimizer: Optimizer | None = None,
    *,
    counters: dict[str, Any] | None = None,
) -> None:
    """Write a model, and what its training needs, into one file.

    Parameters
    ----------
    path : path
        Where to; an existing file is replaced in one move, never half-written.
    model : Module
        Its architecture must be expressible by ``config()``.
    optimizer : Optimizer, optional
        Its state is written as well.
    counters : dict, optional
        Plain data (JSON).

    Raises
    ------
    OSError
        When the disk refuses; names ``path``. The old file is then still whole.
    TypeError
        When the architecture or ``counters`` cannot be written as plain data.
    ValueError
        When no reader would take the file: its header would be too long or too deep.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> import xbackprop as xb
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "model.safetensors"
    >>> xb.save(path, xb.nn.Linear(2, 1, rng=0))
    >>> xb.load(path).model
    Linear(2, 1, bias=True)
    """
    _write(path, model, optimizer, {"counters": counters or {}}, {})


def save_state(
    path: str | os.PathLike[str],
    model: nn.Module,
    optimizer: Optimizer | None,
    *,
    counters: dict[str, Any],
    training: dict[str, Any],
    arrays: Mapping[str, np.ndarray],
) -> None:
    """Write what :func:`save` does, and what a training run needs to go on.

    Parameters
    ----------
    path, model, optimizer, counters
        See :func:`save`.
    training : dict
        Plain data (JSON); :func:`load` passes over it.
    arrays : mapping of str to numpy.ndarray
        Beside it; in bytes at most four times the model and 256 MiB.

    Raises
    ------
    OSError, TypeError, ValueError
        As :func:`save`; ValueError also for larger arrays.
    """
    _write(path, model, optimizer, {"counters": counters, "training": training}, arrays)


def load(
    path: str | os.PathLike[str],
    *,
    types: Iterable[type[nn.Module]] = (),
    device: str | Device | None = None,
) -> Checkpoint:
    """Read a file that :func:`save` wrote.

    Parameters
    ----------
    path : path
        The file. It may come from anywhere: nothing in it is executed, and memory is taken only
        for tensors that fit the architecture and are in the file.
    types : iterable of Module subclasses
        Your own classes that the architecture may name; no others are ever made. Their
        constructors get arguments out of the file, and layers without initial values: see
        :func:`xbackprop.initializers.placeholders`.
    device : str or Device, optional
        Where the model shall live; None is the default device.

    Returns
    -------
    Checkpoint

    Raises
    ------
    CheckpointError
        When the file is not a checkpoint, is damaged, or has a newer format.
    OSError
        When it cannot be opened or read, such as FileNotFoundError.
    """
    place = resolve_device(device)
    with open_container(path) as file:
        sections = read_sections(file)
        model = assemble(sections, types, place)
        optimizer_state = sections.read_optimizer()
        for key in sections.keys[TRAINING]:  # of no use here, but a damaged file is a damaged file
            file.verify(key)
    optimizer_type = None if sections.optimizer is None else sections.optimizer["type"]
    return Checkpoint(model, optimizer_state, optimizer_type, sections.counters)


def read_state(path: str | os.PathLike[str], *, like: nn.Module | None = None) -> State:
    """Read a file that :func:`save` or :func:`save_state` wrote, without building its model.

    Parameters
    ----------
    path : path
        The file.
    like : Module, optional
        The model that the state is for: a file whose tensors do not fit it is refused before they
        are read. Without one, tensors take the memory that the file says.

    Returns
    -------
    State

    Raises
    ------
    CheckpointError, OSError
        As :func:`load`.
    """
    with open_container(path) as file:
        sections = read_sections(file)
        if like is not None:
            try:
                compare(like, sections)
            except ValueError as error:
                raise file.refusal(f"is of another model: {error}") from error
        return State(
            model_state=sections.read(""),
            extra_state=sections.read(EXTRA),
            architecture=sections.architecture,
            frozen=sections.frozen,
            optimizer_state=sections.read_optimizer(),
            optimizer_type=None if sections.optimizer is None else sections.optimizer["type"],
            counters=sections.counters,
            training=sections.training,
            arrays=sections.read(TRAINING),
        )


def _write(
    path: str | os.PathLike[str],
    model: nn.Module,
    optimizer: Optimizer | None,
    entries: dict[str, Any],
    arrays: Mapping[str, np.ndarray],
) -> None:
    check_paths(model)
    tensors = model.state_dict()
    check_training_size(
        [array.nbytes for array in tensors.values()], [array.nbytes for array in arrays.values()]
    )
    refuse_clashes(list(tensors))
    tensors |= {EXTRA + key: array for key, array in model.extra_state().items()}
    tensors |= {TRAINING + key: array for key, array in arrays.items()}
    header: dict[str, Any] = {
        "architecture": model.config(),
        "frozen": [path for path, p in model.named_parameters() if not p.requires_grad],
        **entries,
    }
    if optimizer is not None:
        header["optimizer"], more = split_optimizer(optimizer, model)
        tensors |= more
    write(path, tensors, header)
