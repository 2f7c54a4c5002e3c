"""The stand-in's devices: which is current, how much memory each holds."""

from contextvars import ContextVar, Token
from dataclasses import dataclass

_current: ContextVar[int] = ContextVar("xbackprop_fake_device", default=0)


class current_device:  # noqa: N801  (a context manager that reads as a function)
    """Make ``fake:index`` the device on which the namespace creates arrays."""

    __slots__ = ("_index", "_tokens")

    def __init__(self, index: int) -> None:
        self._index = index
        self._tokens: list[Token[int]] = []

    def __enter__(self) -> int:
        self._tokens.append(_current.set(self._index))
        return self._index

    def __exit__(self, *exception: object) -> None:
        _current.reset(self._tokens.pop())


def current_index() -> int:
    """Return the index of the current stand-in device."""
    return _current.get()


@dataclass
class FakeMemory:
    """Bytes held by the arrays of one stand-in device.

    ``used`` and ``peak`` count what arrays own (views are free); an allocation beyond ``limit``
    raises MemoryError, as a full GPU does.
    """

    index: int
    used: int = 0
    peak: int = 0
    limit: int | None = None

    def reserve(self, size_bytes: int) -> None:
        """Take ``size_bytes`` or raise MemoryError."""
        if self.limit is not None and self.used + size_bytes > self.limit:
            raise MemoryError(
                f"out of memory on fake:{self.index}: {size_bytes} bytes asked for, "
                f"{self.used} of {self.limit} in use"
            )
        self.used += size_bytes
        self.peak = max(self.peak, self.used)


class Allocation:
    """The memory behind one array and all its views; given back when the last of them goes."""

    __slots__ = ("memory", "size_bytes")

    def __init__(self, memory: FakeMemory, size_bytes: int) -> None:
        self.size_bytes = 0  # so that a refused reservation gives nothing back
        self.memory = memory
        memory.reserve(size_bytes)
        self.size_bytes = size_bytes

    def __del__(self) -> None:
        self.memory.used -= self.size_bytes


_memories: dict[int, FakeMemory] = {}


def memory_of(index: int) -> FakeMemory:
    """Return the memory book of ``fake:index``."""
    return _memories.setdefault(index, FakeMemory(index))


def set_memory_limit(size_bytes: int | None, index: int = 0) -> None:
    """Limit the memory of ``fake:index`` in bytes; None lifts the limit."""
    memory_of(index).limit = size_bytes
