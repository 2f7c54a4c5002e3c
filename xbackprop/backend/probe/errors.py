"""From an exception of CuPy or CUDA to a named state, its reason and what mends it."""

import enum
import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

VISIBLE_DEVICES = "CUDA_VISIBLE_DEVICES"
_DRIVER_PAGE = "https://www.nvidia.com/drivers"


class CudaState(enum.StrEnum):
    """Whether CUDA can be used, and if not, what stands in the way."""

    USABLE = "usable"
    NOT_INSTALLED = "not installed"
    BROKEN = "broken"
    NO_DRIVER = "no driver"
    DRIVER_TOO_OLD = "driver too old"
    NO_DEVICE = "no device"
    LIBRARIES_MISSING = "libraries missing"
    BUSY = "busy"
    OTHER = "other"


@dataclass(frozen=True)
class Diagnosis:
    """A state with its reason and its fix, one line each."""

    state: CudaState
    reason: str
    fix: str


@dataclass(frozen=True)
class Facts:
    """What is known of the machine when something fails; versions are 1000 * major + 10 * minor."""

    packages: Mapping[str, str] = field(default_factory=dict)
    driver: int | None = None
    runtime: int | None = None


# Codes shared by cudaError_t and CUresult. 35 and 100 depend on more and have functions of their
# own. https://docs.nvidia.com/cuda/cuda-runtime-api/group__CUDART__TYPES.html
_STATUS = {
    2: (
        CudaState.BUSY,
        "the GPU has no memory left for this process",
        "end what fills the GPU (nvidia-smi lists it) or choose another device",
    ),
    3: (
        CudaState.OTHER,
        "CUDA could not be initialised; a process forked after CUDA was started cannot use it",
        "start worker processes with multiprocessing.set_start_method('spawn')",
    ),
    34: (
        CudaState.NO_DRIVER,
        "the CUDA toolkit's stub of the driver library was loaded instead of the driver",
        "take the folder .../stubs out of LD_LIBRARY_PATH, and install the driver if it is absent: "
        + _DRIVER_PAGE,
    ),
    36: (
        CudaState.DRIVER_TOO_OLD,
        "the NVIDIA driver lacks a function that this CuPy calls",
        f"update the NVIDIA driver: {_DRIVER_PAGE}",
    ),
    46: (
        CudaState.BUSY,
        "the GPU is held by another process or is in exclusive or prohibited compute mode",
        "end what holds the GPU (nvidia-smi lists it), or: sudo nvidia-smi -c DEFAULT",
    ),
    101: (
        CudaState.NO_DEVICE,
        "the driver knows no GPU of that number",
        "nvidia-smi -L",
    ),
    209: (
        CudaState.OTHER,
        "CuPy and its CUDA libraries hold no code for this generation of GPU",
        "install a CuPy release that supports this GPU's compute capability",
    ),
    222: (
        CudaState.DRIVER_TOO_OLD,
        "the NVIDIA driver is older than the compiler that built the kernels",
        f"update the NVIDIA driver: {_DRIVER_PAGE}",
    ),
    802: (
        CudaState.OTHER,
        "the system is not ready for CUDA (on NVSwitch machines: the fabric manager is not up)",
        "sudo systemctl start nvidia-fabricmanager",
    ),
    803: (
        CudaState.OTHER,
        "the driver's library and its kernel module have different versions, "
        "as after an update without a restart",
        "restart the machine (in a container: the host)",
    ),
    804: (
        CudaState.OTHER,
        "the CUDA forward-compatibility package does not work with this GPU",
        f"take the folder .../compat out of LD_LIBRARY_PATH and update the driver: {_DRIVER_PAGE}",
    ),
    999: (
        CudaState.OTHER,
        "the NVIDIA driver is installed and does not answer (kernel module not loaded, "
        "or the machine was suspended)",
        "sudo modprobe nvidia_uvm, or restart the machine",
    ),
}

