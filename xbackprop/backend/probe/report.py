"""What the probe reports: the state of CUDA, its reason, and what was found on the way."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from xbackprop.backend.probe.checks import CheckOutcome
from xbackprop.backend.probe.errors import CudaState


@dataclass(frozen=True)
class CudaDeviceInfo:
    """One GPU that this process sees; ``state`` is None when the GPU was not touched.

    ``free_bytes`` is None where nothing tells it without making a context on the GPU.
    """

    index: int
    name: str
    compute_capability: str
    free_bytes: int | None
    total_bytes: int | None
    state: CudaState | None
    reason: str


@dataclass(frozen=True)
class CudaReport:
    """Whether CUDA can be used, and what was found out on the way.

    Parameters
    ----------
    state : CudaState
        The outcome.
    reason : str
        Why, in one line.
    fix : str
        The command that mends it, in one line; empty when nothing has to be done.
    exception : BaseException, optional
        The original exception.
    cupy_packages : dict of str to str
        Every installed CuPy distribution and its version.
    conflicts : tuple of str
        What is wrong with that set: CuPy's distributions overwrite each other's files.
    cupy_version, driver_version, runtime_version : str, optional
        The version of CuPy, the newest CUDA that the driver supports, the CUDA runtime in CuPy.
    devices : tuple of CudaDeviceInfo
        The GPUs that this process sees.
    checks : tuple of CheckOutcome
        Allocation, kernel and product on the GPU that was tried.
    device_index : int, optional
        The GPU that was tried; when usable, the one to use.
    warnings : tuple of str
        What CuPy warned of meanwhile.
    """

    state: CudaState
    reason: str
    fix: str = ""
    exception: BaseException | None = None
    cupy_packages: Mapping[str, str] = field(default_factory=dict)
    conflicts: tuple[str, ...] = ()
    cupy_version: str | None = None
    driver_version: str | None = None
    runtime_version: str | None = None
    devices: tuple[CudaDeviceInfo, ...] = ()
    checks: tuple[CheckOutcome, ...] = ()
    device_index: int | None = None
    warnings: tuple[str, ...] = ()


def size_text(size_bytes: int | None) -> str:
    """Return a size for people: ``"79.6 GiB"``."""
    if size_bytes is None:
        return "unknown"
    if size_bytes < 2**30:
        return f"{size_bytes / 2**20:.0f} MiB"
    return f"{size_bytes / 2**30:.1f} GiB"
