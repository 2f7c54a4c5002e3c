"""The stand-in's array module: every function that CuPy has, with CuPy's keywords only."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from xbackprop.backend.cupy_surface import Signature, load
from xbackprop.backend.fake import rules
from xbackprop.backend.fake.execute import FakeArray, execute, strip
from xbackprop.backend.fake.functions import NotModelledError, Ufunc, make_function
from xbackprop.backend.fake.specials import FAMILIES, HOSTS, SPECIAL

# Of ``cupy.lib.stride_tricks``: read from its source, the table lists top-level names only.
_STRIDE_TRICKS = {
    "sliding_window_view": Signature(
        ("x", "window_shape", "axis"), ("subok", "writeable"), ("x", "window_shape")
    )
}


class Namespace:
    """What ``xp`` is for stand-in arrays; resolves names on first use."""

    ndarray = FakeArray
    ufunc = Ufunc

    def __init__(
        self, title: str, resolve: Callable[[str], Any], names: Callable[[], set[str]]
    ) -> None:
        self.__name__ = title
        self._resolve = resolve
        self._names = names

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        value = self._resolve(name)
        setattr(self, name, value)
        return value

    def __dir__(self) -> list[str]:
        return sorted(self._names() | {"ndarray", "ufunc"})

    def __reduce__(self) -> str:
        return "xp"  # a module has no copies

    def __repr__(self) -> str:
        return f"<{self.__name__}: CuPy's functions on the stand-in GPU>"


@cache
def _resolve(name: str) -> Any:
    """Find what CuPy calls ``name``; what CuPy lacks is an AttributeError."""
    surface = load()
    if name in ("linalg", "fft"):
        return _submodule(name)
    if name == "lib":
        tricks = Namespace("cupy.lib.stride_tricks", _stride_trick, lambda: set(_STRIDE_TRICKS))
        return _Holder(stride_tricks=tricks)
    if name in rules.NOT_MODELLED or name in rules.SUCCESSORS:
        raise _missing(name)
    if name in SPECIAL:
        return SPECIAL[name]
    for family, members in FAMILIES.items():
        if name in members and name in surface.functions:
            return family(name)
    host: Any = getattr(np, name, None)
    if name in surface.ufuncs and host is not None:
        return Ufunc(name, host, surface.ufuncs[name])
    if name in surface.functions and (name in HOSTS or host is not None):
        return make_function(name, HOSTS.get(name, host), surface.functions[name])
    if name in ("s_", "index_exp"):
        return host
    if name in ("r_", "c_"):
        return _Joiner(name)
    if name in ("mgrid", "ogrid"):
        return _Grid(name)
    if name in surface.constants | surface.dtypes | surface.abstract_dtypes | surface.from_numpy:
        return _from_numpy(name)
    if name == "exceptions":
        return np.exceptions
    raise _missing(name)


def _names() -> set[str]:
    """Return the names that resolve, for ``dir(xp)``."""
    surface = load()
    tables = (surface.functions, surface.ufuncs, surface.constants, surface.dtypes)
    more = (surface.abstract_dtypes, surface.from_numpy, surface.index_helpers)
    candidates = {"linalg", "fft", "lib", "exceptions"}.union(*tables, *more)
    return {name for name in candidates if _can_resolve(name)}


def _can_resolve(name: str) -> bool:
    try:
        _resolve(name)
    except AttributeError:
        return False
    return True


def _missing(name: str) -> AttributeError:
    """Say why a name is not there."""
    surface = load()
    if name in rules.SUCCESSORS:
        return NotModelledError(f"NumPy 2 has no {name!r} and CuPy deprecates it: use "
                                f"{rules.SUCCESSORS[name]}")  # fmt: skip
    if name in surface.always_raises:
        return NotModelledError(f"cupy.{name} exists only to raise; use another function")
    known = surface.functions.keys() | surface.ufuncs.keys() | surface.classes | surface.modules
    if name in known:
        return NotModelledError(
            f"the stand-in does not model cupy.{name}. Draw random numbers on the host from an "
            "explicit Generator; put CUDA code into a cuda kernel of an op, whose reference the "
            "stand-in runs"
        )
    hint = " (NumPy has it, CuPy does not)" if hasattr(np, name) else ""
    return AttributeError(f"cupy has no attribute {name!r}{hint}")


def _submodule(title: str) -> Namespace:
    """Make ``xp.linalg`` or ``xp.fft``."""
    table = getattr(load(), title)
    module = getattr(np, title)

    def resolve(name: str) -> Any:
        if title == "linalg" and name == "LinAlgError":
            return np.linalg.LinAlgError
        host = getattr(module, name, None)
        if name not in table:
            hint = " (NumPy has it, CuPy does not)" if host is not None else ""
            raise AttributeError(f"cupy.{title} has no attribute {name!r}{hint}")
        if name == "matmul":
            return xp.matmul
        if host is None:
            raise NotModelledError(f"this NumPy has no {title}.{name}")
        plain = _as_plain_tuple(HOSTS.get(name, host))
        return make_function(name, plain, table[name], owner=f"cupy.{title}")

    return Namespace(f"cupy.{title}", resolve, lambda: set(table))


def _as_plain_tuple(host: Callable[..., Any]) -> Callable[..., Any]:
    """CuPy's ``eigh`` and ``svd`` return tuples without names."""

    def run(*args: Any, **kwargs: Any) -> Any:
        result = host(*args, **kwargs)
        return tuple(result) if isinstance(result, tuple) else result

    return run


def _stride_trick(name: str) -> Any:
    if name not in _STRIDE_TRICKS:
        if name == "as_strided":
            raise NotModelledError(
                "the stand-in does not model as_strided, which reads past the end of memory "
                "unseen; use sliding_window_view and slices"
            )
        raise AttributeError(f"cupy.lib.stride_tricks has no attribute {name!r}")
    host = getattr(np.lib.stride_tricks, name)
    return make_function(name, host, _STRIDE_TRICKS[name], owner="cupy.lib.stride_tricks")


class _Holder:
    """A module with nothing but submodules."""

    def __init__(self, **members: Any) -> None:
        self.__dict__.update(members)


class _Joiner:
    """``xp.r_`` and ``xp.c_``: join device arrays and numbers, without NumPy's slices and text."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getitem__(self, key: Any) -> Any:
        parts = key if isinstance(key, tuple) else (key,)
        sources: list[FakeArray] = []
        stripped = tuple(strip(part, self._name, sources) for part in parts)
        return execute(self._name, getattr(np, self._name).__getitem__, sources, (stripped,))


class _Grid:
    """``xp.mgrid`` and ``xp.ogrid``: coordinates made on the device from slices of numbers."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getitem__(self, key: Any) -> Any:
        return execute(self._name, getattr(np, self._name).__getitem__, [], (key,))


def _from_numpy(name: str) -> Any:
    """Pass on what CuPy takes from NumPy: classes as they are, functions without arrays."""
    value = getattr(np, name, None)
    if value is None and name != "newaxis":
        value = getattr(np.exceptions, name, None)
        if value is None:
            raise AttributeError(f"NumPy 2 has no {name!r} and neither has CuPy of its own")
    if isinstance(value, type) or not callable(value):
        return value

    def call(*args: Any, **kwargs: Any) -> Any:
        if any(isinstance(a, FakeArray) for a in args):
            raise TypeError(f"{name}: expected dtypes or plain values; got a device array")
        return value(*args, **kwargs)

    call.__name__ = name
    return call


xp = Namespace("xbackprop.backend.fake", _resolve, _names)
