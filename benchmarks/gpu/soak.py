"""soak: 10,000 steps, after which the pool is as large as before them."""

from pathlib import Path
from typing import Any

import xbackprop as xb
from benchmarks.gpu.guard import Guard
from benchmarks.gpu.networks import networks
from xbackprop.backend.device import Device, synchronize
from xbackprop.backend.memory import memory_state

STEPS, WARM_UP = 10_000, 20


def measure(device: Device, guard: Guard, *, quick: bool, out: Path) -> dict[str, Any]:
    """Return a row for each network: steps made, and by how much used and pooled bytes grew."""
    wanted = 10 if quick else STEPS // 4
    rows = []
    for network in networks(quick=True):  # many steps, not large ones
        with xb.use_device(device):
            trainer, x, y = network.trainer()
            for _ in range(WARM_UP):
                trainer.step(x, y)
            before = held(device)
            made = 0
            while made < wanted and not guard.is_over:
                trainer.step(x, y)
                made += 1
            synchronize(device)
            after = held(device)
        grown = None if before is None or after is None else after - before
        rows.append(
            {"name": network.name, "steps": made, "pool_growth": grown, "passed": not grown}
        )
        del trainer, x, y
    made = sum(row["steps"] for row in rows)
    growth = [row["pool_growth"] for row in rows]
    told = "no pool on the CPU" if None in growth else f"pool growth {sum(growth)} bytes"
    return {
        "passed": all(row["passed"] for row in rows),
        "complete": made == wanted * len(rows),
        "summary": f"{made:,} steps of {len(rows)} networks, {told}",
        "rows": rows,
    }


def held(device: Device) -> int | None:
    """Return the bytes that arrays and the pool hold; the CPU has no pool."""
    if device.kind == "cpu":
        return None
    state = memory_state(device)
    return state.used + state.pooled
