"""kernels: every registered cuda kernel beside its reference, in all its dtypes."""

import importlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import xbackprop as xb
from benchmarks.gpu.guard import Guard, timer
from benchmarks.gpu.rows import cases, difference, host, pairs, run
from xbackprop.backend.array_module import is_array
from xbackprop.backend.device import Device
from xbackprop.dispatch import Op, OpCall, registered_ops
from xbackprop.testing.structures import moved, transform

# Relative to the largest magnitude: some rounding errors of the dtype.
ALLOWED = {"float64": 1e-12, "float32": 1e-5, "float16": 4e-3, "bfloat16": 3e-2}
_MOST_SAMPLES = 6


class Samples:
    """An observer that keeps the first differing inputs of ops that have a cuda kernel."""

    def __init__(self) -> None:
        self.found: dict[str, dict[str, tuple[Op, Any, Any]]] = {}

    def before(self, call: OpCall) -> None:
        if not call.op.kernels.get("cuda"):
            return
        name = f"{call.op.reference.__module__}.{call.op.name}"
        args, options = host((call.args, call.options))
        kind = repr([(a.shape, a.dtype) if is_array(a) else a for a in args])
        samples = self.found.setdefault(name, {})
        if len(samples) < _MOST_SAMPLES:
            samples.setdefault(kind, (call.op, args, options))

    def after(self, call: OpCall, result: Any) -> None:
        pass


def measure(
    device: Device, guard: Guard, *, quick: bool, out: Path, under_sanitizer: bool = False
) -> dict[str, Any]:
    """Return a row for each kernel and dtype."""
    if under_sanitizer and device.kind == "cuda":
        import cupy

        # CuPy's pool hides what is out of bounds: an array's block is larger than the array.
        cupy.cuda.set_allocator(None)
    if device.kind != "cpu":
        importlib.import_module("xbackprop.kernels.cuda")
    samples = Samples()
    for case in cases(quick):
        if guard.is_over:
            break
        run(case, device, samples)
    rows = [
        row
        for name, found in samples.found.items()
        for dtype in dtypes()
        if (row := compare(name, list(found.values()), dtype, device)) is not None
    ]
    kernels = {
        f"{op.reference.__module__}.{op.name}"
        for op in registered_ops().values()
        if op.kernels.get("cuda")
    }
    missing = sorted(kernels - {row["name"] for row in rows})
    rows += [{"name": name, "dtype": "", "calls": 0, "passed": quick} for name in missing]
    told = "" if device.kind == "cuda" else "; references only, no kernel runs here"
    checked = "runs this" if under_sanitizer else run_sanitizer(device, guard)
    return {
        "passed": all(row["passed"] for row in rows) and checked != "found errors",
        "complete": not guard.was_over,
        "summary": f"{len(kernels)} kernels, {len(rows)} rows, {len(missing)} without a sample"
        f"{told}; compute-sanitizer {checked}",
        "rows": rows,
        "sanitizer": checked,
    }


def dtypes() -> list[np.dtype]:
    found = [np.dtype(name) for name in ("float32", "float16", "float64")]
    try:
        from ml_dtypes import bfloat16
    except ImportError:
        return found
    return [*found, np.dtype(bfloat16)]


def compare(
    name: str, samples: list[tuple[Op, Any, Any]], dtype: np.dtype, device: Device
) -> dict[str, Any] | None:
    """Run a kernel on its samples cast to a dtype; None where `when` serves none of them."""
    row: dict[str, Any] = {"name": name, "dtype": dtype.name, "calls": 0, "relative": 0.0}
    seconds_of = timer(device)
    for op, args, options in samples:
        has_floats = any(is_array(a) and a.dtype.kind == "f" for a in args)
        if not has_floats and dtype != np.float32:
            continue  # one dtype's row is enough for what has none
        with xb.use_device(device), np.errstate(all="ignore"):
            given = moved(transform(args, lambda leaf: cast(leaf, dtype)), device)
            kernel = op.select(device, given, options)
            if kernel is None:
                continue
            function = kernel.function if device.kind == "cuda" else op.reference
            received = function(*given, **options)
            expected = host(op.reference(*given, **options))
            if seconds_of is not None and kernel.bytes_moved is not None and not row["calls"]:
                seconds = min(
                    seconds_of(lambda f=function, g=given, o=options: f(*g, **o)) for _ in range(5)
                )
                row["gigabytes_per_second"] = kernel.bytes_moved(*given, **options) / seconds / 1e9
        row["calls"] += 1
        for ours, theirs in pairs(host(received), expected):
            row["relative"] = max(row["relative"], difference(ours, theirs)[0])
    if not row["calls"]:
        return None
    row["passed"] = row["relative"] <= ALLOWED[dtype.name]
    return row


def cast(leaf: Any, dtype: np.dtype) -> Any:
    return leaf.astype(dtype) if is_array(leaf) and leaf.dtype.kind == "f" else leaf


def run_sanitizer(device: Device, guard: Guard) -> str:
    """Run this part once more, quickly, under compute-sanitizer."""
    tool = shutil.which("compute-sanitizer")
    if device.kind != "cuda":
        return "not run: no card"
    if tool is None:
        return "not on PATH"
    with tempfile.TemporaryDirectory() as folder:
        command = [
            tool, "--error-exitcode", "9", sys.executable, "-m", "benchmarks.gpu", "--part",
            "kernels", "--quick", "--under-sanitizer", "--device", str(device), "--out", folder,
        ]  # fmt: skip
        try:
            done = subprocess.run(command, timeout=max(guard.left, 1), check=False)
        except subprocess.TimeoutExpired:
            return "out of time"
    return {0: "found nothing", 9: "found errors"}.get(
        done.returncode, f"ended with {done.returncode}"
    )
