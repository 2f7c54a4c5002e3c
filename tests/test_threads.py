"""Threads that train models of their own, or ask one model, get the bits that one thread gets."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import CodeType
from typing import Any

import numpy as np
import pytest
from workload import train

import xbackprop as xb
from xbackprop import dispatch
from xbackprop.backend.device import Device
from xbackprop.module.parameter import Clock

nn = xb.nn
THREADS = 8


@contextmanager
def hurried_switching() -> Iterator[None]:
    """Let Python switch between threads as often as it can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def in_threads(function: Callable[[int], Any]) -> list[Any]:
    """Call with 0, 1, ... in so many threads that start together."""
    barrier = threading.Barrier(THREADS)

    def work(number: int) -> Any:
        barrier.wait(60)
        return function(number)

    with hurried_switching(), ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(work, range(THREADS)))


def train_apart(device: str, steps: int) -> tuple[list[str], list[str]]:
    """Return the digests of eight trainings one after the other, and at once."""
    serial = [train(seed, steps, device) for seed in range(THREADS)]
    return serial, in_threads(lambda seed: train(seed, steps, device))


def ask_together(device: str, rounds: int) -> tuple[list[bytes], list[bytes]]:
    """Return the answers of one model to eight threads, one after the other and at once."""
    with xb.use_device(device):
        model = nn.Sequential(
            nn.Linear(6, 32), nn.Tanh(), nn.Dropout(0.5),
            nn.Recompute(nn.Sequential(nn.Linear(32, 32), nn.Dropout(0.5), nn.ReLU())),
            nn.Residual(nn.Recompute(nn.Linear(32, 32))), nn.Linear(32, 4), rng=0,
        ).eval()  # fmt: skip
        state = {**model.state_dict(), **model.extra_state()}

    def ask(number: int) -> bytes:
        answers = b""
        with xb.use_device(device):
            for i in range(rounds):
                rng = np.random.default_rng([number, i])
                answers += xb.to_host(model(xb.asarray(rng.normal(size=(1 + i % 7, 6))))).tobytes()
        return answers

    serial = [ask(number) for number in range(THREADS)]
    together = in_threads(ask)
    for name, array in {**model.state_dict(), **model.extra_state()}.items():
        assert array.tobytes() == state[name].tobytes(), f"inference changed {name}"
    return serial, together


def test_separate_models_in_threads(xb_device: Device) -> None:
    serial, together = train_apart(str(xb_device), 20)
    assert together == serial
    assert len(set(serial)) == THREADS


def test_every_thread_on_its_own_device() -> None:
    places = ["cpu", "fake", "fake:1", "fake:2"] * 2
    together = in_threads(lambda seed: train(seed, 10, places[seed]))
    assert together == [train(seed, 10, place) for seed, place in enumerate(places)]


def test_one_model_asked_by_threads(xb_device: Device) -> None:
    serial, together = ask_together(str(xb_device), 30)
    assert together == serial


def test_first_use_by_eight_threads_at_once() -> None:
    """Lazy imports, the choice of the device, the loading of kernels: in one first call."""
    script = (
        "import test_threads as t, workload\n"
        "together = t.in_threads(lambda seed: workload.train(seed, 3, 'cpu'))\n"
        "assert together == [workload.train(seed, 3, 'cpu') for seed in range(8)]\n"
    )
    subprocess.run(
        [sys.executable, "-c", script], check=True, timeout=120, cwd=Path(__file__).parent
    )


# --- interleavings made by hand ------------------------------------------------------------


class Paused:
    """Run a function in a thread that stops before the n-th instruction of some code.

    Whether Python switches threads there by itself depends on its version; others may.
    """

    def __init__(self, function: Callable[[], object], code: CodeType, number: int) -> None:
        self.code, self.left = code, number
        self.is_there, self.go_on = threading.Event(), threading.Event()
        self.is_inside = False
        self.thread = threading.Thread(target=self._run, args=(function,), daemon=True)
        self.thread.start()
        self.is_there.wait(60)

    def _run(self, function: Callable[[], object]) -> None:
        sys.settrace(self._trace)
        try:
            function()
        finally:
            sys.settrace(None)
            self.is_there.set()

    def _trace(self, frame: Any, event: str, argument: Any) -> Any:
        if frame.f_code is not self.code:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            if self.left == 0:
                self.is_inside = True
                self.is_there.set()
                self.go_on.wait(60)
            self.left -= 1
        return self._trace

    def finish(self) -> None:
        self.go_on.set()
        self.thread.join(60)
        assert not self.thread.is_alive()


