"""Run the CUDA kernels on the CPU: their own Python and C++ code, with a CuPy made of NumPy.

The sources are compiled by g++ behind `cuda.h`, which stands in for what CUDA builds in, and every
thread of a launch runs.
"""

import ctypes
import functools
import shutil
import subprocess
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from xbackprop.kernels.cuda.sources import OPTIONS, SOURCES, Source

CAN_RUN = sys.platform == "linux" and shutil.which("g++") is not None
WHY_NOT = "no g++ on Linux to run the CUDA sources with"
DTYPES = {
    "float64": np.float64,
    "float32": np.float32,
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
}
GUARD = 0xA5
_ALIGNMENT = 16

_ENTRY = """
extern "C" void run_{number}(const unsigned int* grid, unsigned int threads, void** arguments,
                             int is_reversed)
{{
    Launch<decltype(&{instance})>::run(&{instance}, grid, threads, arguments, is_reversed);
}}
"""


class DeviceArray(np.ndarray):
    """An array with the one attribute of CuPy's that NumPy's lacks."""

    @property
    def data(self) -> Any:  # type: ignore[override]
        return types.SimpleNamespace(ptr=self.ctypes.data)


class Memory:
    """Allocations between guards that show a write out of bounds."""

    def __init__(self) -> None:
        self.held: list[tuple[np.ndarray, int, int]] = []

    def empty(self, shape: Any, dtype: Any = float, *, shift: int = 0) -> DeviceArray:
        """Return an array of garbage, `shift` bytes from an address that 16 divides."""
        dtype = np.dtype(dtype)
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        memory = np.full(size + 4 * _ALIGNMENT, GUARD, dtype=np.uint8)
        start = _ALIGNMENT + (-memory.ctypes.data) % _ALIGNMENT + shift
        self.held.append((memory, start, size))
        return memory[start : start + size].view(dtype).reshape(shape).view(DeviceArray)

    def put(self, values: Any, *, shift: int = 0) -> DeviceArray:
        """Return a copy of an array, in memory of its own."""
        values = np.asarray(values)
        array = self.empty(values.shape, values.dtype, shift=shift)
        array[...] = values
        return array

    def check(self) -> None:
        """Raise AssertionError where a guard was overwritten."""
        for memory, start, size in self.held:
            assert (memory[:start] == GUARD).all()
            assert (memory[start + size :] == GUARD).all()


@functools.cache
def library(source: Source) -> Any:
    """Compile all instances of a source; once in a process."""
    entries = "".join(
        _ENTRY.format(number=number, instance=instance)
        for number, instance in enumerate(source.instances)
    )
    text = '#include "cuda.h"\n' + source.text + entries
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder, "kernel.cpp")
        program.write_text(text, encoding="ascii")
        target = Path(folder, "kernel.so")
        compile_cpp(program, target, "-shared", "-fPIC")
        return ctypes.CDLL(str(target))


def compile_cpp(program: Path, target: Path, *options: str) -> None:
    """Compile a program that includes `cuda.h`; the compiler's warnings are errors."""
    folder = Path(__file__).parent
    command = ["g++", *OPTIONS, "-O1", "-ffp-contract=off", f"-I{folder}", *options]
    command += ["-Wall", "-Wextra", "-Werror", "-Wno-unused-function", "-Wno-unused-variable"]
    run = subprocess.run(
        [*command, "-o", str(target), str(program)], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr


class RawModule:
    """What CuPy's class of this name does, with the source compiled above."""

    def __init__(self, code: str, options: tuple[str, ...], name_expressions: Any) -> None:
        assert options == OPTIONS
        (self.source,) = (source for source in SOURCES if source.text == code)
        (self.instance,) = name_expressions
        assert self.instance in self.source.instances, f"cuda_compile misses {self.instance}"

    def get_function(self, name: str) -> Any:
        assert name == self.instance
        number = self.source.instances.index(name)
        return functools.partial(_launch, getattr(library(self.source), f"run_{number}"), name)


launched: list[tuple[str, tuple[int, ...], int]] = []
_is_reversed = [False]


def _launch(function: Any, name: str, grid: Any, block: Any, arguments: Any) -> None:
    launched.append((name, tuple(grid), block[0]))
    assert block[0] % 32 == 0
    assert 0 < block[0] <= 1024
    assert all(0 < count < 2**31 for count in grid)
    values = []
    for argument in arguments:
        if isinstance(argument, DeviceArray):
            assert argument.flags.c_contiguous
            values.append(ctypes.c_void_p(argument.ctypes.data))
        else:
            assert isinstance(argument, (np.generic, np.ndarray)), type(argument)
            values.append(np.array(argument))  # as wide as it is, as CuPy passes it
    addresses = (ctypes.c_void_p * len(values))(
        *(
            value.ctypes.data if isinstance(value, np.ndarray) else ctypes.addressof(value)
            for value in values
        )
    )
    blocks = (ctypes.c_uint * 2)(*grid, *(1,) * (2 - len(grid)))
    function(blocks, ctypes.c_uint(block[0]), addresses, ctypes.c_int(_is_reversed[0]))


def make_cupy(memory: Memory) -> types.ModuleType:
    """Return the CuPy that kernels import."""
    cupy = types.ModuleType("cupy")
    cupy.__dict__.update(
        RawModule=RawModule,
        ndarray=DeviceArray,
        empty=memory.empty,
        ascontiguousarray=np.ascontiguousarray,
    )
    return cupy


def turn_around(is_reversed: bool) -> None:
    """Let threads and blocks take turns from the last to the first."""
    _is_reversed[0] = is_reversed
