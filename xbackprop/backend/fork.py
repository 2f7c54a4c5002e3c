"""What a forked child gets: locks that are free, and no GPU that its parent had used.

``fork`` copies one thread. A lock that another thread held stays held for ever in the child, and
CUDA does not work there once the parent has started it.
"""

import os
import threading
from collections.abc import Callable


class LockHolder:
    """Holds a lock, ``with holder.lock:``, that is free in a forked child.

    Make one for the whole life of the process. A thread that has the lock may take it again.
    """

    __slots__ = ("lock",)

    def __init__(self) -> None:
        self.renew()
        renew_in_child(self.renew)

    def renew(self) -> None:
        """Forget which thread holds the lock: it does not exist in this process."""
        self.lock = threading.RLock()


_renewals: list[Callable[[], None]] = []
_used: set[str] = set()  # kinds of devices used by this process
_lost: set[str] = set()  # kinds used by a process that this one was forked from


def renew_in_child(function: Callable[[], None]) -> None:
    """Let a function run first thing in every forked child, until this process ends."""
    _renewals.append(function)


def use(kind: str) -> None:
    """Note that a kind of device is used from now on.

    Parameters
    ----------
    kind : {"cuda", "fake"}
        As in :class:`Device`.

    Raises
    ------
    DeviceUnavailableError
        When the process was forked after it was used.
    """
    refuse_lost(kind)
    _used.add(kind)


def refuse_lost(kind: str) -> None:
    """Raise DeviceUnavailableError when this process was forked after the device was used."""
    if kind in _lost:
        from xbackprop.backend.device import DeviceUnavailableError

        reason, fix = explain_loss(kind) or ("", "")
        raise DeviceUnavailableError(f"device {kind!r} cannot be used: {reason}. Fix: {fix}")


def explain_loss(kind: str) -> tuple[str, str] | None:
    """Return why this process cannot use a kind of device and what to do; None where it can."""
    if kind not in _lost:
        return None
    return (
        f"this process was forked after {kind!r} was used, and the state of a GPU does not "
        "survive a fork",
        "start processes with multiprocessing.get_context('spawn') or ('forkserver'), or before "
        "the first use; 'cpu' works in this one",
    )


def _in_child() -> None:
    for renew in _renewals:
        renew()
    _lost.update(_used)


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_in_child)
