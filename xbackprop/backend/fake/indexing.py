"""Indexing on the stand-in: what CuPy wraps or leaves undefined is refused here."""

from typing import Any

import numpy as np

from xbackprop.backend.fake.execute import (
    FakeArray,
    execute,
    is_number,
    make,
    refuse_operand,
    strip,
)

_BASIC = (int, slice, type(None), type(Ellipsis))

# The dtypes whose atomic operations CuPy has, by ufunc: _core/_routines_indexing.pyx.
_SCATTER_DTYPES = {
    "add": "int32 int64 uint32 uint64 float16 float32 float64",
    "subtract": "int32 uint32",
    "maximum": "int32 int64 uint32 uint64 float32 float64",
    "minimum": "int32 int64 uint32 uint64 float32 float64",
    "bitwise_and": "int32 int64 uint32 uint64",
    "bitwise_or": "int32 int64 uint32 uint64",
    "bitwise_xor": "int32 int64 uint32 uint64",
}


def get_item(array: FakeArray, key: Any) -> FakeArray:
    """Return ``array[key]``: a view for integers and slices, a copy for arrays of indices.

    A boolean mask waits for the device to learn how many elements it selects.
    """
    parts = key if type(key) is tuple else (key,)
    if not _has_arrays(parts):
        # x[0] of one dimension must stay a view into x; an Ellipsis keeps NumPy from copying.
        full = parts if Ellipsis in parts else (*parts, Ellipsis)
        return make(array._array[full], array._index, array._allocation)
    sources = [array]
    host_key = _strip_key(parts, "getitem", sources)

    def read(host: np.ndarray) -> np.ndarray:
        return np.asarray(host[host_key])

    copied: FakeArray = execute(
        "getitem", read, sources, (array._array,), synchronizes=_has_mask(parts)
    )
    return copied


def set_item(array: FakeArray, key: Any, value: Any) -> None:
    """Do ``array[key] = value``; an element addressed twice is refused."""
    parts = key if type(key) is tuple else (key,)
    sources = [array]
    new = _strip_value(value, "setitem", sources)
    if not _has_arrays(parts):
        host_key = parts
        if type(value) is FakeArray and value._allocation is array._allocation:
            full = parts if Ellipsis in parts else (*parts, Ellipsis)
            if _is_same_view(array._array[full], value._array):
                return  # the last step of `x[i] += v`; CuPy skips it too
    else:
        host_key = _strip_key(parts, "setitem", sources)
    if any(isinstance(part, np.ndarray) and part.dtype.kind != "b" for part in host_key):
        _refuse_duplicates("setitem", array._array, host_key)

    def write(host: np.ndarray) -> None:
        host[host_key] = new

    execute("setitem", write, sources, (array._array,), synchronizes=_has_mask(parts))


def scatter(ufunc: str, array: Any, key: Any, value: Any) -> None:
    """Do ``xp.<ufunc>.at(array, key, value)``: here an element may be addressed twice."""
    name = f"{ufunc}.at"
    if type(array) is not FakeArray:
        refuse_operand(name, array)
    if array._array.dtype.name not in _SCATTER_DTYPES[ufunc].split():
        raise TypeError(
            f"{name}: CuPy supports {_SCATTER_DTYPES[ufunc]}; got {array._array.dtype}. "
            "Convert with .astype(...)."
        )
    parts = key if type(key) is tuple else (key,)
    sources = [array]
    new = _strip_value(value, name, sources)
    host_key = _strip_key(parts, name, sources) if _has_arrays(parts) else parts
    host_key = host_key if type(key) is tuple else host_key[0]

    def write(host: np.ndarray) -> None:
        getattr(np, ufunc).at(host, host_key, new)

    execute(name, write, sources, (array._array,), synchronizes=_has_mask(parts))


