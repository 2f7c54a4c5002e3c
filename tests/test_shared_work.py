"""A kernel whose parts run in threads: the bits of one thread, and nothing left behind."""

import hashlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import xbackprop as xb
from xbackprop.backend import threads
from xbackprop.kernels.cpu import parts
from xbackprop.kernels.cpu.nn.convolution.convolution import winograd
from xbackprop.kernels.cpu.parts import Workspace
from xbackprop.kernels.loops import HAS_NUMBA

pytest.importorskip("threadpoolctl")
pytestmark = pytest.mark.skipif(not HAS_NUMBA, reason="numba is not installed (extra fast)")
nn = xb.nn
SHAPES = [  # channels, outputs, shape of a sample, padding
    (8, 9, (7, 13, 10), 1),  # several samples a block
    (9, 8, (3, 21, 30), (0, 2)),  # several blocks a sample
    (130, 128, (2, 9, 8), 1),  # one block: outputs, and the places of a gradient, are cut
]


class Pool(parts.ThreadPoolExecutor):
    """Counts the threads that were started."""

    started = 0

    def __init__(self, number: int) -> None:
        super().__init__(number)
        Pool.started += number


@pytest.fixture(autouse=True)
def shares_all(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the smallest convolution be shared, whoever else is at work here."""
    monkeypatch.setattr(winograd, "sharing", lambda *arguments: winograd.share_work(9))
    monkeypatch.setattr(threads, "_others_that_run", lambda: 0)
    monkeypatch.setattr(parts, "ThreadPoolExecutor", Pool)
    Pool.started = 0
    libraries = threads._find_libraries()
    before = [library.get_num_threads() for library in libraries]
    yield
    xb.set_num_threads(None)
    assert [library.get_num_threads() for library in libraries] == before


def results(channels: int, outputs: int, shape: tuple[int, ...], padding: Any) -> list[Any]:
    rng = np.random.default_rng(0)
    batch, *lengths = shape
    x = rng.standard_normal((batch, channels, *lengths), np.float32)
    layer = nn.Conv2d(channels, outputs, 3, padding=padding, rng=0)
    output, saved = layer.forward(x)
    grad = layer.backward(rng.standard_normal(output.shape, np.float32), saved)
    return [output, grad, layer.weight.grad, layer.bias.grad]


def assert_equal_bits(one: list[Any], other: list[Any]) -> None:
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("case", SHAPES, ids=str)
def test_any_number_of_threads_gives_the_same_bits(case: Any) -> None:
    xb.set_num_threads(1)
    alone = results(*case)
    assert Pool.started == 0
    for number in (2, 3, 5, 2):
        xb.set_num_threads(number)
        assert_equal_bits(results(*case), alone)
    assert Pool.started >= 1 + 2 + 3 + 1
    assert threading.active_count() == 1


def test_memory_to_work_in_is_read_by_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever stands in it, results are the same, and lie elsewhere."""
    xb.set_num_threads(2)
    expected = [results(*case) for case in SHAPES]
    enter = Workspace.__enter__

    def poisoned(self: Workspace) -> Workspace:
        enter(self)._block.fill(0xFF)  # NaN
        return self

    monkeypatch.setattr(Workspace, "__enter__", poisoned)
    for case, arrays in zip(SHAPES, expected, strict=True):
        received = results(*case)
        assert_equal_bits(received, arrays)
        for block in Workspace._free:
            assert not any(np.shares_memory(block, array) for array in received)


def test_memory_that_is_kept_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Workspace, "_free", type(Workspace._free)(maxlen=2))
    monkeypatch.setattr(parts, "KEPT", 1 << 20)
    xb.set_num_threads(5)
    results(*SHAPES[0])
    assert max(block.nbytes for block in Workspace._free) > 0
    for case in SHAPES * 2:
        results(*case)
        assert max((block.nbytes for block in Workspace._free), default=0) <= parts.KEPT


def test_arrays_of_a_workspace_are_apart() -> None:
    for _ in range(2):  # the second time there is a block for them
        with Workspace() as workspace:
            first = workspace.take(3, 5)
            kept = workspace.taken
            first[...] = 1
            for _ in range(2):
                workspace.take(1000)[...] = 2
                workspace.take(7)[...] = 3
                workspace.clear(kept)
            assert (first == 1).all()
            assert workspace.take(2, 0).size == 0


