"""The methods and operators of a stand-in array: those of cupy.ndarray and no others."""

from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import numpy as np

from xbackprop.backend.array_module import register_array_type
from xbackprop.backend.cupy_surface import load
from xbackprop.backend.fake.execute import FakeArray, device_at, execute, make, read_back, strip
from xbackprop.backend.fake.flat import Flags, Flat
from xbackprop.backend.fake.functions import make_method
from xbackprop.backend.fake.indexing import get_item, put, set_item
from xbackprop.backend.fake.memory import current_device
from xbackprop.backend.fake.namespace import xp
from xbackprop.backend.fake.specials import download
from xbackprop.backend.transfer import record

_BINARY = {
    "add": "add", "sub": "subtract", "mul": "multiply", "truediv": "true_divide",
    "floordiv": "floor_divide", "mod": "remainder", "pow": "power", "matmul": "matmul",
    "and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor",
    "lshift": "left_shift", "rshift": "right_shift", "divmod": "divmod",
}  # fmt: skip
_COMPARE = {
    "eq": "equal", "ne": "not_equal", "lt": "less", "le": "less_equal",
    "gt": "greater", "ge": "greater_equal",
}  # fmt: skip
_UNARY = {"neg": "negative", "pos": "positive", "abs": "absolute", "invert": "invert"}
# CuPy has no __imatmul__: `a @= b` makes a new array there.
_IN_PLACE = _BINARY.keys() - {"divmod", "matmul"}
_PROPERTIES = ("dtype", "ndim", "size", "nbytes", "itemsize", "strides")
_VIEW_PROPERTIES = ("T", "real", "imag", "mT")

# What NumPy's method of the name cannot do, or NumPy has no method for.
_METHOD_HOSTS: dict[str, Callable[..., Any]] = {
    "ptp": np.ptp,
    "astype": lambda a, dtype, order="K", copy=True: a.astype(dtype, order=order, copy=copy),
    "view": lambda a, dtype=None: a.view() if dtype is None else a.view(dtype),
}


def _operator(ufunc_name: str, *, swap: bool = False) -> Callable[[FakeArray, Any], Any]:
    host = getattr(np, ufunc_name)

    def method(self: FakeArray, other: Any) -> Any:
        sources = [self]
        value = strip(other, ufunc_name, sources)
        pair = (value, self._array) if swap else (self._array, value)
        return execute(ufunc_name, host, sources, pair)

    return method


def _comparison(ufunc_name: str) -> Callable[[FakeArray, Any], Any]:
    compare = _operator(ufunc_name)

    def method(self: FakeArray, other: Any) -> Any:
        if other is None:
            raise TypeError(f"{ufunc_name}: a device array is never equal to None; use `is None`")
        return compare(self, other)

    return method


def _in_place(ufunc_name: str) -> Callable[[FakeArray, Any], FakeArray]:
    host = getattr(np, ufunc_name)

    def method(self: FakeArray, other: Any) -> FakeArray:
        sources = [self]
        value = strip(other, ufunc_name, sources)
        result: FakeArray = execute(
            ufunc_name, host, sources, (self._array, value, self._array), out=self
        )
        return result

    return method


def _unary(ufunc_name: str) -> Callable[[FakeArray], Any]:
    def method(self: FakeArray) -> Any:
        return execute(ufunc_name, getattr(np, ufunc_name), (self,), (self._array,))

    return method


# --- What brings values to the host: each waits for the device.


def _scalar(convert: Callable[[Any], Any], name: str) -> Callable[[FakeArray], Any]:
    def method(self: FakeArray) -> Any:
        if self._array.ndim:
            raise TypeError(
                f"{name}(): only an array without dimensions is one number; got shape "
                f"{self._array.shape}. Use .item() for a single element."
            )
        return convert(read_back(self, f"{name}()").item())

    return method


def _truth(self: FakeArray) -> bool:
    if self._array.size != 1:
        raise ValueError(
            f"bool(): the truth value of an array of shape {self._array.shape} is ambiguous; "
            "use .any(), .all() or .size"
        )
    return bool(read_back(self, "bool()").item())


def _read(convert: Callable[[np.ndarray], Any], name: str) -> Callable[[FakeArray], Any]:
    return lambda self: convert(read_back(self, name))


