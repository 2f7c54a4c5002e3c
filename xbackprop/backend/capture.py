"""Recording a step as a graph of kernels: what may not happen meanwhile, and who does it where.

While a CUDA stream is capturing, kernels are noted and not run. Nothing may wait for the device or
cross to the host, since nothing has happened yet that could be waited for; CuPy refuses cuBLAS,
cuRAND, cuSOLVER and cuSPARSE. Everything that the host decides is noted as it was: a replay asks no
Python. The stand-in GPU refuses the same, see :mod:`xbackprop.backend.fake.tape`.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any, Protocol

from xbackprop.backend.array_module import Array
from xbackprop.backend.device import Device

MOST_JOINED = 8  # arrays in one join: CuPy uploads the addresses of more


class CaptureError(RuntimeError):
    """A step cannot be recorded; says what stands in the way, and in which line."""


class Recorder(Protocol):
    """What records and replays on one device; made by :func:`open_recorder`."""

    def warm_up(self, function: Callable[[], Any]) -> Any:
        """Run ``function`` as the capture will: on its stream, with memory from its pool."""

    def capture(self, function: Callable[[], Any], held: Sequence[Array]) -> Any:
        """Note what ``function`` does without doing it.

        Parameters
        ----------
        function : callable
            Without arguments; what it returns are arrays that every replay writes anew.
        held : sequence of array
            All that lives longer than one call of ``function``; unchanged afterwards.

        Raises
        ------
        CaptureError
            When it does something that cannot be recorded.
        """

    def replay(self) -> None:
        """Do what was noted once more, on the current stream."""


def open_recorder(device: Device) -> Recorder:
    """Return a recorder for a device.

    Parameters
    ----------
    device : Device
        Where it records.

    Returns
    -------
    Recorder

    Raises
    ------
    CaptureError
        For a device that cannot record.
    """
    if device.kind == "fake":
        from xbackprop.backend.fake.tape import TapeRecorder

        return TapeRecorder(device)
    if device.kind == "cuda":
        from xbackprop.backend.cuda_graph import GraphRecorder

        return GraphRecorder(device)
    raise CaptureError(f"device {device} cannot record: only a GPU has streams to capture")


# Of this context, as the device choice is.
_recording: ContextVar[bool] = ContextVar("xbackprop_recording", default=False)
_captured: ContextVar[Device | None] = ContextVar("xbackprop_captured", default=None)


def is_recording() -> bool:
    """Tell whether a recorder runs this code, for its warm-up or to capture it."""
    return _recording.get()


def captured_device() -> Device | None:
    """Return the device that is capturing where its prohibitions hold, else None."""
    return _captured.get()


@contextlib.contextmanager
def recording(captured: Device | None = None) -> Iterator[None]:
    """Say that a recorder runs the block: as a warm-up, or capturing a device."""
    tokens = _recording.set(True), _captured.set(captured)
    try:
        yield
    finally:
        _captured.reset(tokens[1])
        _recording.reset(tokens[0])


@contextlib.contextmanager
def prohibitions_lifted() -> Iterator[None]:
    """Let a reference run for the kernel that it stands for, which does nothing prohibited."""
    token = _captured.set(None)
    try:
        yield
    finally:
        _captured.reset(token)
