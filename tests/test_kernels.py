"""Faster versions of ops: chosen where they can serve, booked as declared, equal to the reference.

The CUDA source runs here as well: without a GPU it is compiled as C, with what CUDA builds in
written out, and launched thread by thread.
"""

import ctypes
import importlib
import shutil
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xbackprop as xb
from xbackprop.backend.device import Device
from xbackprop.dispatch import ArraySpec, Op
from xbackprop.kernels.cuda.ops import random_bits as cuda_module
from xbackprop.ops.random_bits import random_bits

on_fake = pytest.mark.parametrize("xb_device", ["fake"], indirect=True)

STATES = [
    np.array([0, 0, 0, 0], dtype=np.uint32),
    np.array([0xFFFFFFFF] * 4, dtype=np.uint32),
    np.array([0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344], dtype=np.uint32),
]
SHAPES = [(1,), (3,), (4,), (5,), (2, 3, 5), (1024,), (1025,), (4099,)]
OFFSETS = [0, 1, 2, 3, 4, 1022, 2**32 - 2, 2**33 + 5, 2**34 + 3, 2**40 + 1]


def reference(state: np.ndarray, shape: tuple[int, ...], offset: int = 0) -> np.ndarray:
    with xb.use_device("cpu"):
        return random_bits.reference(state, shape, offset)


# --- the CUDA source, run on the CPU ------------------------------------------------------

C_COMPILER = next((name for name in ("cc", "gcc", "clang") if shutil.which(name)), None)

SHIM = """
typedef struct { unsigned int x, y, z; } dim3;
typedef struct { unsigned int x, y, z, w; } uint4;
static dim3 blockIdx, blockDim, threadIdx;
static uint4 make_uint4(unsigned int x, unsigned int y, unsigned int z, unsigned int w)
{ uint4 all = {x, y, z, w}; return all; }
#define __global__
"""

LAUNCH = """
typedef unsigned long long wide;
void launch(unsigned int grid, unsigned int block, const unsigned int* state, unsigned int* out,
            wide first_block, unsigned int skip, wide size)
{
    blockDim.x = block;
    for (blockIdx.x = 0; blockIdx.x < grid; ++blockIdx.x)
        for (threadIdx.x = 0; threadIdx.x < block; ++threadIdx.x)
            random_bits(state, out, first_block, skip, size);
}
/* One thread of a launch too large to run; `out` is where its own four outputs go. */
void run_one(unsigned int block_index, unsigned int block, unsigned int thread,
             const unsigned int* state, unsigned int* out, wide first_block, unsigned int skip,
             wide size)
{
    blockDim.x = block; blockIdx.x = block_index; threadIdx.x = thread;
    random_bits(state, out - 4 * ((wide)block_index * block + thread) + skip,
                first_block, skip, size);
}
"""


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Any:
    if C_COMPILER is None or sys.platform == "win32":
        pytest.skip("no C compiler (cc, gcc, clang) to run the CUDA source with")
    folder = tmp_path_factory.mktemp("kernel")
    source = cuda_module.SOURCE.replace('extern "C"', "static")
    (folder / "kernel.c").write_text(SHIM + source + LAUNCH, encoding="ascii")
    command = [C_COMPILER, "-std=c99", "-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC"]
    subprocess.run(
        [*command, "-o", str(folder / "kernel.so"), str(folder / "kernel.c")], check=True
    )
    return ctypes.CDLL(str(folder / "kernel.so"))


class RawKernel:
    """What CuPy's class of this name does, with the source compiled above."""

    launches: list[tuple[int, int]]

    def __init__(self, source: str, name: str, library: Any) -> None:
        assert source == cuda_module.SOURCE
        assert name == "random_bits"
        self.library = library
        self.launches = []

    def __call__(self, grid: tuple[int], block: tuple[int], arguments: tuple[Any, ...]) -> None:
        state, out, first_block, skip, size = arguments
        # CuPy passes NumPy's numbers as they are: their widths must be those of the source.
        assert (type(first_block), type(skip), type(size)) == (np.uint64, np.uint32, np.uint64)
        assert state.flags.c_contiguous
        assert out.flags.c_contiguous
        self.launches.append((grid[0], block[0]))
        self.library.launch(
            *(ctypes.c_uint(number) for number in (grid[0], block[0])),
            ctypes.c_void_p(state.ctypes.data),
            ctypes.c_void_p(out.ctypes.data),
            ctypes.c_ulonglong(int(first_block)),
            ctypes.c_uint(int(skip)),
            ctypes.c_ulonglong(int(size)),
        )


