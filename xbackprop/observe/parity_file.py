"""What the ops of a network gave on a device, in a file: recorded beside a GPU, checked without."""

import hashlib
import math
import os
import sys
from typing import Any

import numpy as np

from xbackprop.backend.device import CPU, Device, resolve_device
from xbackprop.dispatch import Op, registered_ops
from xbackprop.initializers import RandomSource, as_generator
from xbackprop.module import Module
from xbackprop.observe.parity import (
    OWN_TOLERANCE,
    OpParity,
    Parity,
    Reference,
    judged,
    measure,
    own_error,
    run_op,
)
from xbackprop.observe.tape import Taped
from xbackprop.training.container import CheckpointError, Container, open_container, write

_KIND = "parity recording"


def record_parity(
    path: str | os.PathLike[str],
    model: Module,
    *inputs: Any,
    device: str | Device | None = None,
    dtype: str = "float32",
    rng: RandomSource = 0,
) -> list[str]:
    """Run a network forward and backward on a device, and write down every op of it.

    Parameters
    ----------
    path : path
        The file; an existing one is replaced.
    model : Module
        Stays as it is.
    *inputs : array
        One batch, as ``forward`` takes it.
    device : str or Device, optional
        Where to run; None is the default device.
    dtype : {"float32", "float64"}
        The precision.
    rng : Generator, int or None
        Draws the gradients of the outputs.

    Returns
    -------
    list of str
        Ops that could not be written down: they take more than arrays and plain values.

    Raises
    ------
    OSError
        When the disk refuses.
    """
    place = resolve_device(device)
    writer, left_out = _Writer(), []
    calls = []
    names = {id(op): name for name, op in registered_ops().items()}
    for call in Reference(model, inputs, as_generator(rng)).run(place, dtype).calls:
        try:
            calls.append(writer.encode_call(names[id(call.op)], call))
        except (TypeError, KeyError):
            left_out.append(call.op.name)
    header = {"kind": _KIND, "device": str(place), "dtype": dtype, "calls": calls}
    write(path, writer.tensors, header)
    return sorted(set(left_out))


def replay_parity(
    path: str | os.PathLike[str],
    *,
    rng: RandomSource = 0,
    own_tolerance: float = OWN_TOLERANCE,
) -> list[Parity]:
    """Compare a recording with float64 on the CPU, and what the CPU makes of the same inputs too.

    Parameters
    ----------
    path : path
        A file of :func:`record_parity`.
    rng : Generator, int or None
        Draws the noise that units are measured with.
    own_tolerance : float
        In units, see :class:`OpParity`.

    Returns
    -------
    list of Parity
        What was recorded, and the CPU in the same precision.

    Raises
    ------
    CheckpointError
        When the file is no recording, is damaged, or has ops that are not there.
    OSError
        When it cannot be read.
    """
    generator = as_generator(rng)
    with open_container(path) as file:
        try:
            target, dtype, calls = _read(file)
            recorded, here = [], []
            for call in calls:
                measured = measure(call, call.args, dtype, generator)
                recorded.append((call, own_error(measured, call.results)))
                received = run_op(call.op, call.args, call.options, CPU)
                here.append((call, own_error(measured, received)))
        except CheckpointError:
            raise
        except Exception as error:  # the ops run on whatever stands in the file
            raise file.refusal(f"does not describe a recording ({error})") from error
    return [
        _as_parity(f"recorded {target} {dtype}", recorded, own_tolerance),
        _as_parity(f"cpu {dtype}", here, own_tolerance),
    ]


def _as_parity(
    target: str, rows: list[tuple[Taped, tuple[float, str]]], own_tolerance: float
) -> Parity:
    ops = [
        OpParity(number, call.op.name, call.layer, error, None, name)
        for number, (call, (error, name)) in enumerate(rows, start=1)
    ]
    for found in ops:
        if problem := judged(found, own_tolerance, math.inf):
            return Parity(target, ops, found, problem)
    return Parity(target, ops)


class _Writer:
    """Turns arguments into plain data beside tensors, each of which is kept once.

    Attributes
    ----------
    tensors : dict of str to numpy.ndarray
        By the names that the plain data has for them.
    """

    def __init__(self) -> None:
        self.tensors: dict[str, np.ndarray] = {}
        self._names: dict[tuple[Any, ...], str] = {}

    def encode_call(self, op: str, call: Taped) -> dict[str, Any]:
        """Return a call as plain data."""
        return {
            "op": op,
            "layer": call.layer,
            "depth": call.depth,
            "args": [self._encode(value) for value in call.args],
            "options": {key: self._encode(value) for key, value in call.options.items()},
            "results": [[name, self._encode(array)] for name, array in call.results],
        }

    def _encode(self, value: Any) -> Any:
        if isinstance(value, (np.ndarray, np.generic)):
            return {"array": self._name_of(np.asarray(value))}
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            kind = type(value)
            if _named_tuple(kind.__module__, kind.__name__) is not kind:
                raise TypeError(kind.__name__)
            parts = [self._encode(part) for part in value]
            return {"named": [kind.__module__, kind.__name__, parts]}
        if isinstance(value, (tuple, list)):
            name = "list" if isinstance(value, list) else "tuple"
            return {name: [self._encode(part) for part in value]}
        if isinstance(value, float) and not math.isfinite(value):
            return {"float": repr(value)}
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        raise TypeError(type(value).__name__)

    def _name_of(self, array: np.ndarray) -> str:
        digest = hashlib.sha256(array.tobytes()).hexdigest()
        key = (array.shape, array.dtype.str, digest)
        if key not in self._names:
            self._names[key] = f"t{len(self._names)}"
            self.tensors[self._names[key]] = array
        return self._names[key]


def _read(file: Container) -> tuple[str, str, list[Taped]]:
    """Return the device, the precision and the calls of a file."""
    header = file.header
    if header.get("kind") != _KIND:
        raise file.refusal("holds no recording of parity; make one with `parity --record`")
    dtype = header["dtype"]
    if dtype not in ("float32", "float64"):
        raise file.refusal(f"a recording in {str(dtype)[:20]!r}; expected float32 or float64")
    ops = registered_ops()
    return str(header["device"]), dtype, [_decode_call(file, ops, row) for row in header["calls"]]


def _decode_call(file: Container, ops: dict[str, Op], row: dict[str, Any]) -> Taped:
    if row["op"] not in ops:
        raise file.refusal(f"has the op {str(row['op'])[:80]!r}, which is not there")
    return Taped(
        ops[row["op"]],
        str(row["layer"]),
        tuple(_decode(file, value) for value in row["args"]),
        {str(key): _decode(file, value) for key, value in row["options"].items()},
        [(str(name), _decode(file, value)) for name, value in row["results"]],
        int(row["depth"]),
    )


def _decode(file: Container, value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "array":
        return file.read(content)
    if kind == "float":
        return float(content)
    if kind == "named":
        module, name, fields = content
        return _named_tuple(module, name)(*(_decode(file, part) for part in fields))
    parts = [_decode(file, part) for part in content]
    return parts if kind == "list" else tuple(parts)


def _named_tuple(module: str, name: str) -> Any:
    """Return a named tuple of ours that is loaded; a file may name no other class."""
    found = (
        getattr(sys.modules.get(module), name, None) if module.startswith("xbackprop.") else None
    )
    if isinstance(found, type) and issubclass(found, tuple) and hasattr(found, "_fields"):
        return found
    raise TypeError(f"{module}.{name} is no named tuple of xbackprop")
