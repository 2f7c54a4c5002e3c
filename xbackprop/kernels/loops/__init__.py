"""Loops for the kernels of the CPU, compiled by numba (extra ``fast``) when they are first used.

Sequential, without the GIL, in a plain ``for i in range(n)``: so LLVM vectorizes them. They keep
NaN and infinities as NumPy does; what they leave out of the range of a float32 is said where it is.
"""

import functools
import importlib
from importlib.util import find_spec
from typing import Any

import numpy as np

HAS_NUMBA = find_spec("numba") is not None


@functools.cache
def loops(name: str) -> Any:
    """Return a module of loops; the first call takes numba's import, 0.3 seconds."""
    return importlib.import_module(f"xbackprop.kernels.loops.{name}")


def is_plain(*specs: Any) -> bool:
    """Tell whether arrays are what the loops are compiled for: float32, in C order, not empty."""
    return HAS_NUMBA and all(_is_plain(spec, np.float32) for spec in specs)


def is_plain_float(*specs: Any) -> bool:
    """Tell the same for loops that are compiled for float32 and for float64, one in a call."""
    return is_plain(*specs) or (HAS_NUMBA and all(_is_plain(spec, np.float64) for spec in specs))


def _is_plain(spec: Any, dtype: Any) -> bool:
    is_of_dtype = spec.dtype == dtype and spec.dtype.isnative
    return bool(is_of_dtype and spec.is_contiguous and 0 not in spec.shape)
