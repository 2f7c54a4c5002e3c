"""Loops for the kernels of the CPU, compiled by numba (extra ``fast``) when they are first used.

Sequential, without the GIL, in a plain ``for i in range(n)``: so LLVM vectorizes them. They keep
NaN and infinities as NumPy does; what they leave out of the range of a float32 is said where it is.
"""

import functools
import importlib
from importlib.util import find_spec
from typing import Any

import numpy as np

from xbackprop.dispatch import ArraySpec

HAS_NUMBA = find_spec("numba") is not None
_FLOAT32, _FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)


@functools.cache
def loops(name: str) -> Any:
    """Return a module of loops; the first call takes numba's import, 0.3 seconds."""
    return importlib.import_module(f"xbackprop.kernels.loops.{name}")


def is_plain(*specs: Any) -> bool:
    """Tell whether arrays are what the loops are compiled for: float32, in C order, not empty."""
    return HAS_NUMBA and _are_plain(specs, _FLOAT32)


def is_plain_float(*specs: Any) -> bool:
    """Tell the same for loops that are compiled for float32 and for float64, one in a call."""
    return HAS_NUMBA and (_are_plain(specs, _FLOAT32) or _are_plain(specs, _FLOAT64))


def _are_plain(specs: Any, dtype: np.dtype) -> bool:
    for spec in specs:  # asked before every call of a kernel
        if (
            type(spec) is not ArraySpec  # a number
            or spec.dtype != dtype
            or not spec.is_contiguous
            or 0 in spec.shape
        ):
            return False
    return True