_LIBRARY = re.compile(
    r"((?:lib)?(?:nvrtc-builtins|nvrtc|cublasLt|cublas|cudart|curand|cufft|cusolver|cusparse|nvjitlink))"
    r"[\w.\-]*?\.(?:so|dll)"
    r"|DLL load failed while importing (nvrtc|cublas|curand|cufft|cusolver|cusparse)",
    re.IGNORECASE,
)
_ABSENT = re.compile(
    r"cannot open shared object|no such file|failure finding|dll load failed|failed to open"
    r"|could not find|not found",
    re.IGNORECASE,
)
_HEADER = re.compile(
    r"(?:cannot|could not) open source file \"?([\w./]+)|failed to find cuda headers", re.IGNORECASE
)


def diagnose(error: BaseException, facts: Facts) -> Diagnosis:
    """Name the state behind an exception raised by CuPy once it is imported.

    Parameters
    ----------
    error : BaseException
        The exception; the ones that led to it are considered too.
    facts : Facts
        What is known of the machine.

    Returns
    -------
    Diagnosis
        State ``OTHER`` with the exception's own words when nothing more is known.
    """
    for link in _chain(error):
        found = _diagnose_one(link, facts)
        if found is not None:
            return found
    fix = "read the original error; a restart of the process clears a CUDA error that sticks"
    return Diagnosis(CudaState.OTHER, one_line(error), fix)


def diagnose_import(error: Exception, facts: Facts) -> Diagnosis:
    """Name the state behind an exception raised by ``import cupy``."""
    absent = isinstance(error, ModuleNotFoundError) and error.name == "cupy"
    if absent and not facts.packages:
        return _not_installed(facts)
    for link in _chain(error):
        # Releases before CuPy 14 link to the CUDA libraries and fail at import without them.
        missing = _missing_library(link, facts)
        if missing is not None:
            return missing
    if absent:
        names = ", ".join(facts.packages)
        reason = f"{names} is listed as installed, but its files are missing"
    else:
        # CuPy wraps what happened into a banner of ten lines; the cause says it in one.
        reason = f"importing CuPy failed: {one_line(error.__cause__ or error)}"
    return Diagnosis(CudaState.BROKEN, reason, reinstall_command(facts))


def diagnose_wrong_module(error: Exception, where: str, facts: Facts) -> Diagnosis:
    """Name the state when something that is not CuPy answers to ``import cupy``."""
    reason = f"what 'import cupy' finds at {where} is not a working CuPy: {one_line(error)}"
    if facts.packages:
        return Diagnosis(CudaState.BROKEN, reason, reinstall_command(facts))
    return Diagnosis(CudaState.BROKEN, reason, f"rename or remove {where}")


def install_command(facts: Facts) -> str:
    """Return the command that installs the one right CuPy with its CUDA libraries."""
    return _install_extra(_extra(facts), facts)


def _install_extra(extra: str, facts: Facts) -> str:
    install = f'pip install "xbackprop[{extra}]"'
    if set(facts.packages) <= {f"cupy-{extra}x"}:
        return install
    # All of them have to go: they share files, so removing one leaves holes in the other.
    return f"pip uninstall -y {' '.join(facts.packages)} && {install}"


def reinstall_command(facts: Facts) -> str:
    """Return the command that replaces a damaged CuPy."""
    if len(facts.packages) == 1:
        return f"pip install --upgrade --force-reinstall {next(iter(facts.packages))}"
    return install_command(facts)


def version_text(version: int | None) -> str | None:
    """Return ``"12.9"`` for 12090; None for a version that is not known."""
    return f"{version // 1000}.{version % 1000 // 10}" if version else None


def one_line(error: BaseException, limit: int = 200) -> str:
    """Return the exception's type and message on one line."""
    message = " ".join(re.sub(r"={4,}|-{4,}", " ", str(error)).split())
    text = f"{type(error).__name__}: {message}" if message else type(error).__name__
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _diagnose_one(error: BaseException, facts: Facts) -> Diagnosis | None:
    missing = _missing_library(error, facts)
    if missing is not None:
        return missing
    if isinstance(error, MemoryError):
        return Diagnosis(*_STATUS[2])
    status = getattr(error, "status", None)
    kind = type(error).__name__
    if kind == "CUBLASError" and status in (1, 3):  # not initialised, allocation failed
        reason = "cuBLAS got no memory on the GPU for its workspace"
        return Diagnosis(CudaState.BUSY, reason, _STATUS[2][2])
    # cuBLAS and NVRTC number their errors differently, so the class decides.
    if kind not in ("CUDARuntimeError", "CUDADriverError"):
        return None
    if status == 35:
        return _insufficient_driver(facts)
    if status == 100:
        return no_device()
    return Diagnosis(*_STATUS[status]) if status in _STATUS else None


