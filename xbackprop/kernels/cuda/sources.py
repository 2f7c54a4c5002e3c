"""CUDA sources: files beside the modules that launch them, and what is instantiated of each.

Half precision is two types of our own, so a source needs no CUDA header, and compiles in a few
milliseconds: with NVRTC on the machine that runs it, in the session ``cuda_compile`` for every
architecture, and as C++ in the tests, which run it on the CPU.
"""

import functools
import itertools
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from xbackprop.backend.array_module import Array
from xbackprop.dispatch import ArraySpec

OPTIONS = ("-std=c++17",)  # CuPy adds -ftz=true
TYPES = {"float32": "float", "float16": "Half", "bfloat16": "BFloat16"}
INDICES = {"int64": "long long", "int32": "int"}
ALIGNED = {True: "true", False: "false"}
MOST_BLOCKS = 2**31 - 1  # of a launch, along x
_INCLUDE = re.compile(r'^#include "(\w+\.cuh)"\n', re.MULTILINE)


class Source:
    """A CUDA source, and the instances of its templates that are launched.

    Parameters
    ----------
    module_file : str
        ``__file__`` of the module beside it.
    instances : iterable of str
        Expressions that name them, ``"kernel<float, true>"``.

    Attributes
    ----------
    path : pathlib.Path
        The module's path, ending in ``.cu``.
    instances : tuple of str
    """

    def __init__(self, module_file: str, instances: Iterable[str]) -> None:
        self.path = Path(module_file).with_suffix(".cu")
        self.instances = tuple(instances)
        SOURCES.append(self)

    @functools.cached_property
    def text(self) -> str:
        """The source with our headers in it: CuPy's cache does not look into included files."""
        folder = Path(__file__).parent / "include"
        seen: set[str] = set()

        def insert(match: re.Match[str]) -> str:
            name = match[1]
            if name in seen:
                return ""
            seen.add(name)
            return _INCLUDE.sub(insert, (folder / name).read_text(encoding="ascii"))

        return _INCLUDE.sub(insert, self.path.read_text(encoding="ascii"))

    def launch(
        self, instance: str, grid: int | tuple[int, int], threads: int, *arguments: Any
    ) -> None:
        """Start a kernel on the current stream.

        Parameters
        ----------
        instance : str
            One of ``instances``.
        grid : int or tuple of int
            Blocks along x, or along x and y.
        threads : int
            Of each block, a multiple of 32.
        *arguments : array or NumPy scalar
            With the widths that the source declares; None is a null pointer.
        """
        blocks = grid if isinstance(grid, tuple) else (grid,)
        given = tuple(np.uintp(0) if value is None else value for value in arguments)
        self._function(instance)(blocks, (threads,), given)

    def _function(self, instance: str) -> Any:
        if instance not in self._functions:
            import cupy

            # One module for each instance: what is not used is not compiled.
            module = cupy.RawModule(code=self.text, options=OPTIONS, name_expressions=(instance,))
            self._functions[instance] = module.get_function(instance)
        return self._functions[instance]

    @functools.cached_property
    def _functions(self) -> dict[str, Any]:
        return {}


SOURCES: list[Source] = []  # every one there is, once kernels.cuda has been imported


def expand(template: str, **choices: Iterable[str]) -> list[str]:
    """Return the template with every combination of choices, ``"k<{T}>"`` with ``T=("int",)``."""
    names = list(choices)
    return [
        template.format(**dict(zip(names, values, strict=True)))
        for values in itertools.product(*choices.values())
    ]


@functools.cache
def name_of(dtype: Any) -> str:
    """Return a dtype's name, which NumPy makes anew whenever it is asked; kernels ask often."""
    return str(dtype.name)


def is_float(*arrays: ArraySpec | None) -> bool:
    """Tell whether all that are there have one dtype of ``TYPES``, and rows side by side."""
    dtype = None
    for array in arrays:
        if array is not None:
            dtype = array.dtype if dtype is None else dtype
            if array.dtype != dtype or not array.is_contiguous:
                return False
    return dtype is None or name_of(dtype) in TYPES


def is_aligned(width: int, *arrays: Array | None) -> bool:
    """Tell whether rows of ``width`` elements can be read 16 bytes at a time in all arrays."""
    return all(
        array.data.ptr % 16 == 0 and width * array.dtype.itemsize % 16 == 0
        for array in arrays
        if array is not None
    )


def pack_size(dtype: np.dtype, aligned: bool) -> int:
    """Return how many elements a thread reads at once."""
    return 16 // dtype.itemsize if aligned else 1


def threads_for(count: int, most: int = 256) -> int:
    """Return how many threads share ``count`` pieces of work: a power of two, at least a warp."""
    return min(most, max(32, 1 << max(count - 1, 0).bit_length()))


def count_bytes(*arrays: ArraySpec | None) -> int:
    """Return the memory that arrays take together."""
    return sum(
        math.prod(array.shape) * array.dtype.itemsize for array in arrays if array is not None
    )
