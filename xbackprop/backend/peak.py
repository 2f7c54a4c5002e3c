"""The most memory that a block of code held at one time."""

import contextlib
import sys
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass

from xbackprop.backend.device import Device

# What a number of bytes was read from.
METERS = {
    "cpu": "tracemalloc",
    "fake": "the stand-in's own account",
    "cuda": "CuPy's pool, which keeps what it has freed",
}


@dataclass
class PeakMemory:
    """A peak, which is known when its block has ended.

    Attributes
    ----------
    before, peak : int
        Bytes that were held when the block began, and at most inside of it. On the CPU only what
        the block allocated is seen, so ``before`` is 0 unless tracemalloc was running already.
    """

    before: int = 0
    peak: int = 0


@contextlib.contextmanager
def peak_memory(device: Device) -> Iterator[PeakMemory]:
    """Measure the most memory that a block holds at one time on a device.

    On the CPU every allocation is traced, which makes the block slow: no time measured inside of it
    means anything. On ``cuda`` (not yet measured on a GPU) it is how far the pool grew, after what
    it held unused was given back. The block's end begins a new account on ``fake``.

    Parameters
    ----------
    device : Device
        Whose memory.

    Yields
    ------
    PeakMemory
    """
    measure = {"cpu": _on_cpu, "fake": _on_fake, "cuda": _on_cuda}[device.kind]
    found = PeakMemory()
    with measure(device, found):
        yield found


@contextlib.contextmanager
def _on_cpu(device: Device, found: PeakMemory) -> Iterator[None]:
    was_tracing = tracemalloc.is_tracing()
    if not was_tracing:
        tracemalloc.start()
    tracemalloc.reset_peak()
    found.before = tracemalloc.get_traced_memory()[0]
    try:
        yield
        found.peak = tracemalloc.get_traced_memory()[1]
    finally:
        if not was_tracing:
            tracemalloc.stop()


@contextlib.contextmanager
def _on_fake(device: Device, found: PeakMemory) -> Iterator[None]:
    from xbackprop.backend.fake.memory import memory_of

    memory = memory_of(device.index)
    memory.reset_peak()
    found.before = memory.used
    yield
    found.peak = memory.peak


@contextlib.contextmanager
def _on_cuda(device: Device, found: PeakMemory) -> Iterator[None]:
    pool = sys.modules["cupy"].get_default_memory_pool()
    with device.activate():
        pool.free_all_blocks()
        found.before = pool.used_bytes()
        yield
        found.peak = pool.total_bytes()
