"""The stand-in's devices: which is current, how much memory each holds."""

from collections import deque
from collections.abc import Callable
from contextvars import ContextVar, Token

from xbackprop.backend.device import FAKE_DEVICE_COUNT, process_device
from xbackprop.backend.fork import LockHolder, use
from xbackprop.backend.memory import requested_limit

_current: ContextVar[int | None] = ContextVar("xbackprop_fake_device", default=None)


class current_device:  # lower case: it reads as a function in a `with` statement
    """Make ``fake:index`` the device on which the namespace creates arrays."""

    __slots__ = ("_index", "_tokens")

    def __init__(self, index: int) -> None:
        self._index = index
        self._tokens: list[Token[int | None]] = []

    def __enter__(self) -> int:
        self._tokens.append(_current.set(self._index))
        return self._index

    def __exit__(self, *exception: object) -> None:
        _current.reset(self._tokens.pop())


def current_index() -> int:
    """Return the index of the current stand-in device: activated here, else the process's."""
    index = _current.get()
    if index is not None:
        return index
    device = process_device()
    return device.index if device is not None and device.kind == "fake" else 0


class OutOfMemoryError(MemoryError):
    """The stand-in's memory limit is reached; CuPy's exception has this name too."""


class FakeMemory:
    """The book of one stand-in device's memory; threads may share it.

    Parameters
    ----------
    index : int
        Which stand-in device.

    Attributes
    ----------
    index : int
        Which device.
    pooled : int
        Bytes that no array uses and no array can take before :meth:`free_unused`: the fragments of
        a real pool. The stand-in makes none; a test sets them.
    """

    def __init__(self, index: int) -> None:
        self.index = index
        self.pooled = 0
        self._limit: int | None = None
        self._has_limit = False  # until the first use, when the variable is read
        self._used = 0
        self._peak = 0
        self._booking = LockHolder()
        # The garbage collector may release memory at any line, also in the middle of `reserve`,
        # which must not see its numbers move: releases queue up (append is atomic).
        self._released: deque[int] = deque()

    @property
    def limit(self) -> int | None:
        """Bytes it has, None without bound; an allocation beyond raises, as a full GPU does."""
        if not self._has_limit:
            self.limit = requested_limit()
        return self._limit

    @limit.setter
    def limit(self, size_bytes: int | None) -> None:
        self._limit, self._has_limit = size_bytes, True

    @property
    def used(self) -> int:
        """Bytes held by arrays now; views hold none of their own."""
        with self._booking.lock:
            self._settle()
            return self._used

    @property
    def peak(self) -> int:
        """The most bytes held at one time since :meth:`reset_peak`."""
        return self._peak

    def reset_peak(self) -> None:
        """Measure the peak from now on."""
        with self._booking.lock:
            self._settle()
            self._peak = self._used

    def measure(self, function: Callable[[], object]) -> int:
        """Return the most bytes that a call took; what :attr:`peak` tells stays right."""
        earlier = self._peak
        self.reset_peak()
        before = self._used
        try:
            function()
            return self._peak - before
        finally:
            self._peak = max(self._peak, earlier)

    def free_unused(self) -> None:
        """Give back what the pool keeps."""
        self.pooled = 0

    def reserve(self, size_bytes: int) -> None:
        """Take ``size_bytes`` or raise OutOfMemoryError."""
        use("fake")
        with self._booking.lock:
            self._settle()
            limit = self.limit
            if limit is not None and self._used + self.pooled + size_bytes > limit:
                raise OutOfMemoryError(
                    f"out of memory on fake:{self.index}: {size_bytes} bytes asked for, "
                    f"{self._used} of {limit} in use. Free arrays, use smaller batches, or "
                    "raise the limit."
                )
            self._used += size_bytes
            self._peak = max(self._peak, self._used)

    def release(self, size_bytes: int) -> None:
        """Give ``size_bytes`` back."""
        self._released.append(size_bytes)

    def _settle(self) -> None:
        while self._released:
            self._used -= self._released.popleft()


class Allocation:
    """The memory behind one array and all its views; given back when the last of them goes."""

    __slots__ = ("_memory", "size_bytes")

    def __init__(self, memory: FakeMemory, size_bytes: int) -> None:
        self.size_bytes = 0  # so that a refused reservation gives nothing back
        self._memory = memory
        memory.reserve(size_bytes)
        self.size_bytes = size_bytes

    def __del__(self) -> None:
        self._memory.release(self.size_bytes)


_memories = tuple(FakeMemory(index) for index in range(FAKE_DEVICE_COUNT))


def memory_of(index: int) -> FakeMemory:
    """Return the memory book of ``fake:index``."""
    return _memories[index]


def set_memory_limit(size_bytes: int | None, index: int = 0) -> None:
    """Limit the memory of ``fake:index`` in bytes; None lifts the limit.

    Parameters
    ----------
    size_bytes : int or None
        The limit; None lifts it.
    index : int, default 0
        Which stand-in device.

    Raises
    ------
    ValueError
        For a negative limit or a device that does not exist.
    """
    if not 0 <= index < FAKE_DEVICE_COUNT:
        raise ValueError(f"expected a device index from 0 to {FAKE_DEVICE_COUNT - 1}; got {index}")
    if size_bytes is not None and size_bytes < 0:
        raise ValueError(f"expected a limit of at least 0 bytes, or None; got {size_bytes}")
    memory_of(index).limit = size_bytes