def test_shards_share_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(8 * 14 * 14, 3), rng=0)
    trainer = xb.Trainer(model, nn.CrossEntropyLoss(), xb.optim.SGD(model.parameters()), shards=2)
    seen = []

    def listened(*_: Any) -> Any:
        seen.append(threading.current_thread())
        return threads.share_work(9)

    monkeypatch.setattr(winograd, "sharing", listened)
    xb.set_num_threads(2)
    rng = np.random.default_rng(0)
    trainer.step(rng.standard_normal((6, 8, 16, 16), np.float32), rng.integers(0, 3, 6))
    assert seen
    assert threading.main_thread() not in seen
    assert Pool.started == 0


def test_a_kernel_beside_another_shares_nothing() -> None:
    xb.set_num_threads(3)
    with threads.blas_threads(3), threads.share_work(9) as first, threads.share_work(9) as second:
        assert (first, second) == (3, 1)
    with threads.share_work(2) as number:
        assert number == 2
    with threads.share_work(1) as number:
        assert number == 1


def test_small_work_is_not_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(threads, "_others_that_run", lambda: 0)
    monkeypatch.setattr(parts, "ThreadPoolExecutor", Pool)
    xb.set_num_threads(2)
    results(8, 8, (7, 40, 40), 1)  # many tiles
    results(128, 128, (2, 9, 9), 1)  # large products
    assert Pool.started == 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counted on Linux only")
def test_threads_that_others_keep_busy_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    xb.set_num_threads(2)
    busy = threading.Thread(
        target=hashlib.pbkdf2_hmac, args=("sha256", b"", b"", 3_000_000), daemon=True
    )
    busy.start()  # computes without the GIL, for a second or so
    seen = []
    while busy.is_alive() and 1 not in seen:
        with threads.share_work(2) as number:
            seen.append(number)
    assert 1 in seen
    busy.join()


def test_an_error_in_a_part_ends_all(monkeypatch: pytest.MonkeyPatch) -> None:
    done = []

    def fails(item: int, workspace: Workspace) -> None:
        done.append(item)
        if item == 3:
            raise MemoryError("of part 3")

    for number in (1, 2, 4):
        xb.set_num_threads(number)
        done.clear()
        with threads.share_work(4) as several, Workspace() as workspace:
            ends = pytest.raises(MemoryError, match="part 3")
            with ends:
                parts.in_parts(fails, range(1000), several, workspace)
        assert len(done) < 1000
        assert threading.active_count() == 1


def test_parts_see_the_callers_errstate() -> None:
    """Which NumPy keeps apart for each thread: an overflow is not told, as in one thread."""
    xb.set_num_threads(2)
    layer = nn.Conv2d(8, 8, 3, rng=0)
    with np.errstate(all="ignore"):
        layer(np.full((9, 8, 12, 12), 3e38, np.float32))
    assert Pool.started


SCRIPT = """
import atexit, os, sys, threading
import numpy as np
import xbackprop as xb
from xbackprop.backend import threads
from xbackprop.kernels.cpu.nn.convolution.convolution import winograd
winograd.sharing, threads._others_that_run = lambda *_: threads.share_work(9), lambda: 0
xb.set_num_threads(2)
layer, x = xb.nn.Conv2d(8, 8, 3, rng=0), np.ones((9, 8, 20, 20), np.float32)
expected = layer(x)
def agrees():
    return layer(x).tobytes() == expected.tobytes()
"""


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT + code],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="no fork here")
def test_a_forked_child_shares_too() -> None:
    """Also one that is forked while another thread is in the middle of it."""
    code = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12's, of threads beside a fork
stop = threading.Event()
def go_on():
    while not stop.is_set():
        layer(x)
other = threading.Thread(target=go_on)
other.start()
for _ in range(20):
    child = os.fork()
    if not child:
        os._exit(0 if agrees() and agrees() else 1)
    assert os.waitpid(child, 0)[1] == 0
stop.set()
other.join()
print(agrees())
"""
    assert run(code) == "True\n"


def test_the_interpreter_ends_at_once() -> None:
    code = "print(agrees(), threading.active_count()); atexit.register(lambda: print(agrees()))"
    assert run(code) == "True 1\nTrue\n"


def test_without_threadpoolctl_one_thread_does_all() -> None:
    code = """
import sys; sys.modules['threadpoolctl'] = None
from xbackprop.backend.threads import share_work
with share_work(4) as number: print(number)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
