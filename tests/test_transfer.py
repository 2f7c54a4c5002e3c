"""The way up and the way down: dtypes, layouts, peers, logs and guards."""

import inspect
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import xbackprop as xb
from xbackprop.backend.array_module import is_array, is_device_array
from xbackprop.backend.device import Device, synchronize
from xbackprop.backend.fake import FakeArray
from xbackprop.backend.transfer import launches_booked_by
from xbackprop.dispatch import op

FAKE, OTHER = Device("fake", 0), Device("fake", 1)

LAYOUTS = {
    "contiguous": np.arange(6.0).reshape(2, 3), "Fortran": np.asfortranarray(np.ones((2, 3))),
    "transposed": np.arange(6.0).reshape(2, 3).T, "strided": np.arange(12.0)[::-2],
    "broadcast": np.broadcast_to(np.float32(3), (2, 2)), "0-d": np.array(2.5),
    "empty": np.zeros((0, 3), np.float32), "big-endian": np.array([1, 2], ">i4"),
    "big-endian float": np.array([1.5], ">f8"), "bool": np.array([True]), "bytes": np.array(
        [200], np.uint8), "complex": np.array([1j], np.complex64), "half": np.array([1], "f2"),
}  # fmt: skip
for _array in LAYOUTS.values():
    _array.flags.writeable = False


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("device", ["fake", "fake:1", FAKE, OTHER])
def test_up_and_down_keeps_numbers_shape_and_dtype(name: str, device: Any) -> None:
    host = LAYOUTS[name]
    with xb.transfer_log() as log:
        up = xb.to_device(host, device)
        down = xb.to_host(up)
    assert (type(up), up.shape, up.dtype) == (FakeArray, host.shape, host.dtype.newbyteorder("="))
    assert str(up.device).startswith(str(device))
    np.testing.assert_array_equal(down, host)
    assert down.dtype.isnative
    assert down.flags.writeable
    assert (log.uploads, log.bytes_uploaded) == (1, host.nbytes)
    assert (log.downloads, log.bytes_downloaded, log.synchronizations) == (1, host.nbytes, 1)


def test_what_is_there_already_stays_as_it_is() -> None:
    host = np.ones(3)
    up = xb.to_device(host, "fake")
    with xb.transfer_log() as log:
        assert xb.to_device(up, "fake:0") is up
        assert xb.to_device(host, "cpu") is host
        assert xb.to_host(host) is host
        assert xb.asarray(up) is up
        assert xb.asarray(up, device="fake") is up
        assert xb.asarray(host, dtype=host.dtype, device="cpu") is host
    assert log.events == []
    assert xb.to_device(up, "cpu").tolist() == [1, 1, 1]
    assert xb.to_device(np.float32(2), "cpu").shape == ()
    assert float(xb.to_device(np.float32(2), "fake")) == 2


def test_uploads_and_downloads_are_copies() -> None:
    host = np.ones(3)
    up = xb.to_device(host, "fake")
    host[:] = 5
    down = xb.to_host(up)
    down[:] = 7
    assert xb.to_host(up).tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("value", "error"),
    [([1.0], TypeError), (1.0, TypeError), (None, TypeError), ("a", TypeError),
     (np.array(["a"]), TypeError), (np.array([None]), TypeError), (np.zeros(1, "M8[s]"), TypeError),
     (np.zeros(1, [("a", int)]), TypeError), (np.zeros(1, "V4"), TypeError),
     (np.zeros(1, np.longdouble), TypeError)],
)  # fmt: skip
def test_what_cannot_move_is_refused_before_it_is_counted(value: Any, error: Any) -> None:
    with xb.transfer_log() as log, pytest.raises(error, match=r"expected numbers|asarray|astype"):
        xb.to_device(value, "fake")
    assert log.events == []


