"""What ``x.flat`` and ``x.flags`` of a stand-in array return."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from xbackprop.backend.fake.execute import FakeArray, device_at, execute, strip
from xbackprop.backend.transfer import record


class Flags:
    """The flags CuPy has: nothing can be made read-only."""

    def __init__(self, flags: Any) -> None:
        self.c_contiguous: bool = flags.c_contiguous
        self.f_contiguous: bool = flags.f_contiguous
        self.owndata: bool = flags.owndata
        self.fnc: bool = flags.fnc
        self.forc: bool = flags.forc

    def __getitem__(self, name: str) -> bool:
        if name not in ("C_CONTIGUOUS", "F_CONTIGUOUS", "OWNDATA"):
            raise KeyError(f"{name} is not defined for cupy.ndarray.flags")
        value: bool = getattr(self, name.lower())
        return value

    def __repr__(self) -> str:
        names = ("C_CONTIGUOUS", "F_CONTIGUOUS", "OWNDATA")
        return "\n".join(f"  {name} : {self[name]}" for name in names)


class Flat:
    """An array's elements in one row, by integer or slice; reading copies."""

    def __init__(self, base: FakeArray) -> None:
        self.base = base

    def __len__(self) -> int:
        return self.base._array.size

    def __getitem__(self, key: Any) -> Any:
        part = _one_axis(key)

        def read(host: np.ndarray) -> Any:
            return host.flat[part]

        return execute("flat", read, [self.base], (self.base._array,))

    def __setitem__(self, key: Any, value: Any) -> None:
        part = _one_axis(key)
        sources = [self.base]
        new = strip(value, "flat", sources)

        def write(host: np.ndarray) -> None:
            host.flat[part] = new

        execute("flat", write, sources, (self.base._array,))

    def __iter__(self) -> Iterator[Any]:
        record("synchronization", 0, device_at(self.base._index), "iteration")
        return (self[i] for i in range(len(self)))


def _one_axis(key: Any) -> Any:
    if key is Ellipsis:
        return slice(None)
    if isinstance(key, bool) or not isinstance(key, (int, np.integer, slice)):
        raise IndexError(f"flat: expected an integer, a slice or `...`; got {type(key).__name__}")
    return key