@pytest.fixture
def kernel(compiled: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[RawKernel]:
    """Let the kernel's own Python code run, with a CuPy made of NumPy."""
    made: list[RawKernel] = []

    def make(source: str, name: str) -> RawKernel:
        made.append(RawKernel(source, name, compiled))
        return made[-1]

    cupy = types.ModuleType("cupy")
    cupy.__dict__.update(RawKernel=make, empty=padded_empty, ascontiguousarray=np.ascontiguousarray)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    cuda_module._compiled.cache_clear()
    yield cuda_module._compiled()
    cuda_module._compiled.cache_clear()
    assert len(made) == 1  # compiled once


GUARD = 0xDEADBEEF
_held: list[np.ndarray] = []


def padded_empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Between guards that show a write out of bounds; aligned to 16 bytes, as CuPy's memory is."""
    size = int(np.prod(shape, dtype=np.int64))
    memory = np.full(size + 12, GUARD, dtype=dtype)
    start = 4 + (-(memory.ctypes.data // 4) % 4)
    _held[:] = [memory, memory[start : start + size]]
    return memory[start : start + size].reshape(shape)


def assert_guards_stand(size: int) -> None:
    memory, inside = _held
    start = (inside.ctypes.data - memory.ctypes.data) // 4
    assert (memory[:start] == GUARD).all()
    assert (memory[start + size :] == GUARD).all()


@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("state", STATES, ids=["zeros", "ones", "pi"])
def test_cuda_kernel_gives_the_bits_of_the_reference(
    state: np.ndarray, shape: tuple[int, ...], offset: int, kernel: RawKernel
) -> None:
    before = state.copy()
    bits = cuda_module.random_bits(state, shape, offset)
    assert bits.shape == shape
    assert bits.dtype == np.uint32
    np.testing.assert_array_equal(bits, reference(state, shape, offset))
    assert_guards_stand(bits.size)
    np.testing.assert_array_equal(state, before)
    ((grid, block),) = kernel.launches
    blocks = (offset % 4 + bits.size + 3) // 4
    assert (grid - 1) * block < blocks <= grid * block  # enough threads, and no block too many


def test_cuda_kernel_reads_a_strided_state(kernel: RawKernel) -> None:
    state = np.repeat(STATES[2], 2)[::2]
    np.testing.assert_array_equal(cuda_module.random_bits(state, (9,)), reference(STATES[2], (9,)))


def test_cuda_kernel_known_answers(kernel: RawKernel) -> None:
    """Random123's kat_vectors, philox4x32 with 10 rounds, counters that a block number can take."""
    bits = cuda_module.random_bits(STATES[0], (4,))
    assert [hex(word) for word in bits] == ["0x6627e8d5", "0xe169c58d", "0xbc57ac4c", "0x9b00dbd8"]
    # Counter and key all ones: the block number is 2**64 - 1.
    bits = cuda_module.random_bits(STATES[1], (4,), 4 * (2**64 - 1))
    assert [hex(word) for word in bits] == ["0x408f276d", "0x41c83b0e", "0xa20bc7c6", "0x6d5451fd"]


RUN_ONE = """
import ctypes, sys
library = ctypes.CDLL(sys.argv[1])
block, state = int(sys.argv[2]), (ctypes.c_uint * 4)(*map(int, sys.argv[3].split()))
for place, skip in [map(int, pair.split(",")) for pair in sys.argv[4:]]:
    out = (ctypes.c_uint * 4)()
    library.run_one(
        ctypes.c_uint(place // block), ctypes.c_uint(block), ctypes.c_uint(place % block),
        state, out, ctypes.c_ulonglong(3), ctypes.c_uint(skip), ctypes.c_ulonglong(2**40),
    )
    print(*out)
"""


def test_cuda_kernel_counts_threads_in_64_bits(compiled: Any) -> None:
    """A thread's number in its launch, which is too large to run, is that of its four outputs."""
    places = [2**30, 2**32 - 1, 2**32, 2**32 + 5, 2**36 + 1]
    pairs = [f"{place},{skip}" for place in places for skip in (0, 1)]
    state = " ".join(map(str, STATES[2]))
    # By itself: a thread that writes elsewhere would take pytest along.
    run = subprocess.run(
        [sys.executable, "-c", RUN_ONE, compiled._name, str(cuda_module.THREADS), state, *pairs],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    received = [list(map(int, line.split())) for line in run.stdout.splitlines()]
    expected = [reference(STATES[2], (4,), 4 * (place + 3)).tolist() for place in places]
    assert received == [bits for bits in expected for _ in (0, 1)]


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc to compile the CUDA source with")
def test_cuda_source_compiles(tmp_path: Path) -> None:
    (tmp_path / "kernel.cu").write_text(cuda_module.SOURCE, encoding="ascii")
    run = subprocess.run(
        ["nvcc", "-cubin", "-arch=sm_80", "-Werror", "all-warnings", "kernel.cu"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr


def test_kernels_are_importable_without_cupy() -> None:
    program = (
        "import sys; sys.modules['cupy'] = None; import xbackprop.kernels.cuda; "
        "import xbackprop.kernels.cpu; from xbackprop.ops.random_bits import random_bits; "
        "assert random_bits.kernels['cuda']"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)


# --- when it serves, and what is booked ---------------------------------------------------

STATE = ArraySpec((4,), np.dtype(np.uint32))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((STATE, (5,)), True),
        ((STATE, (5, 7), 3), True),
        ((STATE, ()), True),
        ((STATE, (2**33,)), True),
        ((STATE, (4,), 4 * (2**64 - 1)), True),
        ((STATE, (5,), 4 * (2**64 - 1)), False),  # the next block has no number
        ((STATE, (0,)), False),
        ((STATE, (3, 0)), False),
        ((STATE, (5,), -1), False),
        ((STATE, (2**42,)), False),  # more CUDA blocks than a launch has
        ((ArraySpec((5,), np.dtype(np.uint32)), (5,)), False),
        ((ArraySpec((2, 2), np.dtype(np.uint32)), (5,)), False),
        ((ArraySpec((4,), np.dtype(np.uint64)), (5,)), False),
        ((ArraySpec((4,), np.dtype(np.int32)), (5,)), False),
    ],
)
def test_when_the_cuda_kernel_serves(arguments: tuple[Any, ...], expected: bool) -> None:
    (entry,) = random_bits.kernels["cuda"]
    assert entry.when is not None
    assert entry.when(*arguments) is expected


def test_bytes_moved() -> None:
    (entry,) = random_bits.kernels["cuda"]
    assert entry.bytes_moved is not None
    assert entry.bytes_moved(STATE, (10, 10)) == 16 + 400
    assert entry.launches == 1


def launches(call: Callable[[], Any]) -> int:
    with xb.transfer_log() as log:
        call()
    return log.launches


@on_fake
def test_stand_in_books_one_launch(xb_device: Device) -> None:
    state = xb.to_device(STATES[2])
    assert launches(lambda: random_bits(state, (6, 5))) == 1
    assert launches(lambda: random_bits(state, (6, 5), 3)) == 1
    assert launches(lambda: random_bits.reference(state, (6, 5))) > 100
    with xb.transfer_log() as log:
        random_bits(state, (6, 5))
    (event,) = log.events
    assert event.what == "random_bits"
    assert (log.uploads, log.downloads, log.synchronizations) == (0, 0, 0)


@on_fake
def test_stand_in_books_the_reference_where_the_kernel_refuses(xb_device: Device) -> None:
    wide = xb.to_device(STATES[2].astype(np.uint64))
    assert launches(lambda: random_bits(wide, (6, 5))) > 100


@on_fake
def test_dropout_books_few_launches(xb_device: Device) -> None:
    layer = xb.nn.Dropout(0.5, rng=0)
    x = xb.asarray(np.ones((4, 5)))
    layer.forward(x)
    assert launches(lambda: layer.forward(x)) <= 20


@pytest.mark.parametrize("offset", [0, 3, 2**34 + 1])
def test_bits_are_the_same_everywhere(offset: int, xb_device: Device) -> None:
    bits = random_bits(xb.to_device(STATES[2]), (3, 5), offset)
    assert bits.dtype == np.uint32
    np.testing.assert_array_equal(xb.to_host(bits), reference(STATES[2], (3, 5), offset))


def test_masks_are_the_same_everywhere(xb_device: Device) -> None:
    x = np.ones((7, 9), dtype=np.float32)
    expected = [xb.nn.Dropout(0.3, rng=1, device="cpu").forward(x)[0]]
    here = xb.nn.Dropout(0.3, rng=1)
    np.testing.assert_array_equal(xb.to_host(here.forward(xb.to_device(x))[0]), expected[0])


# --- kernels of others --------------------------------------------------------------------


@pytest.fixture
def doubling() -> Op:
    """An op as a third party writes one: three launches of its reference on a device."""

    @xb.op(formula="output = x + x")
    def doubled(x: Any, offset: int = 0) -> Any:
        return x + x + offset - 0

    assert isinstance(doubled, Op)
    return doubled


def test_third_party_kernel(doubling: Op, xb_device: Device) -> None:
    calls: list[str] = []

    @doubling.kernel("cpu")
    @doubling.kernel(
        "cuda", when=lambda x, *_: x.dtype == np.float32, launches=2, bytes_moved=lambda x, *_: 8
    )
    def doubled_fast(x: Any, offset: int = 0) -> Any:
        calls.append(str(xb_device))
        return x * 2 + offset

    x = xb.asarray([1.0, 2.0])
    count = launches(lambda: doubling(x))
    np.testing.assert_array_equal(xb.to_host(doubling(x, 3)), [5.0, 7.0])
    # The stand-in asks the kernel's `when`, runs the reference and books the declared launches.
    assert calls == ([] if xb_device.kind == "fake" else [str(xb_device)] * 2)
    assert count == (0 if xb_device.kind == "cpu" else 2)
    assert doubled_fast is doubling.kernels["cpu"][0].function  # the decorator returns it as it is
    if xb_device.kind == "fake":
        integers = xb.asarray([1, 2])
        assert launches(lambda: doubling(integers)) == 3  # those of the reference


def test_newest_kernel_that_can_serve_is_chosen(doubling: Op) -> None:
    def register(name: str, when: Any) -> None:
        doubling.kernel("cpu", when=when)(lambda x, offset=0: name)

    register("always", None)
    register("large", lambda x, *_: x.shape[0] > 3)
    register("never", lambda x, *_: False)
    assert doubling(np.ones(2)) == "always"
    assert doubling(np.ones(5)) == "large"


def test_kernel_registered_after_the_first_call(doubling: Op) -> None:
    assert doubling(np.ones(1)) == 2.0
    doubling.kernel("cpu")(lambda x, offset=0: "fast")
    assert doubling(np.ones(1)) == "fast"
    with pytest.raises(ValueError, match="a kernel is for 'cpu' or 'cuda'; got 'fake'"):
        doubling.kernel("fake")


def test_every_kernel_stands_at_the_path_of_what_it_replaces() -> None:
    for kind in ("cpu", "cuda"):
        folder = Path(importlib.import_module(f"xbackprop.kernels.{kind}").__file__ or "").parent
        for path in sorted(folder.rglob("*.py")):
            if path.name == "__init__.py" or path.parent.name == "libraries":
                continue  # packages, and what several kernels share
            name = ".".join(path.relative_to(folder).with_suffix("").parts)
            replaced = importlib.import_module(f"xbackprop.{name}")
            module = importlib.import_module(f"xbackprop.kernels.{kind}.{name}")
            ops = [value for value in vars(replaced).values() if isinstance(value, Op)]
            registered = [
                (op.name, entry.function.__name__)
                for op in ops
                for entry in op.kernels.get(kind, ())
                if entry.function.__module__ == module.__name__
            ]
            assert registered
            for op_name, function_name in registered:
                assert op_name == function_name
