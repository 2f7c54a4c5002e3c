"""What a machine can do at most, measured: the rate of a product and that of a copy."""

from dataclasses import dataclass
from typing import Any

from xbackprop.backend.device import Device, synchronize, use_device
from xbackprop.backend.timing import Stopwatch

_SIDE = {"cpu": 1024, "cuda": 4096}  # of square matrices: large enough for full speed
_COPIED_BYTES = {"cpu": 1 << 26, "cuda": 1 << 28}  # more than caches hold
_REPEATS = 5


@dataclass(frozen=True)
class MachinePeak:
    """The best of some runs.

    Attributes
    ----------
    flops_per_second : float
        Of a product of two square matrices.
    bytes_per_second : float
        Read and written by a copy.
    """

    flops_per_second: float
    bytes_per_second: float


def measure_peak(device: Device, dtype: Any) -> MachinePeak | None:
    """Measure a device.

    Parameters
    ----------
    device : Device
        Which one; on ``cuda`` not yet measured on a GPU.
    dtype : dtype
        Of the product.

    Returns
    -------
    MachinePeak or None
        None on ``fake``, which has no time.
    """
    if device.kind == "fake":
        return None
    with use_device(device):
        xp, side = device.xp, _SIDE[device.kind]
        a, product = xp.ones((side, side), dtype=dtype), xp.empty((side, side), dtype=dtype)
        product_seconds = _least_seconds(device, lambda: xp.dot(a, a, out=product))
        source = xp.ones(_COPIED_BYTES[device.kind] // 4, dtype="float32")
        target = xp.empty_like(source)
        copy_seconds = _least_seconds(device, lambda: xp.copyto(target, source))
    return MachinePeak(2 * side**3 / product_seconds, 2 * source.nbytes / copy_seconds)


def _least_seconds(device: Device, run: Any) -> float:
    watch, taken = Stopwatch(), []
    run()
    for _ in range(_REPEATS):
        synchronize(device)
        start = watch.mark(device)
        run()
        taken.append((start, watch.mark(device)))
    return min((watch.seconds(end) or 0.0) - (watch.seconds(start) or 0.0) for start, end in taken)
