"""The half dtypes: float16, and bfloat16, which NumPy knows through ml_dtypes only."""

from typing import Any

import numpy as np

HALF_NAMES = ("bfloat16", "float16")


def half_dtype(name: str) -> np.dtype:
    """Return a half dtype by its name.

    Parameters
    ----------
    name : {"bfloat16", "float16"}
        Of the dtype.

    Returns
    -------
    dtype

    Raises
    ------
    ImportError
        For bfloat16 without the package ml_dtypes.
    """
    if name == "float16":
        return np.dtype(np.float16)
    try:
        import ml_dtypes
    except ImportError as error:
        raise ImportError(
            "bfloat16 arrays need the package ml_dtypes, which is not installed. "
            "Install it with: pip install 'xbackprop[half]'"
        ) from error
    return np.dtype(ml_dtypes.bfloat16)


def is_half(dtype: Any) -> bool:
    """Tell whether a dtype is float16 or bfloat16."""
    answer: bool = dtype.itemsize == 2 and dtype.name in HALF_NAMES  # asked in every product
    return answer


def is_float_dtype(dtype: Any) -> bool:
    """Tell whether a dtype is real floating point; bfloat16 has its own kind in NumPy."""
    return bool(dtype.kind == "f" or dtype.name == "bfloat16")


def widened(dtype: Any) -> Any:
    """Return the dtype that sums of this one are made in: float32 for a half, else itself."""
    return np.dtype(np.float32) if is_half(dtype) else dtype
