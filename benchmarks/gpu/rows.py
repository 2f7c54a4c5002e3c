"""The rows of the tests, run on a device: every layer and, below it, every op."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import xbackprop as xb
from xbackprop.backend.device import Device
from xbackprop.testing.structures import backward_of_all_inputs, leaves, moved, random_like

_QUICK = (
    "Linear", "Conv2d", "GELU", "LayerNorm", "Dropout p=0.3", "LSTM of a batch",
    "CrossEntropyLoss mean",
)  # fmt: skip
TESTS = Path(__file__).parents[2] / "tests"


def cases(quick: bool) -> list[Any]:
    """Return the rows of tests/layer_cases; with `quick` a few."""
    if str(TESTS) not in sys.path:
        sys.path.insert(0, str(TESTS))
    from layer_cases import CASES

    by_name = {case.name: case for case in CASES}
    return [by_name[name] for name in _QUICK] if quick else CASES


def run(case: Any, device: Device, *observers: Any) -> dict[str, np.ndarray]:
    """Return outputs, gradients and state of a row in float32, on the host."""
    found: dict[str, np.ndarray] = {}
    rng = np.random.default_rng(0)
    with xb.use_device(device), xb.observe(*observers):
        module = case.make()
        made = case.inputs(rng)
        inputs = moved([_single(x) for x in (made if isinstance(made, tuple) else (made,))], device)
        output, saved = module.forward(*inputs)
        grad = moved(random_like(output, rng), device)
        grads = backward_of_all_inputs(module, grad, saved, len(inputs))
        parts = [*leaves(output, "output"), *leaves(grads, "grads")]
        parts += [(name, parameter.grad) for name, parameter in module.named_parameters()]
        found |= {name: xb.to_host(leaf) for name, leaf in parts if leaf is not None}
        return found | module.state_dict() | module.extra_state()


def _single(value: Any) -> Any:
    is_float = np.asarray(value).dtype.kind == "f"
    return np.asarray(value, np.float32) if is_float else value


def difference(received: np.ndarray, expected: np.ndarray) -> tuple[float, float]:
    """Return the largest error: relative to the largest magnitude, and in units in the last place.

    Infinite where shapes, dtypes, NaNs or numbers that are not rounded differ.
    """
    if received.shape != expected.shape or received.dtype != expected.dtype:
        return float("inf"), float("inf")
    if expected.dtype.kind not in "fV":
        return (0.0, 0.0) if np.array_equal(received, expected) else (float("inf"),) * 2
    ours, theirs = received.astype(np.float64), expected.astype(np.float64)
    finite = np.isfinite(theirs)
    if not np.array_equal(ours[~finite], theirs[~finite], equal_nan=True):
        return float("inf"), float("inf")
    error = np.abs(ours[finite] - theirs[finite])
    if not error.size or not error.max() > 0:
        return (0.0, 0.0) if np.isfinite(error).all() else (float("inf"),) * 2
    magnitude = np.abs(theirs[finite])
    # At most so fine as the largest number's ulp times the dtype's: what cancels is not judged.
    spacing = np.maximum(magnitude, magnitude.max() * _eps(expected.dtype)) * _eps(expected.dtype)
    scale = float(magnitude.max()) or 1.0
    ulps = float((error / np.maximum(spacing, np.finfo(np.float64).tiny)).max())
    return float(error.max()) / scale, ulps


def _eps(dtype: np.dtype) -> float:
    return 2.0**-7 if dtype.kind == "V" or dtype.name == "bfloat16" else float(np.finfo(dtype).eps)


def host(value: Any) -> Any:
    """Return nested arguments or results with their arrays on the host."""
    from xbackprop.backend.array_module import is_array
    from xbackprop.testing.structures import transform

    return transform(value, lambda leaf: xb.to_host(leaf).copy() if is_array(leaf) else leaf)


def pairs(received: Any, expected: Any) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the arrays of two results side by side."""
    for (_, ours), (_, theirs) in zip(leaves(received, ""), leaves(expected, ""), strict=True):
        if hasattr(theirs, "dtype") or hasattr(ours, "dtype"):
            yield np.asarray(ours), np.asarray(theirs)
