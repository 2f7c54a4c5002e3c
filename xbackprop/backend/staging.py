"""Batches on their way up: through two pinned host buffers, on a stream of their own.

While a batch is computed with, the next one is gathered and copied. Per batch:

1. The host waits until the last copy out of the buffer is done (that of two batches before).
2. The copy stream waits for what the computing stream has been given so far. Device memory comes
   from the copy stream's part of the pool, where arrays of earlier batches return while kernels
   that read them may still be running.
3. The computing stream waits for the copies, on the device, before the batch is handed out.
"""

from collections import deque
from collections.abc import Generator, Iterable, Sequence
from itertools import accumulate
from typing import Any, Protocol

import numpy as np

from xbackprop.backend.array_module import Array
from xbackprop.backend.device import CPU, Device, resolve_device
from xbackprop.backend.fork import LockHolder
from xbackprop.backend.memory import is_out_of_memory
from xbackprop.backend.transfer import record, to_device, uploadable

_ALIGNMENT = 256  # bytes, as CUDA's own allocations


class CopyStream(Protocol):
    """A second stream of a device, for copies from pinned memory."""

    def pinned(self, size_bytes: int) -> np.ndarray:
        """Return host memory of bytes that the device can read by itself."""

    def follow_computation(self) -> None:
        """Let later copies wait, on the device, for what the current stream was given so far."""

    def copy(self, host: np.ndarray) -> Array:
        """Begin to copy a part of pinned memory; the array must not be read before the mark."""

    def mark(self) -> Any:
        """Return a mark behind the copies begun so far."""

    def hold_computation(self, mark: Any) -> None:
        """Let the current stream wait, on the device, for the copies before a mark."""

    def wait(self, mark: Any) -> None:
        """Wait, on the host, for the copies before a mark."""


class _Cuda:
    """CuPy's stream and events."""

    def __init__(self, device: Device) -> None:
        import cupy

        self._cupy = cupy
        with device.activate():
            self._stream = cupy.cuda.Stream(non_blocking=True)

    def pinned(self, size_bytes: int) -> np.ndarray:
        memory = self._cupy.cuda.alloc_pinned_memory(max(size_bytes, 1))
        return np.frombuffer(memory, np.uint8, size_bytes)

    def follow_computation(self) -> None:
        self._stream.wait_event(self._record(self._cupy.cuda.get_current_stream()))

    def copy(self, host: np.ndarray) -> Array:
        with self._stream:  # so that the memory is of this stream's part of the pool
            array = self._cupy.empty(host.shape, dtype=host.dtype)
            array.set(host, stream=self._stream)
        return array

    def mark(self) -> Any:
        return self._record(self._stream)

    def hold_computation(self, mark: Any) -> None:
        self._cupy.cuda.get_current_stream().wait_event(mark)

    def wait(self, mark: Any) -> None:
        mark.synchronize()

    def _record(self, stream: Any) -> Any:
        event = self._cupy.cuda.Event(disable_timing=True)
        event.record(stream)
        return event


_streams: dict[Device, CopyStream] = {}
_making = LockHolder()


def copy_stream(device: Device) -> CopyStream:
    """Return the one copy stream of a GPU, real or stand-in.

    Its part of the pool is then used again by every loop over batches.
    """
    with _making.lock:
        if device not in _streams:
            if device.kind == "fake":
                from xbackprop.backend.fake.staging import FakeCopyStream

                _streams[device] = FakeCopyStream(device.index)
            else:
                _streams[device] = _Cuda(device)
        return _streams[device]


class _Buffer:
    """A pinned buffer, and the mark of the last copies out of it."""

    def __init__(self, stream: CopyStream) -> None:
        self.stream = stream
        self.memory: np.ndarray | None = None
        self.last: Any = None

    def upload(self, arrays: Sequence[np.ndarray]) -> list[Array]:
        """Begin to copy arrays up, once the buffer is free."""
        self.wait()
        room = [-(-array.nbytes // _ALIGNMENT) * _ALIGNMENT for array in arrays]
        if self.memory is None or self.memory.nbytes < sum(room):
            self.memory = self.stream.pinned(sum(room))
        parts = []
        for array, start in zip(arrays, accumulate(room, initial=0), strict=False):
            part = self.memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
            part[...] = array
            parts.append(part)
        self.stream.follow_computation()
        try:
            return [self.stream.copy(part) for part in parts]
        finally:
            self.last = self.stream.mark()  # also of copies before one that found no memory

    def wait(self) -> None:
        """Wait until nothing is copied out of the buffer any more."""
        if self.last is not None:
            self.stream.wait(self.last)
            self.last = None


class _Staged:
    """A batch on its way to a device."""

    def __init__(self, arrays: Sequence[np.ndarray], device: Device, buffer: _Buffer) -> None:
        self.device = device
        with device.activate():
            self._arrays = buffer.upload(arrays)
        self._stream, self._mark = buffer.stream, buffer.last

    def take(self) -> list[Array]:
        """Return the arrays for the current stream, and book the uploads."""
        with self.device.activate():
            self._stream.hold_computation(self._mark)
        for array in self._arrays:
            record("upload", array.nbytes, self.device, "to_device()")
        return self._arrays


_Ahead = tuple[list[np.ndarray], _Staged | None]


def stream_to_device(
    batches: Iterable[Sequence[np.ndarray]], device: str | Device | None = None
) -> Generator[list[Array], None, None]:
    """Move batches of host arrays to a device, each while the one before it is computed with.

    Parameters
    ----------
    batches : iterable of sequences of numpy.ndarray
        Read one ahead of what is handed out, except on the CPU.
    device : str or Device, optional
        Where to; None is the default device when a batch is handed out.

    Yields
    ------
    list of arrays
        As :func:`xbackprop.to_device` gives them, and booked like its uploads, when handed out; on
        the CPU the arrays themselves. They are for the stream that is current then.

    Notes
    -----
    The batch ahead takes memory of its own on the device; where there is none for it, it is moved
    when it is its turn.

    Examples
    --------
    >>> import numpy as np
    >>> for (x,) in stream_to_device([[np.ones(2)], [np.zeros(2)]], "fake"):
    ...     print(x.device, float(x.sum()))
    fake:0 2.0
    fake:0 0.0
    """
    lanes: dict[Device, list[_Buffer]] = {}

    def stage(arrays: list[np.ndarray]) -> _Staged | None:
        place = resolve_device(device)
        if place == CPU:
            return None
        lane = lanes.setdefault(place, [_Buffer(copy_stream(place)) for _ in range(2)])
        lane.reverse()
        try:
            return _Staged(arrays, place, lane[0])
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error, place):
                raise
        return None

    try:
        ahead: deque[_Ahead] = deque()  # popped, so that what is handed out is its user's alone
        for batch in batches:
            arrays = [uploadable(array) for array in batch]
            ahead.append((arrays, stage(arrays)))
            if len(ahead) > 1:
                yield _hand_out(*ahead.popleft(), device)
            if ahead[0][1] is None:  # nothing is gained by waiting
                yield _hand_out(*ahead.popleft(), device)
        if ahead:
            yield _hand_out(*ahead.popleft(), device)
    finally:
        for lane in lanes.values():
            for buffer in lane:
                buffer.wait()  # its memory goes


def _hand_out(
    arrays: list[np.ndarray], staged: _Staged | None, device: str | Device | None
) -> list[Array]:
    if staged is not None and staged.device == resolve_device(device):
        return staged.take()
    return [to_device(array, device) for array in arrays]
