"""The methods and operators of a stand-in array: those of cupy.ndarray and no others."""

from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import numpy as np

from xbackprop.backend.array_module import register_array_type
from xbackprop.backend.cupy_surface import load
from xbackprop.backend.device import Device
from xbackprop.backend.fake.execute import FakeArray, execute, make, read_back
from xbackprop.backend.fake.indexing import get_item, set_item
from xbackprop.backend.fake.namespace import bind, xp
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
_PROPERTIES = ("shape", "dtype", "ndim", "size", "nbytes", "itemsize", "strides", "flags")
_VIEW_PROPERTIES = ("T", "real", "imag", "mT")


def _operator(ufunc_name: str, *, swap: bool = False) -> Callable[[FakeArray, Any], Any]:
    def method(self: FakeArray, other: Any) -> Any:
        _check_operand(self, other, ufunc_name)
        pair = (other, self) if swap else (self, other)
        return execute(ufunc_name, getattr(np, ufunc_name), pair, {})

    return method


def _in_place(ufunc_name: str) -> Callable[[FakeArray, Any], FakeArray]:
    def method(self: FakeArray, other: Any) -> FakeArray:
        _check_operand(self, other, ufunc_name)
        execute(ufunc_name, getattr(np, ufunc_name), (self, other), {"out": self})
        return self

    return method


def _check_operand(array: FakeArray, other: Any, name: str) -> None:
    """CuPy's operators take arrays and numbers; a list or None is a TypeError, not a False."""
    if not isinstance(other, (FakeArray, np.ndarray, bool, int, float, complex, np.generic)):
        raise TypeError(
            f"{name}: unsupported type {type(other).__name__} beside an array on {array.device}"
        )


def _unary(ufunc_name: str) -> Callable[[FakeArray], Any]:
    def method(self: FakeArray) -> Any:
        return execute(ufunc_name, getattr(np, ufunc_name), (self,), {})

    return method


def _method(name: str) -> Callable[..., Any]:
    signature = load().methods[name]

    def method(self: FakeArray, *args: Any, **kwargs: Any) -> Any:
        bind(f"ndarray.{name}", signature, args, kwargs)
        if name == "astype":  # CuPy's None means NumPy's default
            kwargs = {key: value for key, value in kwargs.items() if value is not None}
        return execute(name, getattr(np.ndarray, name), (self, *args), kwargs)

    method.__name__ = name
    return method


def _scalar_read(convert: Callable[[np.ndarray], Any], name: str) -> Callable[[FakeArray], Any]:
    def method(self: FakeArray) -> Any:
        return convert(read_back(self, f"{name}()"))

    return method


def _one_number(array: np.ndarray) -> Any:
    return array.item()  # raises for more than one element, as CuPy does


def _truth(array: np.ndarray) -> bool:
    if array.size == 0:
        return False
    return bool(array.item())


def _iterate(self: FakeArray) -> Iterator[Any]:
    if self._array.ndim == 0:
        raise TypeError("iteration over a 0-d array")
    record("synchronization", 0, self.device, "iteration")
    return (self[i] for i in range(self._array.shape[0]))


def _contains(self: FakeArray, item: Any) -> bool:
    read_back(self, "in")
    return bool((self == item)._array.any())


def _item(self: FakeArray, *args: Any) -> Any:
    return read_back(self, "item()").item(*args)


def _get(self: FakeArray, stream: Any = None, order: str = "C", out: Any = None) -> np.ndarray:
    host = read_back(self, "get()")
    if out is not None:
        np.copyto(out, host)
        return out  # type: ignore[no-any-return]
    return np.array(host, order=order, copy=True)  # type: ignore[call-overload,no-any-return]


def _set(self: FakeArray, arr: np.ndarray, stream: Any = None) -> None:
    if not isinstance(arr, np.ndarray) or arr.shape != self.shape or arr.dtype != self.dtype:
        raise TypeError(f"set() expects a NumPy array of shape {self.shape} and {self.dtype}")
    record("upload", arr.nbytes, self.device, "set()")
    self._array[...] = arr


