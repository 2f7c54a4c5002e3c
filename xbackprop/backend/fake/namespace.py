"""The stand-in's array module: every function that CuPy has, with CuPy's keywords only."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NoReturn

import numpy as np

from xbackprop.backend.cupy_surface import Signature, load
from xbackprop.backend.device import Device
from xbackprop.backend.fake.execute import FakeArray, execute, make, read_back, refuse_dtype, strip
from xbackprop.backend.fake.memory import current_index
from xbackprop.backend.transfer import record

# Functions that build arrays from host values: an upload, and counted as one.
_UPLOADS = frozenset("array asarray asanyarray ascontiguousarray asfortranarray".split())

# Functions whose first argument is a sequence of arrays; everywhere else a list is refused.
_TAKES_SEQUENCE = frozenset(
    "concatenate stack vstack hstack dstack column_stack row_stack block meshgrid ix_ select "
    "choose broadcast_arrays concat".split()
)

# Functions that make arrays from shapes and numbers.
_CREATES = frozenset(
    "zeros ones full empty arange linspace logspace geomspace eye identity tri indices "
    "fromfunction hamming hanning blackman bartlett kaiser".split()
)

# Functions that look at types and shapes only: no kernel, and plain Python results.
_PLAIN = frozenset(
    "result_type can_cast promote_types min_scalar_type ndim size shape isscalar iinfo finfo "
    "dtype broadcast_shapes may_share_memory shares_memory common_type iscomplexobj isrealobj "
    "issubdtype binary_repr base_repr".split()
)

# Names of parameters that hold an array; a list there is a hidden upload (CuPy: TypeError).
_ARRAY_PARAMETERS = frozenset(
    "a x x1 x2 b arr ary array A m v y condition obj values ar ar1 ar2 element "
    "test_elements indices bins weights xi fp xp q".split()
)


def bind(name: str, signature: Signature, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Refuse a call that CuPy's signature does not admit."""
    refusal = signature.refusal(f"cupy.{name}", args, kwargs)
    if refusal is not None:
        raise TypeError(refusal)


class Ufunc:
    """An elementwise function with CuPy's keywords: no ``where=``, no ``order=``."""

    def __init__(self, name: str) -> None:
        self.__name__ = name
        self._host: np.ufunc = getattr(np, name)
        self._spec = load().ufuncs[name]
        self.nin, self.nout, self.nargs = self._spec.nin, self._spec.nout, self._host.nargs

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        refusal = self._spec.refusal(f"cupy.{self.__name__}", args, kwargs)
        if refusal is not None:
            raise TypeError(refusal)
        for value in (*args, kwargs.get("out")):
            if isinstance(value, (list, np.ndarray)):
                strip_or_refuse(self.__name__, value)
        if len(args) > self.nin and self.nout == 1:  # CuPy takes `out` by position too
            kwargs = {**kwargs, "out": args[self.nin]}
            args = args[: self.nin]
        kwargs = {key: value for key, value in kwargs.items() if value is not None}
        return execute(self.__name__, self._host, args, kwargs)

    def __getattr__(self, method: str) -> Callable[..., Any]:
        signature = self._spec.methods.get(method)
        if signature is None:
            raise AttributeError(f"cupy.{self.__name__} has no method {method!r}")
        name = f"{self.__name__}.{method}"

        def call(*args: Any, **kwargs: Any) -> Any:
            bind(name, signature, args, kwargs)
            kwargs = {key: value for key, value in kwargs.items() if value is not None}
            host = getattr(self._host, method)
            if method == "at":  # NumPy returns None; the array itself was changed
                execute(name, lambda *a: (host(*a), a[0])[1], args, kwargs)
                return None
            return execute(name, host, args, kwargs)

        return call


def strip_or_refuse(name: str, value: Any) -> NoReturn:
    """Refuse a host array or list where CuPy wants a device array."""
    raise TypeError(
        f"{name}: unsupported type {type(value).__name__}; the stand-in GPU, like CuPy, takes "
        "device arrays and numbers. Move it with xbackprop.asarray(...)."
    )


