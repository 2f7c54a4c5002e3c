"""What the NVIDIA driver says when it is asked directly, without CuPy and without a context."""

import ctypes
import sys
from collections.abc import Iterable

# The driver's library and its management library (NVML); macOS has neither.
_DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_MANAGEMENT = "nvml.dll" if sys.platform == "win32" else "libnvidia-ml.so.1"


class _Memory(ctypes.Structure):
    """The struct ``nvmlMemory_t``."""

    _fields_ = (
        ("total", ctypes.c_ulonglong),
        ("free", ctypes.c_ulonglong),
        ("used", ctypes.c_ulonglong),
    )


def driver_cuda_version() -> int | None:
    """Return the newest CUDA version that the driver supports, as 1000 * major + 10 * minor.

    Returns
    -------
    int or None
        None when the driver's library cannot be loaded, which is how a missing driver is told from
        an old one: the CUDA runtime reports both as ``cudaErrorInsufficientDriver``. Zero when the
        library is there and does not answer, as the toolkit's link-time stub of it does.
    """
    library = _load(_DRIVER)
    if library is None:
        return None
    version = ctypes.c_int(0)
    try:
        status = library.cuDriverGetVersion(ctypes.byref(version))
    except AttributeError:  # some other library of that name
        return 0
    return version.value if status == 0 else 0


def free_memory(bus_ids: Iterable[str]) -> dict[str, int]:
    """Return the free bytes of the GPUs at the given PCI addresses, as far as NVML knows them.

    ``cudaMemGetInfo`` would tell the same and create a context, a few hundred megabytes, on every
    GPU it is asked about. The PCI address is what CUDA and NVML have in common: NVML counts
    devices in another order and does not honour ``CUDA_VISIBLE_DEVICES``.

    Parameters
    ----------
    bus_ids : iterable of str
        Addresses such as ``0000:3b:00.0``.

    Returns
    -------
    dict of str to int
        Empty without NVML; a GPU that NVML does not know is left out.
    """
    library = _load(_MANAGEMENT)
    if library is None:
        return {}
    try:
        if library.nvmlInit_v2() != 0:
            return {}
        try:
            found = {bus_id: _free_bytes(library, bus_id) for bus_id in bus_ids}
        finally:
            library.nvmlShutdown()
    except AttributeError:  # an NVML older than these functions
        return {}
    return {bus_id: free for bus_id, free in found.items() if free is not None}


def _free_bytes(library: ctypes.CDLL, bus_id: str) -> int | None:
    handle, memory = ctypes.c_void_p(), _Memory()
    address = ctypes.c_char_p(bus_id.encode())
    if library.nvmlDeviceGetHandleByPciBusId_v2(address, ctypes.byref(handle)) != 0:
        return None
    if library.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)) != 0:
        return None
    return int(memory.free)


def _load(name: str) -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(name)
    except OSError:
        return None