def every_pause(function: Callable[[], object], code: CodeType) -> Iterator[Paused]:
    """Yield a thread stopped before the first instruction, the second, and so on to the last."""
    for number in range(1000):
        paused = Paused(function, code, number)
        is_inside = paused.is_inside
        yield paused
        paused.finish()
        if not is_inside:
            assert number > 5, "the code was not reached"
            return


def test_no_tick_of_the_clock_is_lost() -> None:
    clock = Clock()
    times: list[int] = []

    def tick() -> None:
        times.append(clock.tick())

    for paused in every_pause(tick, Clock.tick.__code__):
        other = threading.Thread(target=tick)
        other.start()
        other.join(0.05)  # it may have to wait for the paused one
        paused.go_on.set()
        other.join(60)
    assert sorted(times) == list(range(1, len(times) + 1))
    assert clock.time == len(times)


def test_the_clock_under_load() -> None:
    clock, number = Clock(), 3000
    times = in_threads(lambda _: [clock.tick() for _ in range(number)])
    assert all(own == sorted(own) for own in times)
    assert len({time for own in times for time in own}) == THREADS * number == clock.time


class Watcher:
    def __init__(self) -> None:
        self.calls = 0

    def before(self, call: Any) -> None:
        self.calls += 1

    def after(self, call: Any, result: Any) -> None:
        pass


def test_no_observer_is_forgotten() -> None:
    layer, x = nn.Linear(2, 2, device="cpu", rng=0), np.ones((1, 2), np.float32)
    layer(x)
    layer(x)  # from now on the op takes its fast path, when nobody watches
    watchers: list[Watcher] = []
    has_entered, other_left = threading.Event(), threading.Event()

    def watch() -> None:
        watcher = Watcher()
        watchers.append(watcher)
        with xb.observe(watcher):
            has_entered.set()
            other_left.wait(0.05)
            layer(x)

    code = dispatch.observe.__wrapped__.__code__  # type: ignore[attr-defined]
    for paused in every_pause(watch, code):
        with xb.observe(Watcher()):  # enters while the thread is on its way in, leaves after it
            paused.go_on.set()
            has_entered.wait(60)
        other_left.set()
        paused.finish()
        has_entered.clear()
        other_left.clear()
    assert [watcher.calls for watcher in watchers] == [1] * len(watchers)
    assert not dispatch._observing


def test_kernels_are_there_for_every_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second thread, whose first op comes while the kernels load, uses them too."""
    monkeypatch.setattr(dispatch, "_loaded_kernels", set())
    is_loading, go_on, import_lock = threading.Event(), threading.Event(), threading.Lock()

    @xb.op
    def plus_one(x: Any) -> Any:
        return x + 1

    def load(name: str) -> None:
        with import_lock:  # Python's, of that module
            if not plus_one.kernels:
                is_loading.set()
                go_on.wait(60)
                plus_one.kernel("cpu")(lambda x: x + 1000)

    monkeypatch.setattr(dispatch.importlib, "import_module", load)
    results: list[float] = []
    threads = [
        threading.Thread(target=lambda: results.append(float(plus_one(np.ones(1))[0])))
        for _ in range(2)
    ]
    threads[0].start()
    assert is_loading.wait(60)
    threads[1].start()
    threads[1].join(0.1)
    go_on.set()
    for thread in threads:
        thread.join(60)
    assert results == [1001.0, 1001.0]


def test_a_kernel_registered_during_a_call_is_used_from_then_on() -> None:
    @xb.op
    def plus_one(x: Any) -> Any:
        return x + 1

    x = np.ones(1)
    results = []

    def call() -> None:
        plus_one(x)

    for paused in every_pause(call, dispatch.Op._dispatch.__code__):
        plus_one.kernels.clear()
        plus_one.kernel("cpu")(lambda x: x + 1000)
        paused.finish()
        results.append(float(plus_one(x)[0]))
        plus_one.kernels.clear()
        plus_one._direct = False
    assert results == [1001.0] * len(results)


def test_devices_are_chosen_by_many_threads_while_one_forgets_the_choice() -> None:
    def choose(number: int) -> None:
        for _ in range(200):
            if number:
                assert xb.default_device().kind in ("cpu", "cuda", "fake")
            else:
                xb.set_device(None)

    try:
        in_threads(choose)
    finally:
        xb.set_device(None)
