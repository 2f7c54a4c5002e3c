"""Functions of the stand-in that are more than NumPy's: downloads, types, text, files."""

from collections.abc import Callable
from typing import Any

import numpy as np

from xbackprop.backend.array_module import get_array_module
from xbackprop.backend.cupy_surface import load
from xbackprop.backend.fake import creation, indexing
from xbackprop.backend.fake.execute import (
    FakeArray,
    device_at,
    execute,
    read_back,
    refuse_operand,
    strip,
)
from xbackprop.backend.fake.functions import refuse_call
from xbackprop.backend.transfer import record

# --- Arrays brought down.


def asnumpy(
    a: Any, stream: Any = None, order: str = "C", out: Any = None, *, blocking: bool = True
) -> np.ndarray:
    """Return a host copy; host arrays pass through."""
    if type(a) is FakeArray:
        return download(a, "xp.asnumpy()", order, out)
    host: np.ndarray = np.asarray(a, order=order)  # type: ignore[call-overload]
    if out is None:
        return host
    np.copyto(out, host)
    copied: np.ndarray = out
    return copied


def download(a: FakeArray, what: str, order: str, out: Any) -> np.ndarray:
    """Copy to the host, into ``out`` where given, which must fit exactly."""
    device = a._array
    if out is None:
        copy: np.ndarray = np.array(read_back(a, what), order=order, copy=True)  # type: ignore[call-overload]
        return copy
    if not isinstance(out, np.ndarray) or out.dtype != device.dtype:
        raise TypeError(f"{what}: expected a NumPy array of dtype {device.dtype} as out")
    if out.shape != device.shape:
        raise ValueError(f"{what}: expected an out of shape {device.shape}; got {out.shape}")
    out[...] = read_back(a, what)
    return out


def _writer(name: str) -> Callable[..., None]:
    """Make a function that brings its arrays down and lets NumPy write them."""
    signature = load().functions[name]

    def write(file: Any, *args: Any, **kwargs: Any) -> None:
        refuse_call(signature, f"cupy.{name}", (file, *args), kwargs)

        def down(value: Any) -> Any:
            return read_back(value, f"xp.{name}()") if type(value) is FakeArray else value

        named = {key: down(value) for key, value in kwargs.items() if value is not None}
        getattr(np, name)(file, *map(down, args), **named)

    return write


def _text(name: str) -> Callable[..., str]:
    """Make a function that prints an array, which brings it down."""

    def show(a: Any, *args: Any, **kwargs: Any) -> str:
        text: str = getattr(np, name)(asnumpy(a), *args, **kwargs)
        return text

    return show


# --- Writing into arrays.


def copyto(dst: Any, src: Any, casting: str = "same_kind", where: Any = None) -> None:
    """Copy a device array or a number into ``dst``."""
    if where is not None:
        raise TypeError("copyto: the stand-in refuses where=; use xp.where(mask, new, old)")
    if type(dst) is not FakeArray:
        refuse_operand("copyto", dst)
    sources = [dst]
    new = strip(src, "copyto", sources)

    def copy(target: np.ndarray) -> None:
        np.copyto(target, new, casting=casting)  # type: ignore[arg-type]

    execute("copyto", copy, sources, (dst._array,))


def put(a: Any, ind: Any, v: Any, mode: str | None = None) -> None:
    """Put values at flat indices; see `indexing.put`."""
    indexing.put(a, ind, v, mode)


def mask_indices(n: int, mask_func: Callable[..., Any], k: Any = 0) -> tuple[FakeArray, ...]:
    """Return the indices that a function such as ``xp.triu`` keeps; waits for the device."""
    ones = execute("ones", np.ones, [], ((n, n), np.int8))
    indices: tuple[FakeArray, ...] = mask_func(ones, k).nonzero()
    return indices


# --- Questions about types and shapes: no kernel, and plain Python answers.


def result_type(*arrays_and_dtypes: Any) -> np.dtype:
    """Return the dtype of a result; an array counts by its dtype."""
    dtypes = [a._array.dtype if type(a) is FakeArray else a for a in arrays_and_dtypes]
    for value in dtypes:
        if isinstance(value, np.ndarray):
            refuse_operand("result_type", value)
    return np.result_type(*dtypes)


