"""One strict gate through which every computation of the stand-in passes."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import numpy as np

from xbackprop.backend.device import FAKE_DEVICE_COUNT, Device
from xbackprop.backend.fake.memory import Allocation, current_index, memory_of
from xbackprop.backend.fork import LockHolder, use
from xbackprop.backend.transfer import record

# What CuPy computes with: NumPy's booleans, integers, floats and complex numbers up to 64 bit a
# part (no longdouble, objects, text, dates, records), and bfloat16 of ml_dtypes.
_DTYPE_CHARACTERS = frozenset("?bBhHiIlLqQefdFD")

_NUMBERS = (bool, int, float, complex)


class FakeArray:
    """An array of the stand-in GPU: NumPy inside, as strict as CuPy outside.

    It holds its NumPy array by composition. Nothing of it passes into NumPy unnoticed:
    ``np.sum(x)``, ``np.asarray(x)`` and ``host + x`` raise. Make one with ``xp.zeros``,
    ``xp.asarray`` or :func:`xbackprop.asarray`.
    """

    __slots__ = ("__weakref__", "_allocation", "_array", "_index")
    __array_ufunc__ = None
    __hash__ = None  # type: ignore[assignment]

    _array: np.ndarray
    _allocation: Allocation
    _index: int

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise TypeError("make stand-in arrays with xp.zeros, xp.empty or xbackprop.asarray")

    @property
    def device(self) -> Device:
        """The device this array lives on."""
        return _DEVICES[self._index]


_DEVICES = tuple(Device("fake", index) for index in range(FAKE_DEVICE_COUNT))


def make(array: np.ndarray, index: int, allocation: Allocation | None = None) -> FakeArray:
    """Wrap a NumPy array that belongs to ``fake:index``; None books fresh memory."""
    fake = object.__new__(FakeArray)
    fake._array = array
    fake._index = index
    fake._allocation = allocation or Allocation(memory_of(index), array.nbytes)
    return fake


def device_at(index: int) -> Device:
    """Return ``fake:index`` as a Device."""
    return _DEVICES[index]


def refuse_dtype(dtype: np.dtype) -> None:
    """Refuse dtypes that no GPU holds."""
    known = dtype.char in _DTYPE_CHARACTERS or _is_bfloat16(dtype)
    if not known or not dtype.isnative:
        raise ValueError(f"Unsupported dtype {dtype}: no GPU holds it")


def _is_bfloat16(dtype: np.dtype) -> bool:
    return dtype.name == "bfloat16" and dtype.type.__module__.partition(".")[0] == "ml_dtypes"


def refuse_operand(name: str, value: Any) -> NoReturn:
    """Refuse what CuPy refuses beside a device array: host arrays, lists, other objects."""
    if isinstance(value, np.ndarray):
        what = f"a NumPy array of shape {value.shape}"
    elif isinstance(value, np.generic):
        what = f"a number of dtype {value.dtype}, which no GPU holds"
    else:
        what = f"{'None' if value is None else 'a ' + type(value).__name__}"
    raise TypeError(
        f"{name}: expected a device array or a number; got {what}. Move host data to the device "
        "once with xbackprop.asarray(...), or bring the device array down with "
        "xbackprop.to_host(...)."
    )


def is_number(value: Any) -> bool:
    """Tell whether ``value`` is a Python or NumPy number that a kernel takes as an argument."""
    if type(value) in _NUMBERS:
        return True
    if isinstance(value, np.generic):
        return value.dtype.char in _DTYPE_CHARACTERS or _is_bfloat16(value.dtype)
    return isinstance(value, _NUMBERS)


def strip(value: Any, name: str, sources: list[FakeArray]) -> Any:
    """Take the NumPy array out of a stand-in array, and note it; numbers pass, the rest not."""
    if type(value) is FakeArray:
        sources.append(value)
        return value._array
    if is_number(value):
        return value
    refuse_operand(name, value)


def execute(
    name: str,
    function: Callable[..., Any],
    sources: Sequence[FakeArray],
    args: Sequence[Any],
    kwargs: dict[str, Any] | None = None,
    *,
    out: Any = None,
    view: bool = False,
    quiet: bool = False,
    synchronizes: bool = False,
) -> Any:
    """Run a NumPy function as a kernel of the stand-in.

    Parameters
    ----------
    name : str
        What errors and the transfer log call it.
    function : callable
        Of NumPy; gets ``args`` and ``kwargs``, which are stripped already.
    sources : sequence of FakeArray
        The stand-in arrays among the arguments, outputs included.
    args, kwargs : sequence, dict
        For ``function``.
    out : FakeArray or tuple, optional
        What is returned in place of the result, which NumPy wrote into it.
    view : bool
        It relabels memory where it can: such a result starts no kernel and may be had from any
        current device.
    quiet : bool
        NumPy may warn here, which CuPy does not.
    synchronizes : bool
        CuPy reads a size or a condition back from the device before it goes on.
    """
    use("fake")
    index = _common_index(name, sources)
    if name == "matmul":
        _refuse_batched_bfloat16(sources)
    if not view:
        require_current(name, index)
    if synchronizes:
        record("synchronization", 0, _DEVICES[index], name)
    if quiet or any(source._array.dtype.kind == "c" for source in sources):  # casts to real warn
        result = run_quietly(function, args, kwargs or {})
    else:
        # A GPU sets no floating-point flags, so nothing may warn here either.
        with np.errstate(all="ignore"):
            result = function(*args, **kwargs) if kwargs else function(*args)
    wrapped = wrap(result, index, sources) if out is None else out
    if not view:
        record("launch", 0, _DEVICES[index], name)
    elif _is_fresh(wrapped, sources):  # a reshape that had to copy, say
        require_current(name, index)
        record("launch", 0, _DEVICES[index], name)
    return wrapped


_quieting = LockHolder()


def run_quietly(function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Run without warnings: the filters belong to the process, so one thread at a time."""
    with _quieting.lock, warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return function(*args, **kwargs)


