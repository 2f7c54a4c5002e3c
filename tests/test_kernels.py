"""Faster versions of ops: chosen where they can serve, booked as declared."""

import importlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xbackprop as xb
from xbackprop.backend.device import Device
from xbackprop.dispatch import ArraySpec, Op
from xbackprop.ops.random_bits import random_bits, random_kept

importlib.import_module("xbackprop.kernels.cuda")  # as the first op on a GPU does

on_fake = pytest.mark.parametrize("xb_device", ["fake"], indirect=True)

STATES = [
    np.array([0, 0, 0, 0], dtype=np.uint32),
    np.array([0xFFFFFFFF] * 4, dtype=np.uint32),
    np.array([0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344], dtype=np.uint32),
]


def reference(state: np.ndarray, shape: tuple[int, ...], offset: int = 0) -> np.ndarray:
    with xb.use_device("cpu"):
        return random_bits.reference(state, shape, offset)


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
        ((STATE._replace(is_contiguous=False), (5,)), False),
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


def test_when_a_mask_can_be_drawn() -> None:
    (entry,) = random_kept.kernels["cuda"]
    assert entry.when is not None
    answers = [entry.when(STATE, (5,), bound) for bound in (0, 2**32 - 1, 2**32, -1)]
    assert answers == [True, True, False, False]
    assert not entry.when(STATE, (0,), 5)


def test_bytes_moved() -> None:
    (entry,) = random_bits.kernels["cuda"]
    assert entry.bytes_moved is not None
    assert entry.bytes_moved(STATE, (10, 10)) == 16 + 400
    assert entry.launches == 1
    (entry,) = random_kept.kernels["cuda"]
    assert entry.bytes_moved is not None
    assert entry.bytes_moved(STATE, (10, 10), 7) == 16 + 100


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
    # The next call's number and its copy, the mask, the product and the choice.
    assert launches(lambda: layer.forward(x)) == 5


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
    """Several kernels of a module stand in a folder at its path."""
    package = Path(xb.__file__).parent
    for kind in ("cpu", "cuda"):
        folder = package / "kernels" / kind
        for path in sorted(folder.rglob("*.py")):
            if path.parent in (folder, folder / "libraries"):
                continue  # what several kernels share
            place = path.relative_to(folder).with_suffix("")
            place = place.parent if place.name == "__init__" else place
            is_package = (package / place / "__init__.py").is_file()
            if is_package or (package / place.parent).with_suffix(".py").is_file():
                continue  # a folder of kernels, and what is in one that stands for a module
            name = ".".join(place.parts)
            replaced = importlib.import_module(f"xbackprop.{name}")
            module = importlib.import_module(f"xbackprop.kernels.{kind}.{name}")
            ops = [value for value in vars(replaced).values() if isinstance(value, Op)]
            registered = [
                (op.name, entry.function.__name__)
                for op in ops
                for entry in op.kernels.get(kind, ())
                if f"{entry.function.__module__}.".startswith(f"{module.__name__}.")
            ]
            assert registered
            assert all(op_name == function_name for op_name, function_name in registered)