def _item(self: FakeArray, *args: Any) -> Any:
    if args:
        raise TypeError("item(): CuPy's takes no argument; use x[i].item()")
    return read_back(self, "item()").item()  # raises for more than one element, as CuPy does


def _iterate(self: FakeArray) -> Iterator[Any]:
    if self._array.ndim == 0:
        raise TypeError("iteration over a 0-d array")
    record("synchronization", 0, device_at(self._index), "iteration")
    return (get_item(self, i) for i in range(self._array.shape[0]))


def _contains(self: FakeArray, item: Any) -> bool:
    return bool(read_back(self == item, "in").any())


def _get(
    self: FakeArray, stream: Any = None, order: str = "C", out: Any = None, blocking: bool = True
) -> np.ndarray:
    return download(self, "get()", order, out)


def _tofile(self: FakeArray, fid: Any, sep: str = "", format: str = "%s") -> None:
    read_back(self, "tofile()").tofile(fid, sep, format)


def _set(self: FakeArray, arr: np.ndarray, stream: Any = None) -> None:
    if not isinstance(arr, np.ndarray) or arr.dtype != self._array.dtype:
        raise TypeError(f"set(): expected a NumPy array of dtype {self._array.dtype}; got {arr!r}")
    if arr.shape != self._array.shape:
        raise ValueError(f"set(): expected shape {self._array.shape}; got {arr.shape}")
    flags = self._array.flags
    if not (flags.c_contiguous or flags.f_contiguous):
        raise RuntimeError("set(): CuPy cannot set an array that is not contiguous")
    record("upload", arr.nbytes, device_at(self._index), "set()")
    self._array[...] = arr


# --- What changes the array in place.


def _fill(self: FakeArray, value: Any) -> None:
    if np.ndim(strip(value, "fill", [])):
        raise ValueError("fill: expected a number or an array without dimensions")
    if type(value) is FakeArray:  # CuPy asks whether it is zero
        record("synchronization", 0, device_at(self._index), "fill()")
    set_item(self, Ellipsis, value)


def _in_order(name: str) -> Callable[..., None]:
    method = make_method(name, getattr(np.ndarray, name), load().methods[name])

    def sort(self: FakeArray, *args: Any, **kwargs: Any) -> None:
        if not self._array.flags.c_contiguous:
            raise NotImplementedError(
                f"{name}(): CuPy sorts contiguous arrays only; use xp.{name}(x) or x.copy() first"
            )
        method(self, *args, **kwargs)

    return sort


def _put(self: FakeArray, indices: Any, values: Any, mode: str | None = None) -> None:
    put(self, indices, values, mode)


def _set_shape(self: FakeArray, shape: Any) -> None:
    relabelled = self._array.reshape(shape)
    if relabelled.size and not np.may_share_memory(relabelled, self._array):
        raise AttributeError(
            f"shape {self._array.shape} cannot become {shape} without a copy; use x.reshape(...)"
        )
    self._array = relabelled


def _copy(self: FakeArray, order: str = "C") -> FakeArray:
    copied: FakeArray = execute("copy", np.ndarray.copy, (self,), (self._array, order))
    return copied


def _deepcopy(self: FakeArray, memo: Any) -> FakeArray:
    with current_device(self._index):  # a model is copied as a whole, wherever its parts live
        return _copy(self)