def read_back(array: FakeArray, what: str) -> np.ndarray:
    """Book a download, with the wait it implies, and return the NumPy array behind ``array``."""
    use("fake")
    place = _DEVICES[array._index]
    record("synchronization", 0, place, what)
    record("download", array._array.nbytes, place, what)
    return array._array


def wrap(result: Any, index: int, sources: Sequence[FakeArray]) -> Any:
    """Put what NumPy returned back on the device: no host array or scalar gets out."""
    if isinstance(result, np.ndarray):
        for source in sources:
            if source._array is result:  # asarray, astype(copy=False) and the like
                return source
        refuse_dtype(result.dtype)
        return make(result, index, _shared_allocation(result, sources))
    if isinstance(result, (tuple, list)):
        parts = [wrap(part, index, sources) for part in result]
        if hasattr(result, "_fields"):  # what unique_all and its kind return
            return type(result)(*parts)
        return parts if isinstance(result, list) else tuple(parts)
    if result is None or type(result) is float:  # the step of linspace; not numpy.float64
        return result
    array = np.asarray(result)
    refuse_dtype(array.dtype)
    return make(array, index)


def _refuse_batched_bfloat16(sources: Sequence[FakeArray]) -> None:
    """Refuse what CuPy 14.2 fails on: its batched product has no bfloat16."""
    if any(_is_bfloat16(s._array.dtype) and s._array.ndim > 2 for s in sources):
        raise TypeError(
            "matmul: CuPy has no product of bfloat16 arrays beyond two dimensions. Call "
            "xbackprop.ops.matmul.product, which has."
        )


def _common_index(name: str, sources: Sequence[FakeArray]) -> int:
    if not sources:
        return current_index()
    index = sources[0]._index
    for source in sources:
        if source._index != index:
            raise ValueError(
                f"{name}: arrays on fake:{index} and fake:{source._index} met. Copy one of them "
                f"first: xbackprop.to_device(array, 'fake:{index}')"
            )
    return index


def require_current(name: str, index: int) -> None:
    """CuPy computes on the current device and allocates there, wherever the inputs live."""
    if index != current_index():
        raise RuntimeError(
            f"{name}: an array on fake:{index} was used while fake:{current_index()} is current; "
            f"the result would be allocated on the wrong device. "
            f"Compute inside `with xbackprop.use_device('fake:{index}')`."
        )


def _is_fresh(result: Any, sources: Sequence[FakeArray]) -> bool:
    if isinstance(result, (tuple, list)):
        return any(_is_fresh(part, sources) for part in result)
    return all(result._allocation is not source._allocation for source in sources)


def _shared_allocation(result: np.ndarray, sources: Sequence[FakeArray]) -> Allocation | None:
    """Find the memory a view looks at."""
    if result.base is None:
        return None
    owner = _owner(result)
    for source in sources:
        if _owner(source._array) is owner:
            return source._allocation
    return None


def _owner(array: np.ndarray) -> np.ndarray:
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array
