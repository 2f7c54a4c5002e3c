"""However long a training runs, it holds what it held after its first steps."""

import gc
import re
import sys
import tracemalloc
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from workload import Workload

import xbackprop as xb
from xbackprop.backend.device import Device
from xbackprop.backend.fake import memory_of

MEGABYTE = 2**20


def resident_bytes() -> int:
    """Return the memory that this process made for itself; 0 where the system does not tell.

    Pages of files, as of libraries, come and go as the system likes: a large process that had lost
    some of them to a full machine would seem to grow when it reads them again.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    found = re.findall(r"^(?:RssAnon|VmSwap):\s*(\d+) kB$", status.read_text(), re.MULTILINE)
    return sum(int(size) * 1024 for size in found)


def holdings(device: Device) -> dict[str, int]:
    """Count what the process holds."""
    gc.collect()
    found = {
        "objects": len(gc.get_objects()),
        "blocks": sys.getallocatedblocks(),
        "resident bytes": resident_bytes(),
        "traced bytes": tracemalloc.get_traced_memory()[0],
    }
    if device.kind == "fake":
        found["device bytes"] = memory_of(device.index).used
    return found


def growth(device: str, first: int, last: int, *, trace: bool) -> dict[str, int]:
    """Return what a training holds more after `last` steps than after `first`.

    Every tenth step comes with calls that are refused.
    """
    if trace:
        tracemalloc.start()
    try:
        with xb.use_device(device) as place:
            workload = Workload(0)
            before: dict[str, int] = {}
            for step in range(1, last + 1):
                workload.step()
                if step % 10 == 0:
                    workload.refuse()
                if step == first:
                    holdings(place)  # the first look makes objects of its own
                    before = holdings(place)
            return {name: now - before[name] for name, now in holdings(place).items()}
    finally:
        if trace:
            tracemalloc.stop()


def too_much(grown: dict[str, int]) -> dict[str, int]:
    """Return what grew beyond the bar: a megabyte, and the few objects that counting itself makes.

    Those are the same however many steps lie between, and fewer than the steps.
    """
    bars = {"objects": 50, "blocks": 50, "device bytes": 0}
    return {name: n for name, n in grown.items() if n > bars.get(name, MEGABYTE)}


def test_holdings_do_not_grow(xb_device: Device) -> None:
    first, last = (100, 600) if xb_device.kind == "cpu" else (40, 140)
    assert not too_much(growth(str(xb_device), first, last, trace=False))


def test_traced_memory_does_not_grow() -> None:
    grown = growth("cpu", 50, 250, trace=True)
    assert grown["traced bytes"] < 200 * 16  # less than an object a step


def test_steps_and_refused_calls_leave_no_garbage(xb_device: Device) -> None:
    """All is freed at once, by counting: nothing waits for the collector of cycles."""
    workload = Workload(0).run(3)
    workload.refuse()
    gc.collect()
    gc.disable()
    try:
        for _ in range(5):
            workload.step()
            workload.refuse()
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_a_refused_call_lets_go_of_its_arrays() -> None:
    workload = Workload(0)
    x = np.ones((4, 5), np.float32)
    alive = weakref.ref(x)
    compute: Any = xb.value_and_grad(workload.model, workload.loss_fn)
    gc.disable()
    try:
        with pytest.raises(ValueError, match="target"):
            compute(x, np.zeros(3, np.int64))
        trainer = xb.Trainer(workload.model, workload.loss_fn, workload.optimizer)
        with pytest.raises(ValueError, match=r"target|label|class"):
            trainer.step(x, np.full(4, 9))
        del x
        assert alive() is None
    finally:
        gc.enable()
