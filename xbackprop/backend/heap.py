"""Keep the memory of freed arrays in the process, for the next step's arrays."""

import ctypes
import platform
import sys

import numpy as np

# Of malloc.h: what glibc's mallopt is told.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
_reused: list[None] = []  # not empty once memory is kept


def reuse_memory() -> None:
    """Let the whole process keep the memory of freed arrays instead of giving it back to Linux.

    glibc maps each large array anew, and Linux fills each of its pages with zeros when it is first
    touched: in a training step on the CPU, which makes the same large arrays again and again, that
    is a noticeable share of the time. After this call large arrays come from the heap, which does
    not shrink.

    Raises
    ------
    NotImplementedError
        Anywhere but on Linux with glibc.
    RuntimeError
        When glibc refuses.

    Notes
    -----
    It concerns all of the process, also what has nothing to do with this library, until its end:
    its memory stays at the most that it ever was; only an optimizer gives free memory back, once,
    when it has moved the parameters. So nothing calls this by itself; a program that does little
    but train may, at its beginning. Numbers do not change.

    References
    ----------
    Linux manual, mallopt(3): M_MMAP_MAX, M_TRIM_THRESHOLD.

    Examples
    --------
    >>> import xbackprop as xb
    >>> xb.reuse_memory()  # doctest: +SKIP
    """
    if not sys.platform.startswith("linux") or platform.libc_ver()[0] != "glibc":
        raise NotImplementedError(
            f"reuse_memory on {platform.system()} without glibc: it tells glibc's malloc what to "
            "keep, and there is none. Leave it out."
        )
    mallopt = ctypes.CDLL(None).mallopt
    if not (mallopt(_MMAP_MAX, 0) and mallopt(_TRIM_THRESHOLD, -1)):
        raise RuntimeError("reuse_memory: glibc refuses to keep freed memory. Leave it out.")
    _reused[:] = [None]


def give_back_holes() -> None:
    """Let Linux have the memory that is free now, where :func:`reuse_memory` keeps it.

    For a moment after which large arrays are gone for good: what is made next would seldom fit
    into the places where they lay.

    References
    ----------
    Linux manual, malloc_trim(3).
    """
    if _reused:
        ctypes.CDLL(None).malloc_trim(0)


def let_heap_grow() -> None:
    """Free one block of nearly 32 MB, after which glibc keeps more of what is freed.

    By its own rule: blocks up to the size of the largest that was freed come from the heap, which
    gives back what exceeds twice that size. A program whose largest arrays are a few MB would
    otherwise have the heap shrink and grow in every step, and each page filled with zeros anew.
    Nothing is set, and elsewhere than on glibc nothing comes of it.

    References
    ----------
    Linux manual, mallopt(3): M_MMAP_THRESHOLD, "dynamic mmap threshold"; at most 32 MiB.
    """
    np.empty(31 << 20, dtype=np.uint8)