def can_cast(from_: Any, to: Any, casting: str = "safe") -> bool:
    """Tell whether a dtype (or an array of it) can be cast."""
    source = from_._array.dtype if type(from_) is FakeArray else from_
    return np.can_cast(source, to, casting)  # type: ignore[arg-type]


def min_scalar_type(a: Any) -> np.dtype:
    """Return an array's dtype, or the smallest dtype that holds a number."""
    return a._array.dtype if type(a) is FakeArray else np.min_scalar_type(a)


def common_type(*arrays: Any) -> type:
    """Return the float type that arrays have in common."""
    sources: list[FakeArray] = []
    return np.common_type(*(strip(a, "common_type", sources) for a in arrays))


def _question(name: str) -> Callable[..., Any]:
    """Make a function that looks at an array's type, shape or memory."""
    host = getattr(np, name)
    signature = load().functions[name]

    def ask(*args: Any, **kwargs: Any) -> Any:
        refuse_call(signature, f"cupy.{name}", args, kwargs)
        arrays = [a._array if type(a) is FakeArray else a for a in args]
        if name in ("may_share_memory", "shares_memory", "isfortran"):
            for value in args[:2]:
                if type(value) is not FakeArray:
                    refuse_operand(name, value)
        if name == "shares_memory":
            record("synchronization", 0, device_at(args[0]._index), name)
        return host(*arrays, **{key: v for key, v in kwargs.items() if v is not None})

    return ask


# --- Results that CuPy gives in another form.


def _complex_result(host: Callable[..., Any]) -> Callable[..., Any]:
    """Eigenvalues of any matrix: CuPy returns complex numbers also where all are real."""

    def run(a: np.ndarray) -> Any:
        result = host(a)
        kind = np.result_type(np.asarray(a).dtype, np.complex64)
        if isinstance(result, tuple):
            return tuple(part.astype(kind) for part in result)
        return result.astype(kind)

    return run


def _step_as_number(start: Any, stop: Any, *args: Any, **kwargs: Any) -> Any:
    """Compute ``linspace``; between numbers its step is a Python number."""
    result = np.linspace(start, stop, *args, **kwargs)
    if isinstance(result, tuple) and np.ndim(start) == np.ndim(stop) == 0:
        return result[0], float(result[1])
    return result


def _einsum(subscripts: Any, *operands: Any, **options: Any) -> Any:
    """Compute ``einsum``; lists are axes in its form without text, and hidden uploads in this."""
    if isinstance(subscripts, str):
        for operand in operands:
            if isinstance(operand, list):
                refuse_operand("einsum", operand)
    return np.einsum(subscripts, *operands, **options)


HOSTS: dict[str, Callable[..., Any]] = {
    "astype": lambda x, dtype, copy=True: x.astype(dtype, copy=copy),
    "einsum": _einsum,
    "linspace": _step_as_number,
    "eig": _complex_result(np.linalg.eig),
    "eigvals": _complex_result(np.linalg.eigvals),
}

SPECIAL: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (
        creation.array, creation.asarray, creation.asarray_chkfinite, creation.empty,
        creation.empty_like, asnumpy, can_cast, common_type, copyto, mask_indices,
        min_scalar_type, put, result_type,
    )
} | {"asanyarray": creation.asarray, "put_along_axis": indexing.put_along_axis,
     "get_array_module": get_array_module}  # fmt: skip

# Made on first use, from NumPy's function of the same name.
FAMILIES: dict[Callable[[str], Callable[..., Any]], frozenset[str]] = {
    creation.reader: frozenset(
        "frombuffer fromfile fromfunction fromiter fromstring genfromtxt load loadtxt".split()
    ),
    _writer: frozenset("save savetxt savez savez_compressed".split()),
    _text: frozenset(
        "array2string array_repr array_str format_float_positional format_float_scientific".split()
    ),
    _question: frozenset(
        "base_repr binary_repr iscomplexobj isfortran isrealobj isscalar may_share_memory ndim "
        "shape shares_memory size".split()
    ),
}
