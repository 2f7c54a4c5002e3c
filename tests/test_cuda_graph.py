"""The order in which the CUDA recorder talks to CuPy, and what it does when CuPy refuses."""

import contextlib
import sys
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from xbackprop.backend.capture import CaptureError, captured_device, is_recording, open_recorder
from xbackprop.backend.cuda_graph import GraphRecorder
from xbackprop.backend.device import Device

CUDA = Device("cuda", 1)


class Cuda:
    """``cupy.cuda`` as far as a recorder uses it; its diary has every call."""

    def __init__(self) -> None:
        self.diary: list[str] = []
        self.broken = False
        self.current: list[Any] = []
        self.current.append(self.make_stream("outer"))

    def make_stream(self, name: str) -> Any:
        return Stream(self, name)

    def Stream(self, non_blocking: bool) -> Any:
        assert non_blocking
        return self.make_stream("own")

    def MemoryPool(self) -> Any:
        return types.SimpleNamespace(malloc="malloc of the pool")

    def get_current_stream(self) -> Any:
        return self.current[-1]

    @contextlib.contextmanager
    def Device(self, index: int) -> Iterator[None]:
        assert index == 1
        yield

    @contextlib.contextmanager
    def using_allocator(self, malloc: str) -> Iterator[None]:
        self.diary.append(f"allocate by the {malloc}")
        try:
            yield
        finally:
            self.diary.append("allocate as before")


class Stream:
    def __init__(self, cuda: Cuda, name: str) -> None:
        self.cuda, self.name = cuda, name

    def record(self) -> str:
        return self.name

    def wait_event(self, event: str) -> None:
        self.cuda.diary.append(f"{self.name} waits for {event}")

    def __enter__(self) -> None:
        self.cuda.current.append(self)

    def __exit__(self, *exception: object) -> None:
        self.cuda.current.pop()

    def begin_capture(self) -> None:
        self.cuda.diary.append("begin")

    def end_capture(self) -> Any:
        self.cuda.diary.append("end")
        if self.cuda.broken:
            raise RuntimeError("cudaErrorStreamCaptureInvalidated")
        return self

    def launch(self) -> None:
        self.cuda.diary.append(f"launch on {self.cuda.get_current_stream().name}")


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    made = Cuda()
    cupy = types.ModuleType("cupy")
    cupy.__dict__["cuda"] = made
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    return made


IN_ORDER = ["own waits for outer", "allocate by the malloc of the pool"]
BACK_IN_ORDER = ["allocate as before", "outer waits for own"]


def test_a_step_is_captured_on_a_stream_of_its_own(cuda: Cuda) -> None:
    recorder = open_recorder(CUDA)
    assert isinstance(recorder, GraphRecorder)
    seen: list[Any] = []

    def step() -> str:
        name = cuda.get_current_stream().name
        seen.append((name, is_recording(), captured_device()))
        cuda.diary.append("step")
        return "result"

    assert recorder.warm_up(step) == "result"
    assert recorder.capture(step, [np.ones(1)]) == "result"
    recorder.replay()
    recorder.replay()
    assert seen == [("own", True, None), ("own", True, CUDA)]
    assert cuda.diary == [
        *IN_ORDER, "step", *BACK_IN_ORDER,
        *IN_ORDER, "begin", "step", "end", *BACK_IN_ORDER,
        "launch on outer", "launch on outer",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (NotImplementedError("calling cuBLAS API during stream capture is currently unsupported"),
         "NotImplementedError: calling cuBLAS API"),
        (RuntimeError("the current stream is capturing"), "RuntimeError: the current stream is"),
        (CaptureError("said so"), "^said so$"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("broken", [False, True])
def test_what_cupy_refuses_ends_the_capture(
    error: Exception, told: str, broken: bool, cuda: Cuda
) -> None:
    recorder = open_recorder(CUDA)
    cuda.broken = broken

    def step() -> None:
        raise error

    with pytest.raises(CaptureError, match=told):
        recorder.capture(step, [])
    assert "end" in cuda.diary
    assert cuda.get_current_stream().name == "outer"
    assert (is_recording(), captured_device()) == (False, None)


def test_a_capture_that_broke_unseen_is_told(cuda: Cuda) -> None:
    cuda.broken = True
    with pytest.raises(CaptureError, match="RuntimeError: cudaErrorStreamCaptureInvalidated"):
        open_recorder(CUDA).capture(lambda: None, [])


def test_other_errors_stay_what_they_are(cuda: Cuda) -> None:
    with pytest.raises(ValueError, match="of the user"):
        open_recorder(CUDA).capture(lambda: (_ for _ in ()).throw(ValueError("of the user")), [])
    assert cuda.diary[-3:] == ["end", *BACK_IN_ORDER]
