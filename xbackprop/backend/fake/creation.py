"""How arrays come onto the stand-in: fresh memory, and uploads of host values, counted."""

from collections.abc import Callable
from typing import Any

import numpy as np

from xbackprop.backend.fake.execute import (
    FakeArray,
    device_at,
    execute,
    make,
    refuse_dtype,
    refuse_operand,
    require_current,
    run_quietly,
    strip,
)
from xbackprop.backend.fake.functions import NotModelledError
from xbackprop.backend.fake.memory import current_index
from xbackprop.backend.transfer import record

# --- Memory nobody has written to.


def empty(shape: Any, dtype: Any = float, order: str = "C") -> FakeArray:
    """Return memory full of what nobody may rely on: NaN, or an unlikely integer."""
    return _uninitialized(np.empty(shape, np.dtype(dtype), order))  # type: ignore[call-overload]


def empty_like(
    prototype: Any, dtype: Any = None, order: str = "K", subok: Any = None, shape: Any = None
) -> FakeArray:
    """Return memory of the shape of ``prototype`` that nobody has written to."""
    if type(prototype) is not FakeArray:
        refuse_operand("empty_like", prototype)
    require_current("empty_like", prototype._index)
    host = np.empty_like(prototype._array, dtype, order, shape=shape)  # type: ignore[call-overload]
    return _uninitialized(host)


def _uninitialized(array: np.ndarray) -> FakeArray:
    refuse_dtype(array.dtype)
    kind = array.dtype.kind
    if kind in "iu":
        array[...] = np.iinfo(array.dtype).min if kind == "i" else 0xA5
    else:
        array[...] = True if kind == "b" else np.nan
    return make(array, current_index())


# --- Arrays from host values: an upload, and counted as one.


def put_on_device(host: np.ndarray, name: str) -> FakeArray:
    """Copy a NumPy array onto the current device and book the upload."""
    refuse_dtype(host.dtype.newbyteorder("="))
    index = current_index()
    record("upload", host.nbytes, device_at(index), name)
    return make(np.array(host, host.dtype.newbyteorder("="), copy=True, order="K"), index)


def array(
    obj: Any,
    dtype: Any = None,
    copy: bool | None = True,
    order: str = "K",
    subok: bool = False,
    ndmin: int = 0,
    *,
    blocking: bool = False,
) -> FakeArray:
    """Make a device array; host values are uploaded."""
    if subok:
        raise NotImplementedError("array: CuPy has not implemented subok=True")
    return _convert("array", obj, dtype, copy, order, ndmin)


def asarray(
    a: Any,
    dtype: Any = None,
    order: str | None = None,
    *,
    copy: bool | None = None,
    blocking: bool = False,
) -> FakeArray:
    """Return a device array as it is; upload host values."""
    return _convert("asarray", a, dtype, copy, order or "K")


def _convert(
    name: str, value: Any, dtype: Any, copy: bool | None, order: str, ndmin: int = 0
) -> FakeArray:
    sources: list[FakeArray] = []
    stripped = _strip_nested(value, name, sources)
    if not sources:
        return put_on_device(_on_host(value, dtype, order, ndmin), f"xp.{name}()")

    def convert(inside: Any) -> np.ndarray:
        # A single array keeps its memory where it may; a list of arrays is joined.
        keep = copy if isinstance(inside, np.ndarray) else None
        return np.array(inside, dtype, copy=keep, order=order, ndmin=ndmin)  # type: ignore[call-overload]

    result: FakeArray = execute(name, convert, sources, (stripped,), view=True)
    return result


def _on_host(value: Any, dtype: Any, order: str, ndmin: int) -> np.ndarray:
    options: dict[str, Any] = {"copy": None, "order": order, "ndmin": ndmin}
    host: np.ndarray
    if dtype is not None and np.iscomplexobj(value):  # a cast to real numbers warns
        host = run_quietly(np.array, (value, dtype), options)
    else:
        host = np.array(value, dtype, **options)
    return host


def _strip_nested(value: Any, name: str, sources: list[FakeArray]) -> Any:
    """Take NumPy arrays out of nested lists; device arrays and host values do not mix there."""
    if type(value) is FakeArray:
        return strip(value, name, sources)
    if not isinstance(value, (list, tuple)):
        return value
    before = len(sources)
    parts = [_strip_nested(part, name, sources) for part in value]
    on_device = [_holds_device_array(part) for part in value]
    if len(sources) > before and not all(on_device):
        other = value[on_device.index(False)]
        raise TypeError(
            f"{name}: a list of device arrays and host values cannot be joined; got a "
            f"{type(other).__name__} among them. Make it a device array first."
        )
    return parts


def _holds_device_array(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(map(_holds_device_array, value))
    return type(value) is FakeArray


def asarray_chkfinite(a: Any, dtype: Any = None, order: str | None = None) -> FakeArray:
    """As `asarray`, and wait for the device to learn that all is finite."""
    result = asarray(a, dtype, order)
    finite = execute("isfinite", lambda x: np.isfinite(x).all(), [result], (result._array,))
    if not bool(finite):
        raise ValueError("asarray_chkfinite: array must not contain infs or NaNs")
    return result


def reader(name: str) -> Callable[..., FakeArray]:
    """Make a function that NumPy runs on the host and whose result is uploaded."""

    def read(*args: Any, **kwargs: Any) -> FakeArray:
        host = getattr(np, name)(*args, **kwargs)
        if not isinstance(host, np.ndarray):
            raise NotModelledError(f"{name}: expected one array in the file; got {type(host)}")
        return put_on_device(host, f"xp.{name}()")

    return read