def _function(name: str, host: Callable[..., Any], signature: Signature) -> Callable[..., Any]:
    """Wrap a NumPy function of the same name."""

    def call(*args: Any, **kwargs: Any) -> Any:
        bind(name, signature, args, kwargs)
        if name in _PLAIN:
            index = current_index()
            plain = [a._array if isinstance(a, FakeArray) else strip(a, name, index) for a in args]
            return host(*plain, **kwargs)
        if name not in _CREATES:
            _check_arrays(name, signature, args, kwargs)
        if name == "where" and len(args) == 1:
            record("synchronization", 0, Device("fake", current_index()), "where(condition)")
        return execute(name, host, args, kwargs)

    call.__name__ = name
    call.__doc__ = f"As ``numpy.{name}``, with CuPy's parameters."
    return call


def _check_arrays(
    name: str, signature: Signature, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """Refuse lists and NumPy arrays in the places of device arrays."""
    named = {**dict(zip(signature.args, args, strict=False)), **kwargs}
    first = args[0] if args else None
    takes_sequence = name in _TAKES_SEQUENCE or name == "einsum"
    for parameter, value in named.items():
        is_array_place = parameter in _ARRAY_PARAMETERS or (value is first and not takes_sequence)
        if isinstance(value, list | tuple) and is_array_place and not takes_sequence:
            strip_or_refuse(name, value)
    if takes_sequence and isinstance(first, (list, tuple)):
        for part in first:
            if not isinstance(part, (FakeArray, list, tuple)):
                strip_or_refuse(name, part)
    elif not takes_sequence and name != "where" and isinstance(first, (int, float, complex)):
        raise TypeError(f"{name}: expected a device array; got the number {first!r}")


def _empty(shape: Any, dtype: Any = float, order: str = "C") -> FakeArray:
    array = np.empty(shape, np.dtype(dtype), order)  # type: ignore[call-overload]
    return _uninitialized(array)


def _empty_like(
    prototype: Any, dtype: Any = None, order: str = "K", subok: Any = None, shape: Any = None
) -> FakeArray:
    if not isinstance(prototype, FakeArray):
        strip_or_refuse("empty_like", prototype)
    host = np.empty_like(prototype._array, dtype, order, shape=shape)  # type: ignore[call-overload]
    execute("empty_like", lambda a: a, (prototype,), {})  # refuses a foreign current device
    return _uninitialized(host)


def _uninitialized(array: np.ndarray) -> FakeArray:
    """Fill fresh memory with what nobody may rely on: NaN, or the smallest integer."""
    refuse_dtype(array.dtype)
    if array.dtype.kind in "iu":
        array[...] = np.iinfo(array.dtype).min if array.dtype.kind == "i" else 0xA5
    elif array.dtype.kind == "b":
        array[...] = True
    else:
        array[...] = np.nan
    return make(array, current_index())


def _upload_function(name: str) -> Callable[..., Any]:
    host_function = getattr(np, name)
    signature = load().functions[name]

    def call(*args: Any, **kwargs: Any) -> Any:
        bind(name, signature, args, kwargs)
        value = args[0] if args else kwargs.get("a", kwargs.get("obj", kwargs.get("object")))
        kwargs.pop("blocking", None)
        if name == "array" and kwargs.get("copy") is None:
            kwargs.pop("copy", None)
        if isinstance(value, FakeArray) or _holds_device_arrays(value):
            return execute(name, host_function, args, kwargs)
        array = np.asarray(value)
        refuse_dtype(array.dtype)
        host = np.array(host_function(array, *args[1:], **kwargs), copy=True)
        refuse_dtype(host.dtype)
        record("upload", host.nbytes, Device("fake", current_index()), f"xp.{name}()")
        return make(host, current_index())

    call.__name__ = name
    return call


def _holds_device_arrays(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(isinstance(part, FakeArray) or _holds_device_arrays(part) for part in value)
    return False


def _asnumpy(a: Any, stream: Any = None, order: str = "C", out: Any = None) -> np.ndarray:
    if isinstance(a, FakeArray):
        return np.array(read_back(a, "xp.asnumpy()"), order=order, copy=True)  # type: ignore[call-overload,no-any-return]
    return np.asarray(a)


def _copyto(dst: Any, src: Any, casting: str = "same_kind", where: Any = None) -> None:
    if where is not None:
        raise TypeError("copyto: the stand-in refuses where=; use xp.where(mask, new, old)")
    if not isinstance(dst, FakeArray):
        strip_or_refuse("copyto", dst)
    if isinstance(src, (list, tuple)):
        strip_or_refuse("copyto", src)

    def copy(target: np.ndarray, source: Any) -> np.ndarray:
        np.copyto(target, source, casting=casting)  # type: ignore[arg-type]
        return target

    execute("copyto", copy, (dst, src), {})


def _put(a: Any, ind: Any, v: Any, mode: str = "wrap") -> None:
    if not isinstance(a, FakeArray) or not isinstance(ind, FakeArray):
        strip_or_refuse("put", ind if isinstance(a, FakeArray) else a)
    from xbackprop.backend.fake.indexing import set_item

    set_item(a.reshape(-1), ind.reshape(-1), v)


class _Namespace:
    """What ``xp`` is for stand-in arrays; resolves names on first use."""

    __name__ = "xbackprop.backend.fake"
    ndarray = FakeArray

    def __getattr__(self, name: str) -> Any:
        value = _resolve(name)
        setattr(self, name, value)
        return value

    def __repr__(self) -> str:
        return "<stand-in GPU array module (CuPy's functions, strict)>"


class _Submodule:
    """``xp.linalg`` and ``xp.fft``."""

    def __init__(self, name: str) -> None:
        self.__name__ = name

    def __getattr__(self, name: str) -> Any:
        signature = getattr(load(), self.__name__).get(name)
        host = getattr(getattr(np, self.__name__), name, None)
        if signature is None or host is None:
            raise AttributeError(f"cupy.{self.__name__} has no function {name!r}")
        value = _function(name, host, signature)
        setattr(self, name, value)
        return value


_SPECIAL: dict[str, Any] = {
    "empty": _empty,
    "empty_like": _empty_like,
    "asnumpy": _asnumpy,
    "copyto": _copyto,
    "put": _put,
}


@lru_cache(maxsize=None)
def _resolve(name: str) -> Any:
    """Find what CuPy calls ``name``; what CuPy lacks is an AttributeError."""
    surface = load()
    if name in ("linalg", "fft"):
        return _Submodule(name)
    if name in _SPECIAL:
        return _SPECIAL[name]
    if name in _UPLOADS:
        return _upload_function(name)
    if name in surface.constants | surface.dtypes | surface.abstract_dtypes:
        return getattr(np, name)
    if name in surface.from_numpy:
        return _from_numpy(getattr(np, name))
    if name in surface.always_raises:
        raise NotImplementedError(f"cupy.{name} exists only to raise; use another function")
    if name in surface.ufuncs and isinstance(getattr(np, name, None), np.ufunc):
        return Ufunc(name)
    if name in surface.functions:
        host = getattr(np, name, None)
        if host is None:
            raise NotImplementedError(
                f"cupy.{name} has no counterpart in NumPy, so the stand-in cannot run it; "
                "put it into a cuda kernel of an op, whose reference the stand-in runs"
            )
        return _function(name, host, surface.functions[name])
    if name in ("random", "cuda", "ElementwiseKernel", "ReductionKernel", "RawKernel", "RawModule"):
        raise NotImplementedError(
            f"the stand-in does not model cupy.{name}: draw on the host from an explicit "
            "Generator, and put CUDA code into a cuda kernel of an op"
        )
    known = " (NumPy has it, CuPy does not)" if hasattr(np, name) else ""
    raise AttributeError(f"cupy has no attribute {name!r}{known}")


def _from_numpy(value: Any) -> Any:
    """Pass on what CuPy re-exports from NumPy: classes as they are, functions without arrays."""
    if isinstance(value, type) or not callable(value):
        return value

    def call(*args: Any, **kwargs: Any) -> Any:
        return value(*(strip(argument, value.__name__, current_index()) for argument in args),
                     **kwargs)  # fmt: skip

    call.__name__ = value.__name__
    return call


xp = _Namespace()
