"""Indexing on the stand-in: what CuPy wraps or leaves undefined is refused here."""

from typing import Any

import numpy as np

from xbackprop.backend.device import Device
from xbackprop.backend.fake.execute import FakeArray, execute, strip
from xbackprop.backend.transfer import record


def get_item(array: FakeArray, key: Any) -> Any:
    """Return ``array[key]``; a boolean mask waits for the device to learn its size."""
    parts = key if isinstance(key, tuple) else (key,)
    _check_parts(parts)
    masks = [part for part in parts if _is_mask(part)]
    if masks:
        record("synchronization", 0, Device("fake", array._index), "indexing with a mask")
    is_view = not any(isinstance(part, FakeArray) for part in parts)

    def read(host: np.ndarray, *host_parts: Any) -> Any:
        result = host[host_parts]
        return np.asarray(result) if isinstance(result, np.generic) else result

    if is_view:
        # x[0] of one dimension must stay a view into x, so an Ellipsis keeps NumPy from copying.
        full = parts if any(part is Ellipsis for part in parts) else (*parts, Ellipsis)
        return execute("view", read, (array, *full), {})
    return execute("getitem", read, (array, *parts), {})


def set_item(array: FakeArray, key: Any, value: Any) -> None:
    """Do ``array[key] = value``; an element addressed twice is refused."""
    parts = key if isinstance(key, tuple) else (key,)
    _check_parts(parts)
    if isinstance(value, (list, tuple)) or value is None:
        raise TypeError(
            f"assignment expects a scalar or an array on fake:{array._index}; "
            f"got {type(value).__name__}"
        )
    integers = [p for p in parts if isinstance(p, FakeArray) and p._array.dtype.kind in "iu"]
    if any(part._array.ndim for part in integers):
        _refuse_duplicates(array, tuple(strip(part, "setitem", array._index) for part in parts))
    if any(_is_mask(part) for part in parts) and isinstance(value, FakeArray) and value._array.ndim:
        record("synchronization", 0, Device("fake", array._index), "assignment through a mask")

    def write(host: np.ndarray, new: Any, *host_parts: Any) -> np.ndarray:
        host[host_parts] = new
        return host

    execute("setitem", write, (array, value, *parts), {})


def _is_mask(part: Any) -> bool:
    return isinstance(part, FakeArray) and part._array.dtype.kind == "b"


def _check_parts(parts: tuple[Any, ...]) -> None:
    for part in parts:
        if isinstance(part, FakeArray):
            if part._array.dtype.kind not in "iub":
                raise IndexError(f"an index must be integer or bool; got dtype {part.dtype}")
        elif isinstance(part, (list, np.ndarray)):
            raise TypeError(
                f"an index of type {type(part).__name__} is a hidden upload; "
                "make it a device array once with xbackprop.asarray(...)"
            )


def _refuse_duplicates(array: FakeArray, key: tuple[Any, ...]) -> None:
    """CuPy does not say which of two writes to one element wins, nor adds both for ``+=``."""
    host = array._array
    touched = np.arange(host.size).reshape(host.shape)[key]
    if np.unique(touched).size != touched.size:
        raise ValueError(
            "an assignment addresses the same element twice; on a GPU which value stays is "
            "undefined (and `x[i] += v` adds only once). Sum the duplicates first."
        )
