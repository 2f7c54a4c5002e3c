"""parity: the device beside the CPU, for every row and every op below it; equal bits in 20 runs."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

import xbackprop as xb
from benchmarks.gpu import trace
from benchmarks.gpu.guard import Guard
from benchmarks.gpu.networks import networks
from benchmarks.gpu.results import environment
from benchmarks.gpu.rows import cases, difference, host, pairs, run
from xbackprop.backend.device import CPU, Device
from xbackprop.dispatch import OpCall
from xbackprop.testing import TOLERANCES

RUNS, STEPS = 20, 5
ALLOWED = TOLERANCES["float32"].peer


class OpErrors:
    """An observer that keeps calls; `compare` runs their references on the host afterwards."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, Any]] = {}
        self._before: list[Any] = []
        self._calls: list[tuple[Any, Any, Any]] = []

    def before(self, call: OpCall) -> None:
        self._before.append(host((call.args, call.options)))

    def after(self, call: OpCall, result: Any) -> None:
        self._calls.append((call.op, self._before.pop(), host(result)))

    def compare(self) -> None:
        """Compare the calls since the last comparison, outside of the observed context."""
        for op, (args, options), received in self._calls:
            name = f"{op.reference.__module__}.{op.name}"
            row = self.rows.setdefault(
                name, {"kind": "op", "name": name, "calls": 0, "relative": 0.0, "ulps": 0.0}
            )
            row["calls"] += 1
            options = options | ({"device": CPU} if "device" in options else {})
            with xb.use_device(CPU), np.errstate(all="ignore"):
                expected = host(op.reference(*args, **options))
            for ours, theirs in pairs(received, expected):
                worst(row, *difference(ours, theirs))
        self._calls.clear()


def worst(row: dict[str, Any], relative: float, ulps: float) -> None:
    row["relative"], row["ulps"] = max(row["relative"], relative), max(row["ulps"], ulps)


def measure(device: Device, guard: Guard, *, quick: bool, out: Path) -> dict[str, Any]:
    """Return a row for each layer and op, and whether repeated trainings have equal bits."""
    repeats = [repeat(network, device, guard) for network in networks(quick=True)]
    recorder, errors = trace.Recorder(), OpErrors()
    layers = []
    todo = cases(quick)
    for case in todo:
        if guard.is_over:
            break
        row = {"kind": "layer", "name": case.name, "relative": 0.0, "ulps": 0.0}
        expected = run(case, CPU)
        received = run(case, device, errors, recorder)
        errors.compare()
        if expected.keys() != received.keys():
            worst(row, float("inf"), float("inf"))
        for name in expected.keys() & received.keys():
            worst(row, *difference(received[name], expected[name]))
        layers.append(row)
    rows = [*layers, *errors.rows.values()]
    for row in rows:
        row["passed"] = row["relative"] <= ALLOWED
    path = out / f"trace-{device.kind}.npz"
    digest = recorder.write(path, device, environment(device))
    return {
        "passed": bool(layers) and all(row["passed"] for row in [*rows, *repeats]),
        "complete": len(layers) == len(todo) and not guard.was_over,
        "summary": summary_of(layers, list(errors.rows.values()), repeats),
        "rows": [*rows, *repeats],
        "trace": {"file": path.name, "sha256": digest, "calls": len(recorder.calls),
                  "left_out": recorder.left_out},
    }  # fmt: skip


def summary_of(layers: list[Any], ops: list[Any], repeats: list[Any]) -> str:
    found = []
    for what, rows in (("layers", layers), ("ops", ops)):
        largest = max(rows, key=lambda row: row["relative"], default=None)
        if largest is not None:
            found.append(
                f"{len(rows)} {what}, largest error {largest['relative']:.1e} "
                f"({largest['ulps']:.0f} ulp) in {largest['name']}"
            )
    equal = sum(row["passed"] for row in repeats)
    return "; ".join([*found, f"{equal} of {len(repeats)} networks bit-equal in {RUNS} runs"])


def repeat(network: Any, device: Device, guard: Guard) -> dict[str, Any]:
    """Train a network again and again from the same start, and compare all bits of its weights."""
    digests = []
    for _ in range(RUNS):
        if guard.is_over:
            break
        with xb.use_device(device):
            trainer, x, y = network.trainer()
            for _ in range(STEPS):
                trainer.step(x, y)
            content = hashlib.sha256()
            for name, array in sorted(trainer.model.state_dict().items()):
                content.update(name.encode() + array.tobytes())
        digests.append(content.hexdigest())
    return {
        "kind": "repeat",
        "name": network.name,
        "runs": len(digests),
        "digest": digests[0] if digests else "",
        "passed": len(digests) == RUNS and len(set(digests)) == 1,
    }


def replay(path: Path, device: Device) -> dict[str, Any]:
    """Compare a recorded trace with the references on this device."""
    rows, document = trace.replay(path, device)
    for row in rows:
        row["passed"] = row["relative"] <= ALLOWED
    largest = max(rows, key=lambda row: row["relative"])
    return {
        "passed": all(row["passed"] for row in rows),
        "complete": True,
        "summary": f"replayed {len(document['calls'])} calls of {len(rows)} ops recorded on "
        f"{document['environment']['card']} ({document['device']}); largest error "
        f"{largest['relative']:.1e} in {largest['name']}",
        "rows": rows,
    }
