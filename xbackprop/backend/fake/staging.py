"""The stand-in's copy stream: copies happen as late as a GPU could do them.

An array is full of NaN until someone waits for its copy, and the pinned buffer is read-only until
then: a wait that is missing shows.
"""

from collections import deque

import numpy as np

from xbackprop.backend.fake.creation import empty
from xbackprop.backend.fake.execute import FakeArray, refuse_dtype
from xbackprop.backend.fork import LockHolder


class FakeCopyStream:
    """A second stream of ``fake:index``; see :class:`xbackprop.backend.staging.CopyStream`.

    Parameters
    ----------
    index : int
        Which stand-in device.
    """

    def __init__(self, index: int) -> None:
        self.index = index
        self._begun = 0
        self._done = 0
        self._pending: deque[tuple[np.ndarray, np.ndarray]] = deque()
        self._working = LockHolder()

    def pinned(self, size_bytes: int) -> np.ndarray:
        """Return host memory."""
        return np.empty(size_bytes, np.uint8)

    def follow_computation(self) -> None:
        """Do nothing: the stand-in computes at once."""

    def copy(self, host: np.ndarray) -> FakeArray:
        """Return an array that holds nothing yet."""
        refuse_dtype(host.dtype)
        array = empty(host.shape, host.dtype)
        with self._working.lock:
            _root(host).flags.writeable = False
            self._pending.append((host, array._array))
            self._begun += 1
        return array

    def mark(self) -> int:
        """Return how many copies were begun."""
        return self._begun

    def hold_computation(self, mark: int) -> None:
        """Do the copies before a mark."""
        with self._working.lock:
            while self._done < mark:
                host, target = self._pending.popleft()
                target[...] = host
                self._done += 1
                if all(_root(other) is not _root(host) for other, _ in self._pending):
                    _root(host).flags.writeable = True

    def wait(self, mark: int) -> None:
        """Do the copies before a mark."""
        self.hold_computation(mark)


def _root(view: np.ndarray) -> np.ndarray:
    """Return the whole buffer that a view is a part of."""
    while isinstance(view.base, np.ndarray):
        view = view.base
    return view
