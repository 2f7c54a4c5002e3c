"""Batches through two pinned buffers: the numbers, the counts, and every wait that they need."""

import contextlib
import gc
import sys
import threading
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import xbackprop as xb
from xbackprop.backend import staging
from xbackprop.backend.device import Device
from xbackprop.backend.fake import memory_of, set_memory_limit
from xbackprop.backend.fake.staging import FakeCopyStream
from xbackprop.backend.staging import stream_to_device

FAKE = Device("fake", 3)


def host_batches(count: int, sizes: tuple[int, ...] = (7, 3)) -> list[list[np.ndarray]]:
    rng = np.random.default_rng(0)
    lengths = (sizes * count)[:count]
    return [[rng.normal(size=n).astype("f4"), rng.integers(0, 9, n)] for n in lengths]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 9])
def test_what_arrives_is_what_was_sent(count: int, xb_device: Device) -> None:
    sent = host_batches(count)
    with xb.transfer_log() as log:
        kept = list(stream_to_device(iter(sent), xb_device))
    for arrays, expected in zip(kept, sent, strict=True):
        for array, host in zip(arrays, expected, strict=True):
            assert array.dtype == host.dtype
            assert xb.device_of(array) == xb_device
            assert xb.to_host(array).tobytes() == host.tobytes()
    on_device = xb_device.kind != "cpu"
    assert log.uploads == 2 * count * on_device
    assert log.bytes_uploaded == sum(a.nbytes for batch in sent for a in batch) * on_device
    assert log.synchronizations == log.launches == 0


def test_odd_shapes_and_dtypes() -> None:
    odd = [np.float64(2.5), np.zeros((0, 3), "f2"), np.array([True, False]),
           np.arange(3, dtype=">i4"), np.ones((3, 4), "c8")[::2].T]  # fmt: skip
    batches = [[np.asarray(value) for value in odd]] * 3
    for arrays in stream_to_device(batches, "fake"):
        for array, host in zip(arrays, batches[0], strict=True):
            assert array.dtype == host.dtype.newbyteorder("=")
            np.testing.assert_array_equal(xb.to_host(array), host)
    with pytest.raises(TypeError, match="expected numbers"):
        list(stream_to_device([[np.array(["text"])]], "fake"))


def test_uploads_are_booked_when_they_are_handed_out() -> None:
    x = np.zeros((6, 2), "f4")
    with xb.use_device("fake"):
        loop = iter(xb.data.batches(x, None, 2))
        for number in range(1, 4):
            with xb.transfer_guard(uploads=1) as log:
                next(loop)
            assert (log.uploads, log.bytes_uploaded) == (1, 16), number
            assert log.events[0].filename.endswith("batches.py")


def test_one_batch_is_read_ahead_and_no_more() -> None:
    read = []

    def source() -> Iterator[list[np.ndarray]]:
        for number in range(4):
            read.append(number)
            yield [np.zeros(2)]

    for handed_out, _ in enumerate(stream_to_device(source(), "fake"), start=1):
        assert len(read) == min(handed_out + 1, 4)
    read.clear()
    for handed_out, _ in enumerate(stream_to_device(source(), "cpu"), start=1):
        assert len(read) == handed_out


def test_the_device_may_change_in_the_loop() -> None:
    places = ["fake", "cpu", "fake:1", "fake:1", "cpu"]
    loop = stream_to_device(host_batches(len(places)))
    for place, expected in zip(places, host_batches(len(places)), strict=True):
        with xb.use_device(place) as device:
            x, _ = next(loop)
            assert xb.device_of(x) == device
            assert xb.to_host(x).tobytes() == expected[0].tobytes()


def test_without_room_for_the_batch_ahead_it_is_moved_in_its_turn() -> None:
    sent = [[np.full(100, float(number))] for number in range(5)]
    gc.collect()
    set_memory_limit(memory_of(3).used + 900, 3)
    try:
        seen = []
        for arrays in stream_to_device(sent, FAKE):
            seen.append(float(arrays[0][0]))
            del arrays
        assert seen == [0.0, 1.0, 2.0, 3.0, 4.0]
        with pytest.raises(MemoryError):
            list(stream_to_device(sent, FAKE))  # keeps them all
    finally:
        set_memory_limit(None, 3)
    gc.collect()
    assert list(stream_to_device(sent, FAKE))


