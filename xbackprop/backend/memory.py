"""The memory of a device: what is used, what its pool keeps, and what to do when there is none."""

import gc
import os
import re
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from xbackprop.backend.device import Device

LIMIT_VARIABLE = "XBACKPROP_MEMORY_LIMIT"
_UNITS = {"": 1, "B": 1, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
# Of cudaError_t and cublasStatus_t; the class says which of the two a number belongs to.
_OUT_OF_MEMORY = {"CUDARuntimeError": 2, "CUDADriverError": 2, "CUBLASError": 3}


class DeviceMemoryError(MemoryError):
    """A device has no room for a computation; the message says what would have.

    Attributes
    ----------
    needed_bytes : int or None
        What the computation needs beyond what was held before it, where that could be measured.
    batch_size : int or None
        A batch that fits, 0 if none does; None where that could not be measured.
    """

    needed_bytes: int | None = None
    batch_size: int | None = None


class MemoryState(NamedTuple):
    """Bytes of a device's memory.

    Parameters
    ----------
    used : int
        Held by arrays of this process.
    pooled : int
        Kept by the pool of this process, and held by no array.
    total : int
        What there is: the device's memory, or the limit that was set.
    available : int
        What arrays can still take; other programs have the rest.
    """

    used: int
    pooled: int
    total: int
    available: int


def memory_state(device: Device) -> MemoryState:
    """Return what is used of a device's memory; without a limit the stand-in's is unbounded.

    Parameters
    ----------
    device : Device
        A GPU, real or stand-in.

    Returns
    -------
    MemoryState
    """
    if device.kind == "fake":
        book = _book(device)
        total = sys.maxsize if book.limit is None else book.limit
        return MemoryState(book.used, book.pooled, total, total - book.used)
    import cupy

    with device.activate():
        pool = cupy.get_default_memory_pool()
        used, held, limit = pool.used_bytes(), pool.total_bytes(), pool.get_limit()
        free, total = cupy.cuda.runtime.memGetInfo()
    available = free + held - used
    if limit:
        total, available = min(limit, total), min(limit - used, available)
    return MemoryState(used, held - used, total, available)


def free_unused_memory(device: Device, *, collect: bool = True) -> None:
    """Give back to the device what its pool keeps and no array uses.

    Parameters
    ----------
    device : Device
        On the CPU there is no pool.
    collect : bool, default True
        Collect garbage first: arrays may be in cycles.
    """
    if collect:
        gc.collect()
    if device.kind == "fake":
        _book(device).free_unused()
    elif device.kind == "cuda":
        import cupy

        with device.activate():
            cupy.get_default_memory_pool().free_all_blocks()


def is_out_of_memory(error: BaseException, device: Device) -> bool:
    """Tell whether it is a device that had no memory; the host's MemoryError is another matter."""
    names = {cls.__name__ for cls in type(error).__mro__}
    if device.kind == "cpu":
        return False
    if isinstance(error, MemoryError):  # CuPy's and the stand-in's classes have one name
        return "OutOfMemoryError" in names
    return any(
        name in names and getattr(error, "status", None) == status
        for name, status in _OUT_OF_MEMORY.items()
    )


def measure_need(device: Device, function: Callable[[], object]) -> int:
    """Return the most bytes that a call held at one time beyond those held before it.

    On ``cuda`` by what the pool had to take for it, so that rounding and fragments count.
    """
    free_unused_memory(device, collect=False)
    if device.kind == "fake":
        taken: int = _book(device).measure(function)
        return taken
    import cupy

    with device.activate():
        pool = cupy.get_default_memory_pool()
        before = pool.used_bytes()
        function()
        return int(pool.total_bytes() - before)


def requested_limit() -> int | None:
    """Return the limit that ``XBACKPROP_MEMORY_LIMIT`` asks for, in bytes; None without one.

    Returns
    -------
    int or None

    Raises
    ------
    ValueError
        For anything but a number with ``KiB``, ``MiB``, ``GiB`` or nothing behind it.
    """
    text = os.environ.get(LIMIT_VARIABLE, "").strip()
    if not text:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", text, re.ASCII)
    unit = _UNITS.get(found[2].upper()) if found else None
    if found is None or unit is None:
        raise ValueError(
            f"{LIMIT_VARIABLE} expects a size such as 512MiB, 8GiB or 1000000 (bytes); got {text!r}"
        )
    return int(float(found[1]) * unit)


_limited: set[int] = set()


def limit_memory(device: Device) -> None:
    """Cap a GPU's pool as ``XBACKPROP_MEMORY_LIMIT`` asks, once; the stand-in reads it itself."""
    if device.kind != "cuda" or device.index in _limited:
        return
    limit = requested_limit()
    if limit is not None:
        import cupy

        with device.activate():
            cupy.get_default_memory_pool().set_limit(size=limit)
    _limited.add(device.index)


def _book(device: Device) -> Any:
    from xbackprop.backend.fake import memory_of

    return memory_of(device.index)
