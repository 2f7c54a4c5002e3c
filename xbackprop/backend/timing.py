"""Moments on a device, and the seconds between them."""

import sys
import time
from typing import Any

from xbackprop.backend.device import Device


class Stopwatch:
    """Takes moments without waiting for a device; their seconds are known at the end.

    A moment on the CPU is that of the host, on ``cuda`` an event in the current stream (not yet
    measured on a GPU), and on ``fake`` None, since a stand-in has no time of its own.

    Attributes
    ----------
    taken_out : float
        Seconds that the host spent on measuring: they are no part of its moments.
    """

    def __init__(self) -> None:
        self.taken_out = 0.0
        self._origins: dict[int, tuple[Any, float]] = {}  # by GPU: its first event, and when

    def mark(self, device: Device) -> Any:
        """Return a moment, for :meth:`seconds`."""
        if device.kind == "fake":
            return None
        if device.kind == "cpu":
            return time.perf_counter() - self.taken_out
        cupy = sys.modules["cupy"]
        with device.activate():
            event = cupy.cuda.Event()
            event.record()
        origin, _ = self._origins.setdefault(device.index, (event, self.mark(Device("cpu"))))
        return origin, event

    def seconds(self, moment: Any) -> float | None:
        """Return the seconds of a moment, counted from one origin for all of them.

        Parameters
        ----------
        moment : object
            Of :meth:`mark`; an event is waited for.

        Returns
        -------
        float or None
        """
        if moment is None or isinstance(moment, float):
            return moment
        origin, event = moment
        event.synchronize()
        start = next(host for first, host in self._origins.values() if first is origin)
        milliseconds = sys.modules["cupy"].cuda.get_elapsed_time(origin, event)
        return start + float(milliseconds) / 1000


def has_time(device: Device) -> bool:
    """Tell whether time on a device means anything."""
    return device.kind != "fake"