@pytest.mark.parametrize("device", ["cpu", "fake", "fake:1"])
def test_asarray_casts_host_floats_to_float32(device: str) -> None:
    values: list[tuple[Any, Any, str]] = [
        ([1.5], None, "float32"), (1.5, None, "float32"), ([1, 2], None, "int64"),
        ([True], None, "bool"), (np.ones(2), None, "float32"), (np.ones(2, "f2"), None, "float16"),
        (np.ones(2, ">f8"), None, "float32"), (np.ones(2, np.longdouble), None, "float32"),
        (np.float64(1), None, "float32"), ([1.5], np.float64, "float64"), ([1], "f2", "float16"),
        (np.array([1], ">i2"), None, "int16"), ([], None, "float32"), (range(3), None, "int64"),
        ([[1, 2.5]], None, "float32"), (np.float32(1), np.int8, "int8"),
    ]  # fmt: skip
    for value, dtype, expected in values:
        array = xb.asarray(value, dtype, device)
        assert (array.dtype.name, array.dtype.isnative) == (expected, True), value
        assert str(xb.Device(array.device.kind, array.device.index) if device != "cpu" else
                   "cpu").startswith(device)  # fmt: skip
        np.testing.assert_array_equal(xb.to_host(array), np.asarray(value).astype(expected))