def _insufficient_driver(facts: Facts) -> Diagnosis:
    if facts.driver is None:
        return _no_driver()
    if facts.driver == 0:
        return Diagnosis(*_STATUS[34])
    has, needs = version_text(facts.driver), version_text(facts.runtime)
    if facts.runtime and facts.driver // 1000 >= facts.runtime // 1000:
        reason = f"the CUDA runtime refuses the NVIDIA driver, although that supports CUDA {has}"
        fix = "nvidia-smi (if that fails too: restart the machine, or install the driver anew)"
        return Diagnosis(CudaState.OTHER, reason, fix)
    reason = f"the NVIDIA driver supports CUDA up to {has}, this CuPy is built for CUDA {needs}"
    if facts.driver >= 12000:
        # An older CuPy is an easier way out than a newer driver.
        fix = _install_extra("cuda12", facts)
    else:
        fix = f"update the NVIDIA driver: {_DRIVER_PAGE}"
    return Diagnosis(CudaState.DRIVER_TOO_OLD, reason, fix)


def _no_driver() -> Diagnosis:
    reason = "no NVIDIA driver is installed (its library cannot be loaded)"
    fix = f"install the NVIDIA driver: {_DRIVER_PAGE} (in a container: docker run --gpus all ...)"
    return Diagnosis(CudaState.NO_DRIVER, reason, fix)


def no_device() -> Diagnosis:
    """Name the state when the driver lists no GPU, and blame the variable where it is to blame."""
    visible = os.environ.get(VISIBLE_DEVICES)
    if visible is None:
        reason = "the NVIDIA driver is installed and finds no GPU"
        fix = (
            "nvidia-smi -L (nothing listed: check the card; in a container: docker run --gpus all)"
        )
        return Diagnosis(CudaState.NO_DEVICE, reason, fix)
    reason = f"the environment variable {VISIBLE_DEVICES}={visible!r} leaves no GPU visible"
    windows = sys.platform == "win32"
    fix = f"set {VISIBLE_DEVICES}=" if windows else f"unset {VISIBLE_DEVICES}"
    return Diagnosis(CudaState.NO_DEVICE, reason, fix)


def _not_installed(facts: Facts) -> Diagnosis:
    if sys.platform == "darwin":
        reason, fix = "there is no CUDA on macOS", "XBACKPROP_DEVICE=cpu"
    elif facts.driver is None:
        reason = "CuPy is not installed, and there is no NVIDIA driver either"
        fix = f"on a machine with an NVIDIA GPU and its driver: {install_command(facts)}"
    else:
        reason, fix = "CuPy is not installed", install_command(facts)
    return Diagnosis(CudaState.NOT_INSTALLED, reason, fix)


def _missing_library(error: BaseException, facts: Facts) -> Diagnosis | None:
    text = str(error)
    header, library = _HEADER.search(text), _LIBRARY.search(text)
    if header:
        what = f"the CUDA header {header[1]}" if header[1] else "the CUDA headers"
    elif type(error).__name__ == "DynamicLibNotFoundError" or (library and _ABSENT.search(text)):
        what = f"the CUDA library {library[1] or library[2]}" if library else "a CUDA library"
    else:
        return None
    reason = f"{what} is missing" if header is None or header[1] else f"{what} are missing"
    return Diagnosis(CudaState.LIBRARIES_MISSING, reason, install_command(facts))


def _extra(facts: Facts) -> str:
    """Choose between the extras cuda12 and cuda13: keep what is installed, else ask the driver."""
    built_for = [major for major in ("12", "13") if f"cupy-cuda{major}x" in facts.packages]
    if len(built_for) == 1:
        return f"cuda{built_for[0]}"
    # With several packages the one that was imported is known by what it is linked to.
    version = facts.driver or facts.runtime or 0
    return "cuda13" if version >= 13000 else "cuda12"


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or link.__context__