def _fill(self: FakeArray, value: Any) -> None:
    set_item(self, Ellipsis, value)


def _copy(self: FakeArray, order: str = "C") -> FakeArray:
    copied: FakeArray = execute("copy", np.ndarray.copy, (self, order), {})
    return copied


def _refuse(message: str) -> Callable[..., NoReturn]:
    def method(self: FakeArray, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError(message)

    return method


def _getattr(self: FakeArray, name: str) -> NoReturn:
    if hasattr(np.ndarray, name) and not name.startswith("__"):
        known = name in load().methods or name in load().attributes
        why = "the stand-in does not model it" if known else "cupy.ndarray has no such attribute"
        raise AttributeError(f"array on {self.device} has no attribute {name!r}: {why}")
    raise AttributeError(f"array on {self.device} has no attribute {name!r}")


def _install() -> None:
    """Give FakeArray its methods, once, from the tables above and the generated surface."""
    methods: dict[str, Any] = {
        "__getitem__": get_item, "__setitem__": set_item, "__iter__": _iterate,
        "__contains__": _contains, "__getattr__": _getattr,
        "__len__": lambda self: len(self._array),
        "__float__": _scalar_read(lambda a: float(_one_number(a)), "float"),
        "__int__": _scalar_read(lambda a: int(_one_number(a)), "int"),
        "__complex__": _scalar_read(lambda a: complex(_one_number(a)), "complex"),
        "__bool__": _scalar_read(_truth, "bool"),
        "__index__": _scalar_read(lambda a: a.__index__(), "index"),
        "__repr__": _scalar_read(repr, "repr"), "__str__": _scalar_read(str, "str"),
        "__format__": lambda self, spec: format(read_back(self, "format()")[()], spec),
        "__array__": _refuse(
            "implicit conversion to a NumPy array is not allowed; call xbackprop.to_host(x)"
        ),
        "__array_function__": _refuse(
            "a NumPy function was called on a device array; use "
            "xp = xbackprop.get_array_module(x) and xp.<function>, or xbackprop.to_host(x)"
        ),
        "__reduce_ex__": _refuse(
            "a device array is not pickled: a GPU's memory does not travel; call to_host() first"
        ),
        "__copy__": _copy, "__deepcopy__": lambda self, memo: _copy(self),
        "item": _item, "tolist": _scalar_read(lambda a: a.tolist(), "tolist"),
        "tobytes": lambda self, order="C": read_back(self, "tobytes()").tobytes(order),
        "get": _get, "set": _set, "fill": _fill, "copy": _copy,
    }  # fmt: skip
    for name, ufunc_name in _BINARY.items():
        methods[f"__{name}__"] = _operator(ufunc_name)
        methods[f"__r{name}__"] = _operator(ufunc_name, swap=True)
        if name != "divmod":
            methods[f"__i{name}__"] = _in_place(ufunc_name)
    methods |= {f"__{name}__": _operator(ufunc_name) for name, ufunc_name in _COMPARE.items()}
    methods |= {f"__{name}__": _unary(ufunc_name) for name, ufunc_name in _UNARY.items()}
    for name in load().methods:
        if name not in methods and hasattr(np.ndarray, name):
            methods[name] = _method(name)
    for name in _PROPERTIES:
        methods[name] = property(lambda self, name=name: getattr(self._array, name))
    for name in _VIEW_PROPERTIES:
        methods[name] = property(
            lambda self, name=name: execute("view", lambda a: getattr(a, name), (self,), {})
        )
    for name, value in methods.items():
        setattr(FakeArray, name, value)


def upload(host: np.ndarray, index: int) -> FakeArray:
    """Copy a NumPy array onto ``fake:index``; the caller books the upload."""
    return make(np.array(host, copy=True), index)


def copy_to_peer(array: FakeArray, index: int) -> FakeArray:
    """Copy an array to another stand-in device; the caller books it."""
    return make(array._array.copy(), index)


_install()
register_array_type(FakeArray, xp)

__all__ = ["Device", "FakeArray", "copy_to_peer", "upload"]