@pytest.mark.parametrize("device", ["cpu", "fake"])
@pytest.mark.parametrize("value", ["a", [None], [object()], [[1], [1, 2]], {1: 2}, b"x", [1, "a"]])
def test_asarray_refuses_what_is_no_number(device: str, value: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        xb.asarray(value, device=device)


def test_asarray_of_device_arrays() -> None:
    with xb.use_device("fake:1"):
        up = xb.asarray(np.arange(3.0), np.float64)
    with xb.transfer_log() as log:
        assert xb.asarray(up) is up  # where it is, not the default device
        assert xb.asarray(up, np.float32).dtype == np.float32
        assert xb.asarray(up, copy=True) is not up
        moved = xb.asarray(up, device="fake:0")
        assert (moved.device, moved.dtype) == (FAKE, np.float64)
        assert type(xb.asarray(up, device="cpu")) is np.ndarray
    assert (log.uploads, log.downloads) == (0, 1)
    assert [event.kind for event in log.events].count("peer_copy") == 1
    with pytest.raises(TypeError):
        xb.asarray([up, up])  # each would be read back; xp.stack joins on the device
    copied = xb.asarray(up, copy=True)
    with xb.use_device("fake:1"):
        copied += 1
    assert xb.to_host(up).tolist() == [0, 1, 2]


def test_asarray_copies_host_arrays_only_when_asked() -> None:
    host = np.ones(3, np.float32)
    assert xb.asarray(host, device="cpu") is host or np.shares_memory(xb.asarray(host), host)
    copied = xb.asarray(host, device="cpu", copy=True)
    copied[0] = 5
    assert host[0] == 1


class OnlyDLPack:
    """An array of another library that knows DLPack and not NumPy."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self.array.__dlpack_device__()


class OnlyArray:
    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return np.arange(3.0)


@pytest.mark.parametrize("value", [OnlyDLPack(np.arange(3.0)), OnlyArray()])
@pytest.mark.parametrize("device", ["cpu", "fake"])
def test_arrays_of_other_libraries_are_taken(value: Any, device: str) -> None:
    array = xb.asarray(value, device=device)
    assert array.dtype == np.float32
    assert xb.to_host(array).tolist() == [0, 1, 2]


def test_torch_tensors_are_taken() -> None:
    torch = pytest.importorskip("torch")
    array = xb.asarray(torch.arange(3.0), device="fake")
    assert xb.to_host(array).tolist() == [0, 1, 2]


def test_array_module_and_kind_of_array() -> None:
    up, host = xb.asarray([1.0], device="fake"), np.ones(1)
    xp = xb.get_array_module(up)
    assert xp is xb.get_array_module(host, up) is FAKE.xp
    assert xb.get_array_module(host) is xb.get_array_module([1]) is xb.get_array_module() is np
    assert [is_array(v) for v in (up, host, np.float32(1), [1.0], None)] == [1, 1, 0, 0, 0]
    assert [is_device_array(v) for v in (up, host, 1)] == [True, False, False]
    assert is_array(np.ma.masked_array([1]))
    assert (xb.device_of(up), str(xb.device_of(host)), str(xb.device_of(1))) == (FAKE, "cpu", "cpu")


# --- Peers.


def test_peers_copy_without_the_host() -> None:
    up = xb.to_device(np.arange(3.0), "fake:0")
    with xb.transfer_log() as log:
        other = xb.to_device(up, "fake:1")
    assert (log.uploads, log.downloads, log.synchronizations, log.launches) == (0, 0, 0, 0)
    event = log.events[0]
    assert (event.kind, event.size_bytes, event.device) == ("peer_copy", 24, "fake:1")
    with xb.use_device("fake:1"):
        other += 1
    assert xb.to_host(up).tolist() == [0, 1, 2]
    assert (other.device, up.device) == (OTHER, FAKE)


def test_a_gpu_does_not_copy_from_the_stand_in() -> None:
    up = xb.to_device(np.ones(1), "fake")
    with pytest.raises(TypeError, match=r"fake:0 to cuda:0 .*to_host"):
        xb.to_device(up, Device("cuda", 0))


# --- Logs.


def line_here() -> int:
    frame = inspect.currentframe()
    assert frame is not None
    assert frame.f_back is not None
    return frame.f_back.f_lineno


def work() -> None:
    up = xb.asarray([1.0, 2.0], device="fake")
    float((up + up).sum())


def test_logs_nest_and_end() -> None:
    with xb.transfer_log() as outer:
        work()
        with xb.transfer_log() as inner:
            work()
            work()
    work()
    assert [(log.uploads, log.downloads, log.launches, log.synchronizations) for log in (
        outer, inner)] == [(3, 3, 6, 3), (2, 2, 4, 2)]  # fmt: skip
    assert (outer.bytes_uploaded, outer.bytes_downloaded) == (24, 12)
    assert outer.events[-len(inner.events) :] == inner.events


def test_events_name_the_line_that_caused_them() -> None:
    x = xb.asarray([[1.0, 2.0]], device="fake")
    xp = xb.get_array_module(x)
    calls: list[tuple[str, Callable[[], Any]]] = [
        ("upload", lambda: xb.asarray([1.0], device="fake")),
        ("upload", lambda: xb.to_device(np.ones(2), "fake")),
        ("upload", lambda: xp.asarray([1.0])),
        ("upload", lambda: x.set(np.ones((1, 2), np.float32))),
        ("download", lambda: xb.to_host(x)),
        ("download", lambda: float(x[0, 0])),
        ("download", lambda: x.get()),
        ("download", lambda: f"{x}"),
        ("download", lambda: 1.0 in x),
        ("synchronization", lambda: x[x > 0]),
        ("synchronization", lambda: synchronize("fake")),
        ("synchronization", lambda: list(x)),
        ("launch", lambda: x + 1),
        ("launch", lambda: xp.sum(x)),
        ("launch", lambda: x.sum()),
        ("launch", lambda: x.__setitem__(0, 1.0)),
        ("launch", lambda: xp.add.at(x, 0, 1.0)),
        ("launch", lambda: xp.linalg.norm(x)),
        ("peer_copy", lambda: xb.to_device(x, "fake:1")),
    ]
    for kind, call in calls:
        with xb.transfer_log() as log:
            call()
        found = [event for event in log.events if event.kind == kind]
        assert found, kind
        for event in log.events:
            assert (event.filename, event.line) == (__file__, call.__code__.co_firstlineno)
        assert str(found[0]).startswith(f"{__file__}:{found[0].line}: {kind}")
        assert event.device in ("fake:0", "fake:1")


def test_a_declared_launch_names_the_line_that_called_the_op() -> None:
    @op
    def twice(x: Any) -> Any:
        return x + x

    @twice.kernel("cuda", launches=3)
    def twice_kernel(x: Any) -> Any:
        raise AssertionError("the stand-in runs the reference")

    x = xb.asarray([1.0], device="fake")
    with xb.transfer_log() as log:
        twice(x); expected_line = line_here()  # fmt: skip  # noqa: E702
    assert log.launches == 3
    assert [(event.filename, event.line) for event in log.events] == [(__file__, expected_line)]
    with xb.transfer_log() as log, launches_booked_by("kernel", FAKE, 5):
        x + x
        with launches_booked_by("inner", FAKE, 7):
            x + x
    assert log.launches == 5
    assert log.events[0].filename == __file__


def test_arrays_on_the_cpu_count_nothing() -> None:
    with xb.transfer_log() as log:
        x = xb.asarray([1.0], device="cpu")
        float((x + x).sum())
        xb.to_host(x)
        xb.to_device(x, "cpu")
        synchronize("cpu")
    assert log.events == []


def test_a_log_sees_its_own_thread_only() -> None:
    with xb.transfer_log() as log:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert log.events == []


def test_a_log_ends_with_an_error() -> None:
    with pytest.raises(ZeroDivisionError), xb.transfer_log() as log:
        raise ZeroDivisionError
    work()
    assert log.events == []


# --- Guards.


def lines_of(error: pytest.ExceptionInfo[BaseException]) -> list[int]:
    return [entry.lineno + 1 for entry in error.traceback if str(entry.path) == __file__]


@pytest.mark.parametrize(
    ("options", "call"),
    [
        ({"uploads": 0}, lambda x: xb.asarray([1.0], device="fake")),
        ({"downloads": 0}, lambda x: float(x[0])),
        ({"synchronizations": 0}, lambda x: x[x > 0]),
        ({"downloads": 0}, lambda x: print(x)),
        ({}, lambda x: x.tolist()),
        ({}, lambda x: xb.to_device(np.ones(1), "fake")),
        ({}, lambda x: x.nonzero()),
    ],
)
def test_a_guard_raises_at_the_line_that_crosses(options: dict[str, int], call: Any) -> None:
    x = xb.asarray([1.0, 2.0], device="fake")
    with xb.transfer_guard(**options):
        x += 1
        with pytest.raises(xb.TransferError) as caught:
            call(x)
    assert lines_of(caught)[-1] == call.__code__.co_firstlineno
    assert f"{__file__}:{call.__code__.co_firstlineno}: " in str(caught.value)
    assert "allowed here: no " in str(caught.value)


def test_a_guard_counts_up_to_its_budget() -> None:
    with xb.transfer_guard(uploads=2, downloads=1) as log:
        x = xb.asarray([1.0], device="fake")
        y = xb.asarray([1.0], device="fake")
        float((x + y)[0])  # synchronisations are free where no budget names them
    assert (log.uploads, log.downloads, log.synchronizations) == (2, 1, 1)
    with xb.transfer_guard(uploads=1):
        xb.asarray([1.0], device="fake")
        with pytest.raises(xb.TransferError, match="allowed here: 1 upload"):
            xb.asarray([1.0], device="fake")


def test_a_refused_upload_puts_nothing_on_the_device() -> None:
    from xbackprop.backend.fake import memory_of

    used = memory_of(0).used
    with pytest.raises(xb.TransferError), xb.transfer_guard():
        xb.asarray(np.ones(1000), device="fake")
    assert memory_of(0).used == used


def test_guards_and_logs_nest() -> None:
    with (
        xb.transfer_log() as log,
        pytest.raises(xb.TransferError),
        xb.transfer_guard(downloads=0),
        xb.transfer_log() as inner,
    ):
        work()
    assert log.downloads == inner.downloads == 1  # all logs hold what the guard refused
    with (
        pytest.raises(xb.TransferError),
        xb.transfer_guard(downloads=0),
        xb.transfer_guard(downloads=5),
    ):
        work()
    work()  # over, and nothing is guarded any more


@pytest.mark.parametrize("kind", ["launches", "level", "peer_copies"])
def test_guards_refuse_other_limits(kind: str) -> None:
    with pytest.raises(TypeError, match=kind):
        xb.transfer_guard(**{kind: 1})
