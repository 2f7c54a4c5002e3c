"""Saving and loading: one safetensors file with the architecture in its header, written whole.

Format version 1. Tensors: the model's ``state_dict`` under PyTorch's own keys, then
``extra:<key>`` (random counters) and ``optimizer:<number>:<name>``. The header's metadata holds
``format = "xbackprop"`` and one JSON text ``xbackprop`` with ``format_version, architecture, frozen
(paths of parameters), optimizer, counters``. Nothing in a file is ever executed.
"""

import contextlib
import json
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from xbackprop import nn
from xbackprop.backend.device import Device, device_of
from xbackprop.initializers import float_dtype
from xbackprop.optim import Optimizer

FORMAT_VERSION = 1
_EXTRA, _OPTIMIZER = "extra:", "optimizer:"


class CheckpointError(ValueError):
    """A file that is no checkpoint, or not one that this version can read."""


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
        When the disk refuses; the old file is then still whole.
    TypeError
        When the architecture or ``counters`` cannot be written as plain data.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> import xbackprop as xb
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "model.safetensors"
    >>> xb.save(path, xb.nn.Linear(2, 1, rng=0))
    >>> xb.load(path).model
    Linear(2, 1, bias=True)
    """
    from safetensors.numpy import save as serialize

    tensors = dict(model.state_dict())
    clashing = [key for key in tensors if key.startswith((_EXTRA, _OPTIMIZER))]
    if clashing:
        raise ValueError(f"save: rename the layer of {clashing[0]!r}; files use that beginning")
    tensors |= {_EXTRA + key: array for key, array in model.extra_state().items()}
    header: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "architecture": model.config(),
        "frozen": [path for path, p in model.named_parameters() if not p.requires_grad],
        "counters": counters or {},
    }
    if optimizer is not None:
        header["optimizer"] = _split_optimizer(optimizer, tensors)
    # safetensors writes a Fortran-ordered or strided array in the wrong order, silently.
    contiguous = {key: np.asarray(array, order="C") for key, array in tensors.items()}
    metadata = {"format": "xbackprop", "xbackprop": json.dumps(header, default=_plain)}
    blob = serialize(contiguous, metadata)
    with write_atomically(path) as file:
        file.write(blob)


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
        The file.
    types : iterable of Module subclasses
        Your own classes that the architecture may name; no others are ever made.
    device : str or Device, optional
        Where the model shall live; None is the default device.

    Returns
    -------
    Checkpoint

    Raises
    ------
    CheckpointError
        When the file is not a checkpoint, is damaged, or has a newer format.
    FileNotFoundError
        When there is no such file.
    """
    tensors, header = _read(path)
    try:
        model = nn.from_config(header["architecture"], types=types)
        optimizer_state = _join_optimizer(header.get("optimizer"), tensors)
        extra = _take_prefix(tensors, _EXTRA)
        _take_dtypes(model, tensors)
        model.load_state_dict(tensors)
        model.load_extra_state(extra)
        parameters = dict(model.named_parameters())
        for name in header["frozen"]:
            parameters[name].requires_grad = False
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise CheckpointError(f"{os.fspath(path)}: does not describe a model: {error}") from error
    if device is not None:
        model.to(device)
    optimizer_type = (header.get("optimizer") or {}).get("type")
    return Checkpoint(model, optimizer_state, optimizer_type, header.get("counters") or {})


def _read(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    name = os.fspath(path)
    if not os.path.isfile(name):
        raise FileNotFoundError(f"no such file: {name}")
    try:
        with safe_open(name, framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != "xbackprop":
                raise CheckpointError(f"{name}: a safetensors file, but not one of xbackprop")
            header = json.loads(metadata["xbackprop"])
            version = header["format_version"]
            if version != FORMAT_VERSION:
                raise CheckpointError(
                    f"{name}: format version {version}; this xbackprop reads version "
                    f"{FORMAT_VERSION}. Read it with the release that wrote it, or a later one."
                )
            return {key: file.get_tensor(key) for key in file.keys()}, header  # noqa: SIM118
    except (SafetensorError, json.JSONDecodeError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{name}: not a readable checkpoint: {error}") from error


def _split_optimizer(optimizer: Optimizer, tensors: dict[str, np.ndarray]) -> dict[str, Any]:
    """Put the optimizer's arrays beside the model's and return the plain rest."""
    state = optimizer.state_dict()
    plain: dict[str, dict[str, Any]] = {}
    for number, entry in state["state"].items():
        for name, value in entry.items():
            if isinstance(value, np.ndarray):
                tensors[f"{_OPTIMIZER}{number}:{name}"] = value
            else:
                plain.setdefault(str(number), {})[name] = value
    return {
        "type": type(optimizer).__name__,
        "param_groups": state["param_groups"],
        "state": plain,
    }


def _join_optimizer(
    plain: dict[str, Any] | None, tensors: dict[str, np.ndarray]
) -> dict[str, Any] | None:
    arrays = _take_prefix(tensors, _OPTIMIZER)
    if plain is None:
        return None
    state: dict[int, dict[str, Any]] = {
        int(number): dict(entry) for number, entry in plain["state"].items()
    }
    for key, array in arrays.items():
        number, _, name = key.partition(":")
        state.setdefault(int(number), {})[name] = array
    return {"state": state, "param_groups": plain["param_groups"]}


def _take_prefix(tensors: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    keys = [key for key in tensors if key.startswith(prefix)]
    return {key.removeprefix(prefix): tensors.pop(key) for key in keys}


def _take_dtypes(model: nn.Module, tensors: Mapping[str, np.ndarray]) -> None:
    """Give parameters and float buffers the dtype they were saved with, each its own."""
    for path, module in model.named_modules():
        start = f"{path}." if path else ""
        for name, parameter in module.own_parameters():
            if start + name in tensors:
                parameter.to(dtype=float_dtype(tensors[start + name].dtype))
        for name, array in list(module.own_buffers(persistent=True)):
            saved = tensors.get(start + name)
            if saved is not None and saved.dtype.kind == array.dtype.kind == "f":
                with device_of(array).activate():
                    module.register_buffer(name, array.astype(saved.dtype, copy=False))


def _plain(value: Any) -> Any:
    """Write NumPy's numbers as JSON's."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(
        f"save: cannot write {type(value).__name__} as plain data (JSON): {value!r}. "
        "Give numbers, text, lists and dicts."
    )


@contextlib.contextmanager
def write_atomically(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Open a file that appears under its name only when it is whole and on the disk."""
    target = Path(path)
    if not target.parent.is_dir():
        raise FileNotFoundError(f"no such folder: {target.parent}")
    # Beside the target, for a rename cannot cross file systems. "x": never another's file, and made
    # with the permissions that the process gives to new files.
    temporary = target.parent / f".xbackprop-{secrets.token_hex(8)}.tmp"
    file = open(temporary, "xb")  # noqa: SIM115  (closed below, before the rename)
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable, where the platform can open folders and sync them."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # the new file is whole and in its place already
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
