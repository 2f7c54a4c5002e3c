"""The parts of one call in several threads, each with memory to work in that is there already."""

import math
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from typing import Any, ClassVar, Self

import numpy as np

from xbackprop.backend.threads import note_helper

KEPT = 4 << 20  # bytes of a block that are kept at most
BLOCKS = 16  # that are kept at most
LINE = 64  # bytes of a line of the cache, at whose beginnings arrays lie


class Workspace:
    """Memory to work in, ``with Workspace() as workspace:``, that stays for the next call.

    Nothing of it may be returned or saved. What is in it at first is anything.
    """

    __slots__ = ("_block", "taken")
    _free: ClassVar[deque[np.ndarray]] = deque(maxlen=BLOCKS)  # append and pop are atomic

    def __enter__(self) -> Self:
        try:
            self._block = self._free.pop()
        except IndexError:
            self._block = _new_block(0)
        self.taken = 0  # bytes
        return self

    def __exit__(self, *exception: object) -> None:
        self.clear()
        if self._block.nbytes <= KEPT:
            self._free.append(self._block)

    def clear(self, kept: int = 0) -> None:
        """Take back all arrays but the first, which took so many bytes."""
        if self.taken > self._block.nbytes:
            self._block = _new_block(self.taken)
        self.taken = kept

    def take(self, *shape: int) -> np.ndarray:
        """Return an array of float32; its own until :meth:`clear`."""
        size, start = math.prod(shape) * 4, self.taken
        self.taken += -(-size // LINE) * LINE
        if self.taken > self._block.nbytes:
            return np.empty(shape, np.float32)
        return self._block[start : start + size].view(np.float32).reshape(shape)


def _new_block(size: int) -> np.ndarray:
    memory = np.empty(size + LINE, np.uint8)
    start = -memory.ctypes.data % LINE
    return memory[start : start + size]


def in_parts(
    function: Callable[[Any, Workspace], object],
    items: Iterable[Any],
    threads: int,
    workspace: Workspace,
) -> None:
    """Call a function with each of some items, in so many threads at once, or fewer.

    Parameters
    ----------
    function : callable
        Is called with an item and a workspace, in which it may take what it needs; and writes into
        nothing that it shares with other items.
    items : iterable
        What there is to do.
    threads : int
        As :func:`xbackprop.backend.threads.share_work` gives them; this one is the first.
    workspace : Workspace
        Of this thread. What is taken of it already stays.
    """
    waiting = deque(items)
    helpers = min(threads, len(waiting)) - 1

    def work(workspace: Workspace) -> None:
        kept = workspace.taken
        try:
            while waiting:
                try:
                    item = waiting.popleft()
                except IndexError:  # another thread has the last one
                    break
                function(item, workspace)
                workspace.clear(kept)
        finally:
            waiting.clear()  # after an error

    def help_out() -> None:
        note_helper()
        with Workspace() as another:
            work(another)

    if helpers < 1:
        work(workspace)
        return
    # The other threads live for this call: nothing to end, and nothing that a fork loses.
    with ThreadPoolExecutor(helpers) as pool:
        calls = []
        with suppress(RuntimeError):  # at the interpreter's end no thread can be started
            for _ in range(helpers):
                calls.append(pool.submit(copy_context().run, help_out))
        work(workspace)
        for call in calls:
            call.result()
