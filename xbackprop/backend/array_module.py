"""The array tells where it lives: which module computes with a given array."""

import sys
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np

# An array may be numpy.ndarray, cupy.ndarray or the stand-in GPU's FakeArray. CuPy publishes no
# types and a union would force casts on every line, so the alias documents and does not check.
Array: TypeAlias = Any

# Array class -> module. CuPy and the stand-in enter on first sight, so neither is imported for it.
_MODULES: dict[type, Any] = {np.ndarray: np}


def get_array_module(*arrays: Any) -> Any:
    """Return the module (NumPy, CuPy or the stand-in) that computes with ``arrays``.

    Parameters
    ----------
    *arrays : array or scalar
        Anything that is not a device array counts as a host value.

    Returns
    -------
    module
        ``cupy`` or the stand-in's namespace when one of the arrays lives there, else ``numpy``.

    Examples
    --------
    >>> import numpy as np
    >>> import xbackprop as xb
    >>> xb.get_array_module(np.ones(3)) is np
    True
    """
    for array in arrays:
        module = _MODULES.get(type(array)) or _find_module(type(array))
        if module is not np:
            return module
    return np


def is_array(value: Any) -> bool:
    """Tell whether ``value`` is an array of any backend (NumPy scalars and lists are not)."""
    cls = type(value)
    return cls in _MODULES or _find_module(cls) is not np or isinstance(value, np.ndarray)


def is_device_array(value: Any) -> bool:
    """Tell whether ``value`` lives on a GPU, real or stand-in."""
    return get_array_module(value) is not np


def register_array_type(cls: type, module: Any) -> None:
    """Declare that arrays of class ``cls`` are computed with by ``module``."""
    _MODULES[cls] = module


def _find_module(cls: type) -> Any:
    """Recognise CuPy arrays by name: importing CuPy to ask would load CUDA on a CPU run."""
    if cls.__name__ == "ndarray" and cls.__module__.partition(".")[0] == "cupy":
        cupy: ModuleType = sys.modules["cupy"]
        register_array_type(cls, cupy)
        return cupy
    return np
