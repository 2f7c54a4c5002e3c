"""Turn what users hand over into NumPy arrays on the host, or say what is wrong with it."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from xbackprop.backend.array_module import is_device_array
from xbackprop.backend.half import is_float_dtype

# Device types of DLPack that are host memory: kDLCPU, and pinned host memory of CUDA and ROCm.
# https://dmlc.github.io/dlpack/latest/c_api.html (DLDeviceType)
_DLPACK_HOST = frozenset({1, 3, 11})

# Numbers scanned at a time by `check_finite`: bounds its temporary arrays to about 1 MB.
_SCAN_SIZE = 1 << 20


def as_host_array(values: object, name: str = "X", *, allow_empty: bool = False) -> np.ndarray:
    """Return ``values`` as a NumPy array of numbers with at least one axis.

    Parameters
    ----------
    values : array_like
        Nested lists, NumPy arrays, PyTorch CPU tensors, anything with ``__array__`` or DLPack.
        Memory is shared where it can be; the array is meant to be read, not written.
    name : str, default "X"
        What messages call it.
    allow_empty : bool, default False
        Accept an array without any element.

    Returns
    -------
    numpy.ndarray
        The dtype is kept: boolean, integer, or real floating point (bfloat16 included).

    Raises
    ------
    TypeError
        For arrays on a device, tensors that require a gradient, and dtypes that are not numbers.
    ValueError
        For ragged lists, a missing first axis, masked entries, and empty sets.
    """
    _refuse_device_array(values, name)
    if np.ma.is_masked(values):
        raise ValueError(
            f"{name} has masked entries, and nothing downstream would honour the mask. "
            "Fill them with .filled(value) or drop their rows first."
        )
    array = _to_numpy(values, name)
    if not is_number_dtype(array.dtype):
        hint = "Encode text as integers, and convert columns of numbers with .astype(np.float32)."
        if array.dtype.kind == "c":
            hint = "Pass the real and the imaginary part as two columns."
        elif array.ndim == 0:
            hint = "Pass a list, an array or a tensor (call .toarray() on a sparse matrix)."
        received = f"{type(values).__name__} of dtype {array.dtype}"
        raise TypeError(
            f"{name} expects real numbers, integers or booleans; got {received}. {hint}"
        )
    if array.ndim == 0:
        raise ValueError(f"{name} expects an array with one row per sample; got a single number.")
    if array.size == 0 and not allow_empty:
        raise ValueError(f"{name} is empty: its shape is {array.shape}. Expected at least one row.")
    return array


def as_inputs(X: object) -> dict[str, np.ndarray]:
    """Return one or several inputs as host arrays, by the names that messages call them.

    Parameters
    ----------
    X : array_like or tuple of array_like
        A tuple holds several inputs; a list is the values of one.

    Returns
    -------
    dict of str to numpy.ndarray
        ``{"X": ...}``, or ``{"X[0]": ..., "X[1]": ...}`` for a tuple.
    """
    if not isinstance(X, tuple):
        return {"X": as_host_array(X, "X")}
    if not X:
        raise ValueError("X is an empty tuple. Expected at least one input.")
    if any(isinstance(part, int | float | np.number) for part in X):
        raise TypeError(
            "X is a tuple, which stands for several inputs, each an array; got numbers in it. "
            "Write a list for the values of one input."
        )
    return {f"X[{i}]": as_host_array(part, f"X[{i}]") for i, part in enumerate(X)}


def is_number_dtype(dtype: np.dtype[Any]) -> bool:
    """Tell whether a dtype is boolean, integer or real floating point."""
    return dtype.kind in "biu" or is_float_dtype(dtype)


def check_same_length(**arrays: np.ndarray) -> int:
    """Return the common length of the first axes.

    Parameters
    ----------
    **arrays : numpy.ndarray
        Named as messages shall call them.

    Returns
    -------
    int

    Raises
    ------
    ValueError
        Names both lengths.
    """
    (first, reference), *others = arrays.items()
    for name, array in others:
        if len(array) != len(reference):
            raise ValueError(
                f"Expected {first} and {name} to have one row per sample each; "
                f"got {len(reference)} rows in {first} and {len(array)} in {name}."
            )
    return len(reference)


def check_finite(array: np.ndarray, name: str, dtype: np.dtype[Any]) -> None:
    """Refuse NaN, infinities and numbers that a cast to ``dtype`` would make infinite.

    Parameters
    ----------
    array : numpy.ndarray
        Integers and booleans are finite and pass unread.
    name : str
        What messages call it.
    dtype : numpy.dtype
        Floating-point dtype that the numbers will be cast to.

    Raises
    ------
    ValueError
        Names the index and the value of the first offending entry.
    """
    if not is_float_dtype(array.dtype):
        return
    narrowing = array.dtype != dtype
    for start, rows in _row_blocks(array):
        with np.errstate(over="ignore", invalid="ignore"):
            finite = np.isfinite(rows.astype(dtype) if narrowing else rows)
        if finite.all():
            continue
        index = np.unravel_index(int(np.argmin(finite)), finite.shape)
        where = ", ".join(str(int(i)) for i in (index[0] + start, *index[1:]))
        value = rows[index]
        if np.isfinite(value):
            raise ValueError(f"{name}[{where}] is {value}, too large for {dtype}. Rescale {name}.")
        raise ValueError(
            f"{name} expects finite numbers; got {name}[{where}] = {value}. "
            "Drop such rows or fill in a number."
        )


def _row_blocks(array: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    row_size = max(1, array.size // max(1, len(array)))
    step = max(1, _SCAN_SIZE // row_size)
    for start in range(0, len(array), step):
        yield start, array[start : start + step]


def _refuse_device_array(values: Any, name: str) -> None:
    if is_device_array(values):
        raise TypeError(
            f"{name} expects a host array; got an array on a device. "
            "Call xb.to_host(...) on it first: batches are gathered on the host and uploaded."
        )
    if getattr(values, "requires_grad", False) is True and hasattr(values, "detach"):
        raise TypeError(
            f"{name} is a tensor that requires a gradient, which would be lost here. "
            "Pass its .detach() instead."
        )
    dlpack_device = getattr(values, "__dlpack_device__", None)
    if dlpack_device is None or isinstance(values, np.ndarray | type):
        return
    try:
        device_type = int(dlpack_device()[0])
    except Exception as error:  # foreign code raises what it likes; not host memory
        raise TypeError(f"{name} expects a host array; got one that says: {error}") from error
    if device_type not in _DLPACK_HOST:
        raise TypeError(
            f"{name} expects a host array; got a {type(values).__name__} on another device "
            f"({getattr(values, 'device', device_type)}). Move it to the host first, "
            "with .cpu() in PyTorch."
        )


def _to_numpy(values: Any, name: str) -> np.ndarray:
    if isinstance(values, np.ndarray):
        return np.asarray(values)
    try:
        if hasattr(values, "__dlpack__") and not hasattr(values, "__array__"):
            return np.from_dlpack(values)
        return np.asarray(values)
    except ValueError as error:
        if "inhomogeneous" in str(error):
            raise ValueError(
                f"{name} expects rows of equal length; got a ragged {type(values).__name__}."
            ) from error
        raise ValueError(f"{name} cannot be read as an array of numbers: {error}") from error
    except Exception as error:  # foreign __array__ and __dlpack__ raise what they like
        hint = ""
        if "BFloat16" in str(error):
            hint = " NumPy has no such dtype: call .float() first."
        raise TypeError(f"{name} cannot be read as an array of numbers: {error}.{hint}") from error
