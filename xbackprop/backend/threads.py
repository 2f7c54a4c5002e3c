"""How many threads the CPU's products and kernels may use while the library computes."""

import contextlib
import os
import threading
from collections import deque
from collections.abc import Iterator
from typing import Any, Self

from xbackprop.backend.fork import LockHolder, renew_in_child

VARIABLE = "XBACKPROP_NUM_THREADS"
_UNREAD: Any = object()
_number: Any = _UNREAD  # int, None where nobody chose one, or not yet read from the environment
_AS_IT_IS: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
_controllers: list[Any] = []
_changing = LockHolder()
_helpers: deque[int] = deque(maxlen=64)  # the system may be about to end the last ones yet
_limits: list[int] = []  # of the calls that run now, in any thread
_found: list[int] = []  # what the libraries stood at before the first of them
_standing: list[int] = []  # what they stand at: a small network feels each call that sets them


def set_num_threads(number: int | None) -> None:
    """Choose how many threads matrix products on the CPU may use inside calls of this library.

    Kernels that share their work among threads of their own use as many.

    Parameters
    ----------
    number : int or None
        At least 1; None asks ``XBACKPROP_NUM_THREADS`` again, without which the library leaves
        BLAS as its user set it.

    Raises
    ------
    TypeError
        For what is no int.
    ValueError
        For a number below 1.
    ImportError
        Without threadpoolctl (extra ``fast``), which alone can tell BLAS.

    Notes
    -----
    BLAS has one number for the whole process. It is changed when a forward, a backward or a
    training step begins and put back when the last of those that run has ended; of several at once
    the smallest number holds.

    Examples
    --------
    >>> import xbackprop as xb
    >>> xb.set_num_threads(1)  # doctest: +SKIP
    >>> xb.get_num_threads()  # doctest: +SKIP
    1
    """
    global _number
    if number is not None:
        if isinstance(number, bool) or not isinstance(number, int):
            raise TypeError(f"set_num_threads expects an int or None; got {number!r}")
        if number < 1:
            raise ValueError(f"set_num_threads expects at least 1; got {number}")
        _find_libraries()
    _number = _UNREAD if number is None else number


def get_num_threads() -> int:
    """Return how many threads products may use: what was chosen, else what BLAS stands at.

    Without threadpoolctl, and with no choice, that is the number of processors of this process.
    """
    chosen = _chosen()
    if chosen is not None:
        return chosen
    try:
        return max((library.get_num_threads() for library in _find_libraries()), default=1)
    except ImportError:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


@contextlib.contextmanager
def share_work(parts: int) -> Iterator[int]:
    """Give a kernel threads for so many parts of its work; inside, BLAS keeps to one in each.

    Parameters
    ----------
    parts : int
        At least 1. For one nothing is asked and BLAS is left alone.

    Yields
    ------
    int
        As many threads as products may use now, less those of this process that run besides this
        one (counted on Linux only), and no more than there are parts. It is 1 inside shards, and
        where another kernel shares its work; and without threadpoolctl, as BLAS can be told nothing
        there.

    Notes
    -----
    All products of the kernel belong inside: with one thread each they have the same bits, however
    many there are. After a product in several threads those of OpenBLAS look out for the next one
    for a tenth of a second, and keep their cores from everybody else: a kernel whose threads share
    a core with one of them takes longer than alone.
    """
    number = _at_hand() if parts > 1 else 1
    if number == 1:
        yield 1
        return
    with blas_threads(1):
        yield max(1, min(parts, number - _others_that_run()))


def _at_hand() -> int:
    try:
        libraries = _find_libraries()
    except ImportError:
        return 1
    with _changing.lock:
        if _limits:
            return min(_limits)
    return _chosen() or max((library.get_num_threads() for library in libraries), default=1)


def note_helper() -> None:
    """Note that this thread was started to share a kernel's work, and ends with it."""
    _helpers.append(threading.get_native_id())


def _others_that_run() -> int:
    ours = {str(number) for number in (threading.get_native_id(), *_helpers.copy())}
    count = 0
    try:
        others = set(os.listdir("/proc/self/task")) - ours
    except OSError:  # not on Linux
        return count
    for thread in others:
        with contextlib.suppress(OSError), open(f"/proc/self/task/{thread}/stat", "rb") as file:
            count += file.read().rpartition(b")")[2].split()[0] == b"R"
    return count


def _chosen() -> int | None:
    global _number
    if _number is _UNREAD:
        text = os.environ.get(VARIABLE, "").strip()
        if text and not (text.isascii() and text.isdigit() and int(text)):
            raise ValueError(f"{VARIABLE} expects a number of at least 1; got {text!r}")
        if text:
            _find_libraries()
        _number = int(text) if text else None
    chosen: int | None = _number
    return chosen


def _find_libraries() -> list[Any]:
    """Return what sets the threads of each BLAS in the process; looked for once."""
    if not _controllers:
        try:
            from threadpoolctl import ThreadpoolController
        except ImportError as error:
            raise ImportError(
                "the number of threads needs the package threadpoolctl, which is not installed. "
                "Install it with: pip install 'xbackprop[fast]'"
            ) from error
        _controllers.extend(ThreadpoolController().select(user_api="blas").lib_controllers)
    return _controllers


class blas_threads:
    """Let BLAS use so many threads inside a block, whichever thread enters it.

    Parameters
    ----------
    number : int
        At least 1.
    """

    __slots__ = ("_limit",)

    def __init__(self, number: int) -> None:
        self._limit = number

    def __enter__(self) -> Self:
        libraries = _find_libraries()
        with _changing.lock:
            if not _limits:
                _found[:] = [library.get_num_threads() for library in libraries]
                _standing[:] = _found
            _limits.append(self._limit)
            _apply(libraries)
        return self

    def __exit__(self, *exception: object) -> None:
        with _changing.lock:
            _limits.remove(self._limit)
            _apply(_controllers)


def _apply(libraries: list[Any]) -> None:
    """Give the libraries the smallest number of those that run, or what they stood at before."""
    wanted = [min(_limits)] * len(libraries) if _limits else _found
    for place, (library, number) in enumerate(zip(libraries, wanted, strict=True)):
        if number != _standing[place]:
            library.set_num_threads(number)
            _standing[place] = number


def _forget_other_threads() -> None:
    """Restore BLAS in a forked child: the calls that ran in other threads will not end there."""
    if _limits:
        _limits.clear()
        _apply(_controllers)


renew_in_child(_forget_other_threads)


def threads_of_call() -> contextlib.AbstractContextManager[Any]:
    """Return the block in which a call on the CPU runs."""
    if _number is None:  # first of all the common case
        return _AS_IT_IS
    chosen = _chosen()
    return _AS_IT_IS if chosen is None else blas_threads(chosen)
