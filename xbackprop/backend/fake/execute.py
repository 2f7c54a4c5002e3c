"""One strict gate through which every computation of the stand-in passes."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from xbackprop.backend.device import Device
from xbackprop.backend.fake.memory import Allocation, current_index, memory_of
from xbackprop.backend.transfer import record

_SCALARS = (bool, int, float, complex, np.generic)
_REFUSED_KINDS = "OSUMm"  # object, text, dates: no GPU holds them

# What only relabels memory starts no kernel and may be done from any current device.
VIEWS = frozenset(
    "reshape transpose ravel squeeze expand_dims swapaxes moveaxis rollaxis broadcast_to "
    "diagonal view flip rot90 atleast_1d atleast_2d atleast_3d split array_split hsplit vsplit "
    "dsplit broadcast_arrays real imag unstack".split()
)

# CuPy must learn a size from the device before it can go on.
SYNCHRONIZING = frozenset(
    "nonzero flatnonzero argwhere unique extract compress bincount repeat setdiff1d union1d "
    "intersect1d setxor1d trim_zeros unique_values unique_counts unique_all unique_inverse "
    "histogram histogram2d histogramdd digitize array2string".split()
)


class FakeArray:
    """An array of the stand-in GPU: NumPy inside, as strict as CuPy outside.

    It holds its NumPy array by composition. Nothing of it passes into NumPy unnoticed:
    ``np.sum(x)``, ``np.asarray(x)`` and ``host + x`` raise, as they do for a CuPy array.
    """

    __slots__ = ("_allocation", "_array", "_index")
    __array_ufunc__ = None
    __array_priority__ = 100.0
    __hash__ = None  # type: ignore[assignment]

    _array: np.ndarray
    _allocation: Allocation
    _index: int

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise TypeError("make stand-in arrays with xp.zeros, xp.empty or xbackprop.asarray")

    @property
    def device(self) -> Device:
        """The device this array lives on."""
        return Device("fake", self._index)


def make(array: np.ndarray, index: int, allocation: Allocation | None = None) -> FakeArray:
    """Wrap a NumPy array that belongs to ``fake:index``; None books fresh memory."""
    fake = object.__new__(FakeArray)
    fake._array = array
    fake._index = index
    fake._allocation = allocation or Allocation(memory_of(index), array.nbytes)
    return fake


def execute(
    name: str,
    function: Callable[..., Any],
    args: Sequence[Any],
    kwargs: dict[str, Any],
) -> Any:
    """Run a NumPy function as a kernel of the stand-in.

    Arguments may be stand-in arrays of one device, and scalars; NumPy arrays are refused. The
    result stays on the device, zero-dimensional results too.
    """
    sources: list[FakeArray] = []
    _collect(args, sources)
    _collect(kwargs.values(), sources)
    index = _common_index(name, sources)
    is_view = name in VIEWS
    if not is_view:
        _require_current(name, index)
    host_args = [strip(value, name, index) for value in args]
    host_kwargs = {key: strip(value, f"{name}({key}=)", index) for key, value in kwargs.items()}
    if name in SYNCHRONIZING:
        record("synchronization", 0, Device("fake", index), name)
    # A GPU sets no floating-point flags, so nothing may warn here either.
    with np.errstate(all="ignore"):
        result = function(*host_args, **host_kwargs)
    output = kwargs.get("out")
    if isinstance(output, tuple) and len(output) == 1:
        output = output[0]
    wrapped = output if isinstance(output, FakeArray) else _wrap(result, index, sources)
    if not is_view:
        record("launch", 0, Device("fake", index), name)
    return wrapped


def strip(value: Any, name: str, index: int) -> Any:
    """Take the NumPy array out of a stand-in array; refuse what a GPU kernel would refuse."""
    if isinstance(value, FakeArray):
        return value._array
    if value is None or isinstance(value, (*_SCALARS, str, slice, type, np.dtype)):
        if isinstance(value, np.generic) and value.dtype.kind in _REFUSED_KINDS:
            raise TypeError(f"{name}: no GPU holds values of dtype {value.dtype}")
        return value
    if isinstance(value, np.ndarray):
        raise TypeError(
            f"{name}: a NumPy array of shape {value.shape} met an array on fake:{index}. "
            f"Move one of them: xbackprop.to_device(host_array, 'fake:{index}') "
            "or xbackprop.to_host(device_array)."
        )
    if isinstance(value, (list, tuple)):
        parts = [strip(part, name, index) for part in value]
        return parts if isinstance(value, list) else tuple(parts)
    if hasattr(value, "__array__") or hasattr(value, "__array_interface__"):
        raise TypeError(f"{name}: cannot mix {type(value).__name__} with an array on fake:{index}")
    return value


def read_back(array: FakeArray, what: str) -> np.ndarray:
    """Book a download, with the wait it implies, and return the NumPy array behind ``array``."""
    place = Device("fake", array._index)
    record("synchronization", 0, place, what)
    record("download", array._array.nbytes, place, what)
    return array._array


def refuse_dtype(dtype: np.dtype) -> None:
    """Refuse dtypes that no GPU holds."""
    if dtype.kind in _REFUSED_KINDS or dtype.names is not None:
        raise ValueError(f"Unsupported dtype {dtype}: no GPU holds it")


def _collect(values: Iterable[Any], sources: list[FakeArray]) -> None:
    for value in values:
        if isinstance(value, FakeArray):
            sources.append(value)
        elif isinstance(value, (list, tuple)):
            _collect(value, sources)


def _common_index(name: str, sources: list[FakeArray]) -> int:
    indices = {source._index for source in sources}
    if len(indices) > 1:
        names = " and ".join(f"fake:{index}" for index in sorted(indices))
        raise ValueError(f"{name}: arrays on {names} met; copy one with xbackprop.to_device(...)")
    return indices.pop() if indices else current_index()


def _require_current(name: str, index: int) -> None:
    """CuPy computes on the current device and allocates there, wherever the inputs live."""
    if index != current_index():
        raise RuntimeError(
            f"{name}: an array on fake:{index} was used while fake:{current_index()} is current; "
            f"the result would be allocated on the wrong device. "
            f"Compute inside `with xbackprop.use_device('fake:{index}')`."
        )


def _wrap(result: Any, index: int, sources: list[FakeArray]) -> Any:
    if isinstance(result, np.ndarray):
        refuse_dtype(result.dtype)
        return make(result, index, _shared_allocation(result, sources))
    if isinstance(result, (tuple, list)):
        parts = [_wrap(part, index, sources) for part in result]
        if hasattr(result, "_fields"):  # named tuples such as SVDResult
            return type(result)(*parts)
        return parts if isinstance(result, list) else tuple(parts)
    return make(np.asarray(result), index)  # a scalar stays on the device


def _shared_allocation(result: np.ndarray, sources: list[FakeArray]) -> Allocation | None:
    """Find the memory a view looks at."""
    owner = _owner(result)
    for source in sources:
        if _owner(source._array) is owner:
            return source._allocation
    return None


def _owner(array: np.ndarray) -> np.ndarray:
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array