def test_memory_returns() -> None:
    gc.collect()
    before = memory_of(3).used
    loop = stream_to_device(host_batches(5), FAKE)
    next(loop)
    loop.close()
    assert memory_of(3).used == before
    assert not staging.copy_stream(FAKE)._pending  # nothing is copied out of memory that is gone


def test_threads_share_the_stream_and_not_the_buffers() -> None:
    sums: dict[int, float] = {}

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        sent = [[rng.normal(size=50)] for _ in range(40)]
        with xb.use_device(FAKE):
            got = sum(float(x.sum()) for (x,) in stream_to_device(sent))
        sums[seed] = got - sum(float(x.sum()) for (x,) in sent)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sums == dict.fromkeys(range(4), 0.0)


# --- the stand-in shows waits that are missing ---------------------------------------------


def test_an_array_is_nan_until_its_copy_was_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeCopyStream, "hold_computation", lambda self, mark: None)
    loop = stream_to_device([[np.ones(3)]] * 2, "fake:4")
    (x,) = next(loop)
    assert np.isnan(xb.to_host(x)).all()


def test_a_buffer_is_not_written_while_it_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "_streams", {})
    monkeypatch.setattr(staging._Buffer, "wait", lambda self: None)
    monkeypatch.setattr(FakeCopyStream, "hold_computation", lambda self, mark: None)
    with pytest.raises(ValueError, match="read-only"):
        list(stream_to_device([[np.ones(3)]] * 3, "fake:4"))


# --- the calls that CuPy gets --------------------------------------------------------------


class Event:
    def __init__(self, journal: list[str], *, disable_timing: bool) -> None:
        assert disable_timing
        self.journal = journal

    def record(self, stream: "Stream") -> None:
        self.name = f"{stream.name}#{sum('record' in line for line in self.journal)}"
        self.journal.append(f"record {self.name}")

    def synchronize(self) -> None:
        self.journal.append(f"host waits for {self.name}")


class Stream:
    def __init__(self, journal: list[str], name: str) -> None:
        self.journal, self.name = journal, name

    def wait_event(self, event: Event) -> None:
        self.journal.append(f"{self.name} waits for {event.name}")

    def __enter__(self) -> None:
        self.journal.append(f"allocate on {self.name}")

    def __exit__(self, *exception: object) -> None:
        pass


class ndarray:
    def __init__(self, shape: Any, dtype: Any, journal: list[str]) -> None:
        self.values, self.journal = np.empty(shape, dtype), journal
        self.nbytes = self.values.nbytes

    def set(self, host: np.ndarray, stream: Stream) -> None:
        assert host.flags.c_contiguous
        self.values[...] = host
        self.journal.append(f"copy on {stream.name}")


def test_what_cupy_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    journal: list[str] = []
    current = Stream(journal, "compute")
    cupy: Any = types.ModuleType("cupy")
    cupy.empty = lambda shape, dtype: ndarray(shape, dtype, journal)
    cupy.cuda = types.SimpleNamespace(
        Device=lambda index: contextlib.nullcontext(),
        Stream=lambda non_blocking: Stream(journal, "copies") if non_blocking else None,
        Event=lambda disable_timing: Event(journal, disable_timing=disable_timing),
        get_current_stream=lambda: current,
        alloc_pinned_memory=bytearray,
    )
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr("xbackprop.backend.device.use", lambda kind: None)
    monkeypatch.setattr(staging, "_streams", {})
    sent = [[np.full(2, float(number))] for number in range(3)]
    with xb.transfer_log() as log:
        for number, (x,) in enumerate(stream_to_device(sent, Device("cuda", 0))):
            assert x.values.tolist() == [number, number]
            journal.append(f"compute {number}")
    begin = ["allocate on copies", "copy on copies"]
    assert journal == [
        "record compute#0", "copies waits for compute#0", *begin, "record copies#1",
        "record compute#2", "copies waits for compute#2", *begin, "record copies#3",
        "compute waits for copies#1", "compute 0",
        "host waits for copies#1",  # the first buffer is written again
        "record compute#4", "copies waits for compute#4", *begin, "record copies#5",
        "compute waits for copies#3", "compute 1",
        "compute waits for copies#5", "compute 2",
        "host waits for copies#5", "host waits for copies#3",
    ]  # fmt: skip
    assert log.uploads == 3
