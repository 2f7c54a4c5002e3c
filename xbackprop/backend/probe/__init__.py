"""Whether CUDA can be used through CuPy, and if not, why; CuPy is imported only when asked."""

from xbackprop.backend.probe.checks import CheckOutcome
from xbackprop.backend.probe.errors import CudaState
from xbackprop.backend.probe.packages import installed_cupy_packages
from xbackprop.backend.probe.probing import probe_cuda, reset_probe
from xbackprop.backend.probe.report import CudaDeviceInfo, CudaReport, size_text

__all__ = [
    "CheckOutcome",
    "CudaDeviceInfo",
    "CudaReport",
    "CudaState",
    "installed_cupy_packages",
    "probe_cuda",
    "reset_probe",
    "size_text",
]
