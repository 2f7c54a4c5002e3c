"""Saving and loading: one safetensors file with the architecture in its header, written whole.

Format version 1. Tensors: the model's ``state_dict`` under PyTorch's own keys, then
``extra:<key>`` (random counters) and ``optimizer:<number>:<name>``. The header's metadata holds
``format = "xbackprop"`` and one JSON text ``xbackprop`` with ``format_version, architecture, dtype,
optimizer, counters``. Nothing in a file is ever executed.
"""

import contextlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from xbackprop import nn
from xbackprop.backend.device import Device
from xbackprop.backend.transfer import to_host
from xbackprop.optim import Optimizer

FORMAT_VERSION = 1


class CheckpointError(ValueError):
    """A file that is no checkpoint, or not one that this version can read."""


@dataclass
class Checkpoint:
    """What a file held.

    Attributes
    ----------
    model : Module
        Rebuilt, with its values and random counters.
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
    tensors |= {f"extra:{key}": array for key, array in model.extra_state().items()}
    header: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "architecture": model.config(),
        "dtype": None if model.dtype is None else str(model.dtype),
        "counters": counters or {},
    }
    if optimizer is not None:
        header["optimizer"] = _split_optimizer(optimizer, tensors)
    # safetensors writes a Fortran-ordered or strided array in the wrong order, silently.
    contiguous = {key: np.array(to_host(a), order="C", copy=True) for key, a in tensors.items()}
    metadata = {"format": "xbackprop", "xbackprop": json.dumps(header)}
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
        if header["dtype"] is not None:
            model.to(dtype=header["dtype"])
        optimizer_state = _join_optimizer(header.get("optimizer"), tensors)
        extra = _take_prefix(tensors, "extra:")
        model.load_state_dict(tensors)
        model.load_extra_state(extra)
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
                    f"{name}: format version {version}; this xbackprop reads {FORMAT_VERSION}"
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
                tensors[f"optimizer:{number}:{name}"] = value
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
    arrays = _take_prefix(tensors, "optimizer:")
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


@contextlib.contextmanager
def write_atomically(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Open a file that appears under its name only when it is whole and on the disk."""
    target = Path(path)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    _sync_folder(target.parent)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable, where the platform can open folders."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