def put(array: Any, indices: Any, values: Any, mode: str | None = None) -> None:
    """Do ``array.put(indices, values, mode)`` on the flattened array.

    CuPy wraps indices out of range unless told otherwise; here ``mode="wrap"`` must be said.
    """
    for value in (array, indices):
        if type(value) is not FakeArray:
            refuse_operand("put", value)
    if mode not in (None, "raise", "wrap", "clip"):
        raise ValueError(f"put: expected mode 'raise', 'wrap' or 'clip'; got {mode!r}")
    sources = [array, indices]
    new = _strip_value(values, "put", sources)
    host, where = array._array, indices._array
    if host.size:
        if mode == "wrap":
            where = where % host.size
        elif mode == "clip":
            where = where.clip(0, host.size - 1)
        _refuse_duplicates("put", host.reshape(-1), (where.reshape(-1),))

    def write(target: np.ndarray) -> None:
        target.put(where, new)

    execute("put", write, sources, (host,), synchronizes=mode == "raise")


def put_along_axis(arr: Any, indices: Any, values: Any, axis: int | None) -> None:
    """Do ``xp.put_along_axis``; an element addressed twice is refused."""
    for value in (arr, indices):
        if type(value) is not FakeArray:
            refuse_operand("put_along_axis", value)
    sources = [arr, indices]
    new = _strip_value(values, "put_along_axis", sources)
    positions = np.arange(arr._array.size).reshape(arr._array.shape)
    touched = np.take_along_axis(positions, indices._array, axis)
    _refuse_repeated("put_along_axis", touched)

    def write(host: np.ndarray) -> None:
        np.put_along_axis(host, indices._array, new, axis)

    execute("put_along_axis", write, sources, (arr._array,))


def _has_arrays(parts: tuple[Any, ...]) -> bool:
    """Tell whether an index has arrays in it; refuse what is no index on a GPU."""
    found = False
    for part in parts:
        if type(part) is FakeArray:
            found = True
        elif isinstance(part, (bool, np.bool_)) or not isinstance(part, (*_BASIC, np.integer)):
            _refuse_index(part)
    return found


def _refuse_index(part: Any) -> None:
    if isinstance(part, (list, tuple, np.ndarray)):
        raise TypeError(
            f"an index of type {type(part).__name__} is a hidden upload; make it a device array "
            "once with xbackprop.asarray(...)"
        )
    raise IndexError(
        f"expected integers, slices, `...`, None or device arrays as an index; got {part!r}"
    )


def _is_same_view(a: np.ndarray, b: np.ndarray) -> bool:
    same_layout = a.shape == b.shape and a.strides == b.strides and a.dtype == b.dtype
    return same_layout and a.ctypes.data == b.ctypes.data


def _has_mask(parts: tuple[Any, ...]) -> bool:
    return any(type(part) is FakeArray and part._array.dtype.kind == "b" for part in parts)


def _strip_key(parts: tuple[Any, ...], name: str, sources: list[FakeArray]) -> tuple[Any, ...]:
    stripped = []
    for part in parts:
        if type(part) is not FakeArray:
            stripped.append(part)
            continue
        if part._array.dtype.kind not in "iub":
            raise IndexError(f"{name}: an index must be integer or bool; got {part._array.dtype}")
        stripped.append(strip(part, name, sources))
    if sum(isinstance(part, np.ndarray) and part.dtype.kind == "b" for part in stripped) > 1:
        raise IndexError(f"{name}: CuPy takes one mask in an index; combine them with &")
    return tuple(stripped)


def _strip_value(value: Any, name: str, sources: list[FakeArray]) -> Any:
    """Take a value to be written; CuPy takes arrays of its own and numbers only."""
    if type(value) is FakeArray or is_number(value):
        return strip(value, name, sources)
    refuse_operand(name, value)


def _refuse_duplicates(name: str, host: np.ndarray, key: tuple[Any, ...]) -> None:
    if len(key) == 1 and key[0].dtype.kind in "iu" and host.ndim:  # rows: no need to look at all
        rows, size = key[0], host.shape[0]
        if rows.size and -size <= int(rows.min()) and int(rows.max()) < size:
            _refuse_repeated(name, rows.astype(np.intp) % size)
            return
    _refuse_repeated(name, np.arange(host.size).reshape(host.shape)[key])


def _refuse_repeated(name: str, touched: np.ndarray) -> None:
    """CuPy does not say which of two writes to one element wins, nor adds both for ``+=``."""
    if np.unique(touched).size != touched.size:
        raise ValueError(
            f"{name}: an assignment addresses the same element twice. On a GPU which value stays "
            "is undefined, and `x[i] += v` adds only once. Sum the duplicates first, or use "
            "xp.add.at."
        )