def _refuse(message: str) -> Callable[..., NoReturn]:
    def method(self: FakeArray, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError(message)

    return method


_NO_PICKLE = "a device array is not pickled: a GPU's memory does not travel; call to_host() first"
_NO_DLPACK = "the stand-in's memory is not exported by DLPack; call xbackprop.to_host(x)"


def _getattr(self: FakeArray, name: str) -> NoReturn:
    place = f"array on {device_at(self._index)} has no attribute {name!r}"
    if name.startswith("scatter_") and name in load().methods:
        raise AttributeError(f"{place}: CuPy deprecates it; use xp.{name[8:]}.at, say xp.add.at")
    if name in load().methods or name in load().attributes:
        raise AttributeError(f"{place}: the stand-in does not model it")
    if hasattr(np.ndarray, name) and not name.startswith("__"):
        raise AttributeError(f"{place}: NumPy has it, cupy.ndarray does not")
    raise AttributeError(place)


_METHODS: dict[str, Any] = {
    "__getitem__": get_item, "__setitem__": set_item, "__iter__": _iterate,
    "__contains__": _contains, "__getattr__": _getattr, "__bool__": _truth,
    "__float__": _scalar(float, "float"), "__int__": _scalar(int, "int"),
    "__complex__": _scalar(complex, "complex"),
    "__bytes__": _read(bytes, "bytes()"),
    "__repr__": _read(repr, "repr()"), "__str__": _read(str, "str()"),
    "__format__": lambda self, spec: format(read_back(self, "format()"), spec),
    "__index__": _refuse(
        "a device array is not an index on the host (range, list[x], slices); int(x) reads it "
        "back, which waits for the device"
    ),
    "__array__": _refuse(
        "implicit conversion to a NumPy array is not allowed; call xbackprop.to_host(x)"
    ),
    "__array_function__": _refuse(
        "a NumPy function was called on a device array; use "
        "xp = xbackprop.get_array_module(x) and xp.<function>, or xbackprop.to_host(x)"
    ),
    "__reduce_ex__": _refuse(_NO_PICKLE), "dump": _refuse(_NO_PICKLE),
    "dumps": _refuse(_NO_PICKLE),
    "__dlpack__": _refuse(_NO_DLPACK), "__dlpack_device__": _refuse(_NO_DLPACK),
    "__copy__": _copy, "__deepcopy__": _deepcopy,
    "item": _item, "tolist": _read(np.ndarray.tolist, "tolist()"), "tofile": _tofile,
    "tobytes": lambda self, order="C": read_back(self, "tobytes()").tobytes(order),
    "get": _get, "set": _set, "fill": _fill, "copy": _copy, "put": _put,
    "sort": _in_order("sort"), "partition": _in_order("partition"),
    "flags": property(lambda self: Flags(self._array.flags)),
    "flat": property(Flat),
}  # fmt: skip


def _length(self: FakeArray) -> int:
    if self._array.ndim == 0:
        raise TypeError("len() of a device array without dimensions")
    return len(self._array)


def _install() -> None:
    """Give FakeArray its methods, once, from the tables above and the generated surface."""
    methods: dict[str, Any] = {**_METHODS, "__len__": _length}
    for name, ufunc_name in _BINARY.items():
        methods[f"__{name}__"] = _operator(ufunc_name)
        methods[f"__r{name}__"] = _operator(ufunc_name, swap=True)
        if name in _IN_PLACE:
            methods[f"__i{name}__"] = _in_place(ufunc_name)
    methods |= {f"__{name}__": _comparison(ufunc_name) for name, ufunc_name in _COMPARE.items()}
    methods |= {f"__{name}__": _unary(ufunc_name) for name, ufunc_name in _UNARY.items()}
    for name, signature in load().methods.items():
        host = _METHOD_HOSTS.get(name, getattr(np.ndarray, name, None))
        if name not in methods and host is not None:
            methods[name] = make_method(name, host, signature)
    methods |= {name: _property(name) for name in _PROPERTIES}
    methods["shape"] = property(lambda self: self._array.shape, _set_shape)
    methods |= {name: _view_property(name) for name in _VIEW_PROPERTIES}
    for name, value in methods.items():
        setattr(FakeArray, name, value)


def _property(name: str) -> property:
    return property(lambda self: getattr(self._array, name))


def _view_property(name: str) -> property:
    def look(self: FakeArray) -> Any:
        return execute(name, lambda a: getattr(a, name), (self,), (self._array,), view=True)

    def write(self: FakeArray, value: Any) -> None:
        set_item(look(self), Ellipsis, value)

    return property(look, write if name in load().settable else None)


def upload(host: np.ndarray, index: int) -> FakeArray:
    """Copy a NumPy array onto ``fake:index``; the caller books the upload."""
    return make(np.array(host, copy=True), index)


def copy_to_peer(array: FakeArray, index: int) -> FakeArray:
    """Copy an array to another stand-in device; the caller books it."""
    return make(array._array.copy(), index)


_install()
register_array_type(FakeArray, xp)

__all__ = ["FakeArray", "copy_to_peer", "upload"]
