"""A trace: op calls with their inputs and outputs, in one npz, to be replayed on any machine.

The file holds `a0, a1, ...`, the arrays, and `calls`, JSON in which `{"array": 3}` stands for `a3`,
`{"tuple": [...]}`, `{"named": [module, class, ...]}`, `{"dict": {...}}` and `{"dtype": "float32"}`
for what they say. Replaying runs each op's reference and compares it with the recorded outputs.
"""

import hashlib
import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

import xbackprop as xb
from benchmarks.gpu.rows import difference, host, pairs
from xbackprop.backend.device import Device
from xbackprop.dispatch import OpCall, registered_ops
from xbackprop.testing.structures import moved

FORMAT = 1
_MOST_BYTES = 2**20  # of one call; larger ones are left out
_MOST_CALLS_OF_AN_OP = 8


class Recorder:
    """An observer that keeps the first calls of every op, each of another kind."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.arrays: dict[str, np.ndarray] = {}
        self.left_out = 0
        self._seen: dict[str, set[str]] = {}
        self._before: list[Any] = []

    def before(self, call: OpCall) -> None:
        self._before.append(host((call.args, call.options)))

    def after(self, call: OpCall, result: Any) -> None:
        args, options = self._before.pop()
        name = f"{call.op.reference.__module__}.{call.op.name}"
        options = {key: value for key, value in options.items() if key != "device"}
        outputs = host(result)
        arrays: list[np.ndarray] = []
        try:
            entry = {
                "op": name,
                "args": _encode(args, arrays),
                "options": _encode(options, arrays),
                "outputs": _encode(outputs, arrays),
            }
        except TypeError:
            self.left_out += 1
            return
        kind = json.dumps([entry, [(str(a.dtype), a.shape) for a in arrays]], sort_keys=True)
        seen = self._seen.setdefault(name, set())
        if kind in seen:
            return
        if sum(a.nbytes for a in arrays) > _MOST_BYTES or len(seen) >= _MOST_CALLS_OF_AN_OP:
            self.left_out += 1
            return
        seen.add(kind)
        start = len(self.arrays)
        self.calls.append(_renumbered(entry, start))
        self.arrays |= {f"a{start + number}": array for number, array in enumerate(arrays)}

    def write(self, path: Path, device: Device, found: dict[str, str]) -> str:
        """Write the trace; return the SHA-256 of its arrays."""
        digest = hashlib.sha256()
        for name, array in self.arrays.items():
            digest.update(name.encode() + np.ascontiguousarray(array).tobytes())
        document = {
            "format": FORMAT,
            "device": str(device),
            "environment": found,
            "sha256": digest.hexdigest(),
            "calls": self.calls,
        }
        np.savez_compressed(path, calls=np.array(json.dumps(document)), **self.arrays)
        return digest.hexdigest()


def replay(path: Path, device: Device) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Run the references on a device; return a row for each op, and what the file says."""
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files if name != "calls"}
        document = json.loads(file["calls"].item())
    if document.get("format") != FORMAT:
        raise ValueError(f"{path}: expected a trace of format {FORMAT}")
    digest = hashlib.sha256()
    for name, array in arrays.items():
        digest.update(name.encode() + np.ascontiguousarray(array).tobytes())
    if digest.hexdigest() != document["sha256"]:
        raise ValueError(f"{path}: its arrays are not those that were recorded")
    import xbackprop.nn  # noqa: F401 - registers its ops

    ops = registered_ops()
    rows: dict[str, dict[str, Any]] = {}
    for call in document["calls"]:
        row = rows.setdefault(
            call["op"], {"name": call["op"], "calls": 0, "relative": 0.0, "ulps": 0.0}
        )
        row["calls"] += 1
        if call["op"] not in ops:
            row["relative"] = row["ulps"] = float("inf")
            continue
        args, options = (_decode(call[key], arrays) for key in ("args", "options"))
        with xb.use_device(device), np.errstate(all="ignore"):
            result = host(ops[call["op"]].reference(*moved(args, device), **moved(options, device)))
        expected = _decode(call["outputs"], arrays)
        for ours, theirs in pairs(result, expected):
            relative, ulps = difference(ours, theirs)
            row["relative"] = max(row["relative"], relative)
            row["ulps"] = max(row["ulps"], ulps)
    return list(rows.values()), document


def _encode(value: Any, arrays: list[np.ndarray]) -> Any:
    if isinstance(value, (np.ndarray, np.generic)):
        array = np.asarray(value)
        if array.dtype.kind not in "biufc":
            raise TypeError(f"no place for {array.dtype}")
        arrays.append(array)
        return {"array": len(arrays) - 1}
    if isinstance(value, tuple):
        parts = [_encode(part, arrays) for part in value]
        cls = type(value)
        is_named = getattr(sys.modules[cls.__module__], cls.__qualname__, None) is cls
        if is_named and cls.__module__.startswith("xbackprop."):
            return {"named": [cls.__module__, cls.__qualname__, *parts]}
        return {"tuple": parts}
    if isinstance(value, list):
        return [_encode(part, arrays) for part in value]
    if isinstance(value, dict):
        return {"dict": {key: _encode(part, arrays) for key, part in value.items()}}
    if isinstance(value, (np.dtype, type)):
        return {"dtype": np.dtype(value).name}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"no place for a {type(value).__name__}")


def _renumbered(value: Any, start: int) -> Any:
    if isinstance(value, dict):
        if set(value) == {"array"}:
            return {"array": value["array"] + start}
        return {key: _renumbered(part, start) for key, part in value.items()}
    return [_renumbered(part, start) for part in value] if isinstance(value, list) else value


def _decode(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    if isinstance(value, list):
        return [_decode(part, arrays) for part in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "array":
        return arrays[f"a{content}"]
    if kind == "tuple":
        return tuple(_decode(part, arrays) for part in content)
    if kind == "named":
        module, name, *parts = content
        cls = _named_tuple(module, name)
        values = [_decode(part, arrays) for part in parts]
        return cls(*values) if hasattr(cls, "_fields") else cls(values)
    if kind == "dict":
        return {key: _decode(part, arrays) for key, part in content.items()}
    return np.dtype(content)


def _named_tuple(module: str, name: str) -> Any:
    """Find a named tuple of ours, and nothing else that a file may ask for."""
    is_ours = module.startswith("xbackprop.")
    cls = getattr(importlib.import_module(module), name) if is_ours else None
    if not (isinstance(cls, type) and issubclass(cls, tuple)):
        raise ValueError(f"a trace holds named tuples of xbackprop only; got {module}.{name}")
    return cls
