"""How long a part may take, and the clock of a device."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

from xbackprop.backend.device import Device


class Guard:
    """A part's time: whoever loops asks `is_over` and stops with what there is."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.started = time.perf_counter()
        self.was_over = False

    @property
    def left(self) -> float:
        return self.seconds - (time.perf_counter() - self.started)

    @property
    def is_over(self) -> bool:
        self.was_over = self.was_over or self.left <= 0
        return self.was_over


def timer(device: Device) -> Callable[[Callable[[], Any]], float] | None:
    """Return what measures the seconds of a call: device events on cuda, the clock on the CPU.

    None on the stand-in, which has no time of its own.
    """
    if device.kind == "fake":
        return None
    if device.kind == "cpu":
        return _seconds_on_the_host
    return _seconds_between_events


def _seconds_on_the_host(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _seconds_between_events(call: Callable[[], Any]) -> float:
    """Record on the legacy default stream, which CuPy's, PyTorch's and JAX's streams wait for."""
    import cupy

    cupy.cuda.Device().synchronize()
    begin, end = cupy.cuda.Event(), cupy.cuda.Event()
    begin.record()
    call()
    end.record()
    end.synchronize()
    return cupy.cuda.get_elapsed_time(begin, end) / 1e3


@contextlib.contextmanager
def quiet_collector() -> Iterator[None]:
    """Let the garbage collector rest while something is timed."""
    import gc

    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
