"""speed: networks beside PyTorch and JAX in turn, and ops against what the card can do."""

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import xbackprop as xb
from benchmarks.gpu import jax_peer, torch_peer
from benchmarks.gpu.guard import Guard, quiet_collector, timer
from benchmarks.gpu.networks import networks
from xbackprop.backend.array_module import is_array
from xbackprop.backend.device import Device
from xbackprop.dispatch import ArraySpec, OpCall
from xbackprop.testing.structures import arrays

Timer = Callable[[Callable[[], Any]], float]


def measure(device: Device, guard: Guard, *, quick: bool, out: Path) -> dict[str, Any]:
    """Return rows for the card's own rates, for networks and for ops."""
    seconds_of = timer(device)
    rows: list[dict[str, Any]] = []
    with xb.use_device(device):
        rates = None if seconds_of is None else ceilings(device, seconds_of, quick)
        if rates is not None:
            rows.append({"kind": "card", **rates})
        todo = networks(quick)
        for network in todo:
            if guard.is_over:
                break
            trainer, x, y = network.trainer()
            peers = {"xbackprop": lambda t=trainer, x=x, y=y: t.step(x, y)}
            peers["xbackprop"]()
            if seconds_of is None:  # known to work there, which is all that can be said
                rows.append({"kind": "network", "name": network.name, "steps_per_second": None})
                continue
            peers |= torch_peer.steps(network, device) | jax_peer.steps(network, device)
            rows += in_turn(network.name, peers, seconds_of, guard, quick)
            rows += op_rows(network.name, peers["xbackprop"], device, seconds_of, rates, guard)
    told = "no timing on the stand-in" if seconds_of is None else best_of(rows)
    return {
        "passed": None,
        "complete": not guard.was_over,
        "summary": told,
        "rows": rows,
    }


def ceilings(device: Device, seconds_of: Timer, quick: bool) -> dict[str, float]:
    """Measure the copy bandwidth and the rate of a product of matrices, here and now."""
    xp = device.xp
    size, side = (2**16, 64) if quick else (2**26, 4096)
    source, target = xp.ones(size, dtype=np.float32), xp.empty(size, dtype=np.float32)
    square = xp.ones((side, side), dtype=np.float32)

    def copy() -> None:
        target[...] = source

    copy(), square.dot(square)
    seconds = statistics.median(seconds_of(copy) for _ in range(9))
    product = statistics.median(seconds_of(lambda: square.dot(square)) for _ in range(9))
    return {
        "copy_bytes_per_second": 2 * source.nbytes / seconds,
        "product_flops_per_second": 2 * side**3 / product,
    }


def in_turn(
    name: str, peers: dict[str, Callable[[], Any]], seconds_of: Timer, guard: Guard, quick: bool
) -> list[dict[str, Any]]:
    """Time a few steps of every peer in turn, round after round."""
    rounds, calls, warm_up = (3, 1, 1) if quick else (15, 10, 10)
    for step in peers.values():
        for _ in range(warm_up):
            step()
    times: dict[str, list[float]] = {peer: [] for peer in peers}
    with quiet_collector():
        for _ in range(rounds):
            for peer, step in peers.items():
                times[peer].append(
                    seconds_of(lambda s=step: [s() for _ in range(calls)] and None) / calls
                )
            if guard.is_over:
                break
    ours = statistics.median(times["xbackprop"])
    return [
        {
            "kind": "network",
            "name": name,
            "peer": peer,
            "steps_per_second": 1 / statistics.median(found),
            "fastest": 1 / min(found),
            "slowest": 1 / max(found),
            "rounds": len(found),
            "ours_to_this": statistics.median(found) / ours,
        }
        for peer, found in times.items()
    ]


class Calls:
    """An observer that keeps the innermost calls of a step, the first of each kind."""

    def __init__(self) -> None:
        self.found: dict[str, tuple[OpCall, int]] = {}
        self._nested: list[bool] = []

    def before(self, call: OpCall) -> None:
        if self._nested:
            self._nested[-1] = True
        self._nested.append(False)

    def after(self, call: OpCall, result: Any) -> None:
        if self._nested.pop():
            return
        specs = [ArraySpec(a.shape, a.dtype) if is_array(a) else a for a in call.args]
        moved = sum(a.nbytes for a in arrays((call.args, result), "").values())
        self.found.setdefault(f"{call.op.name} {specs}", (call, moved))


def op_rows(
    network: str,
    step: Callable[[], Any],
    device: Device,
    seconds_of: Timer,
    rates: dict[str, float] | None,
    guard: Guard,
) -> list[dict[str, Any]]:
    """Time each op alone with the inputs it had: bytes of its arguments and results, and flops."""
    calls = Calls()
    with xb.observe(calls):
        step()
    rows = []
    for call, moved in calls.found.values():
        if guard.is_over or rates is None:
            break
        times = [seconds_of(lambda c=call: c.op(*c.args, **c.options)) for _ in range(7)]
        seconds = max(statistics.median(times), 1e-9)
        row = {
            "kind": "op",
            "network": network,
            "name": call.op.name,
            "shapes": [list(a.shape) for a in call.args if is_array(a)],
            "microseconds": seconds * 1e6,
            "of_copy_bandwidth": moved / seconds / rates["copy_bytes_per_second"],
        }
        if call.op.flops is not None:
            specs = [ArraySpec(a.shape, a.dtype) if is_array(a) else a for a in call.args]
            flops = call.op.flops(*specs, **call.options)
            row["of_product_rate"] = flops / seconds / rates["product_flops_per_second"]
        rows.append(row)
    return rows


def best_of(rows: list[dict[str, Any]]) -> str:
    """Say steps a second of every network and peer in a line."""
    found: dict[str, list[str]] = {}
    for row in rows:
        if row["kind"] == "network":
            found.setdefault(row["name"], []).append(f"{row['peer']} {row['steps_per_second']:.4g}")
    return "steps a second: " + "; ".join(f"{k}: {', '.join(v)}" for k, v in found.items())
