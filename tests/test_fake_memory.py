"""The stand-in GPU's memory: what comes up and down, what it holds, on which device."""

import gc
import sys
import threading
from typing import Any

import numpy as np
import pytest

import xbackprop as xb
from xbackprop.backend import fake
from xbackprop.backend.fake import FakeArray, memory_of, set_memory_limit, xp

HOST = np.arange(6.0).reshape(2, 3)


def dev(values: Any, dtype: Any = None) -> FakeArray:
    return xp.asarray(np.array(values, dtype))


@pytest.fixture
def x() -> FakeArray:
    return dev(HOST)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "c8", "c16"])
def test_empty_is_full_of_nan(dtype: str) -> None:
    with xb.transfer_log() as log:
        arrays = [xp.empty((2, 3), dtype), xp.empty_like(dev([1.0], dtype), shape=4),
                  xp.empty_like(dev([1]), dtype), xp.empty(3, dtype, "F")]  # fmt: skip
    assert log.launches == log.downloads == 0
    for array in arrays:
        assert array.dtype == np.dtype(dtype)
        assert np.isnan(xb.to_host(array)).all()
    assert xb.to_host(xp.empty(2, "i4")).tolist() == [-(2**31)] * 2
    assert xb.to_host(xp.empty(2, bool)).tolist() == [True, True]


@pytest.mark.parametrize("value", ["text", [...], np.array(["a"]), np.datetime64("2020-01-01"),
                                   np.timedelta64(1), np.longdouble(1), np.clongdouble(1), None,
                                   np.zeros(2, [("a", int)]), np.zeros(2, "V4"), {1: 2}],
                         ids=repr)  # fmt: skip
def test_what_no_gpu_holds_is_refused(value: Any) -> None:
    with xb.transfer_log() as log:
        for call in (xp.asarray, xp.array, lambda v: xb.to_device(np.asarray(v), "fake")):
            with pytest.raises((TypeError, ValueError)):
                call(value)
    assert log.uploads == 0


@pytest.mark.parametrize("dtype", ["O", "U3", "S3", "M8[s]", "m8[s]", "g", "G", ">f4", "V4"])
def test_dtypes_no_gpu_holds_are_refused(dtype: str, x: FakeArray) -> None:
    for call in (lambda: x.astype(dtype), lambda: xp.zeros(3, dtype), lambda: xp.empty(3, dtype),
                 lambda: xp.full(3, 1, dtype), lambda: xp.asarray(x, dtype)):  # fmt: skip
        with pytest.raises((TypeError, ValueError)):
            call()


def test_bfloat16_is_taken_where_it_is_installed() -> None:
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    x = xp.asarray(np.array([1.5, 2.5], bfloat16))
    assert x.dtype == bfloat16
    assert float((x + x).astype(np.float32).sum()) == 8
    assert xb.to_device(np.ones(2, bfloat16), "fake").dtype == bfloat16
    stack = xp.asarray(np.ones((2, 2, 2), bfloat16))
    assert float(xp.matmul(stack[0], stack[1]).sum()) == 8
    for multiply in (lambda: xp.matmul(stack, stack), lambda: stack @ stack[0]):
        with pytest.raises(TypeError, match="bfloat16 arrays beyond two dimensions"):
            multiply()
    with pytest.raises((TypeError, ValueError)):
        xp.asarray(np.ones(2, pytest.importorskip("ml_dtypes").float8_e4m3fn))


def test_uploads_are_counted_and_copied() -> None:
    host = np.arange(3.0)
    with xb.transfer_log() as log:
        for call in (xp.asarray, xp.array, xp.asanyarray, xp.asarray_chkfinite, lambda h: xp.array(
            [h, h]), lambda h: xp.asarray(h.tolist()), lambda h: xp.asarray(1.5)):  # fmt: skip
            array = call(host)
            assert type(array) is FakeArray
    assert (log.uploads, log.bytes_uploaded) == (7, 24 * 6 + 24 + 8)
    device = xp.asarray(host)
    host[0] = 9
    device.set(np.full(3, 2.0))
    assert xb.to_host(device).tolist() == [2, 2, 2]
    assert host.tolist() == [9, 1, 2]
    big_endian = xp.asarray(np.array([1, 2], ">i4"))
    assert (big_endian.dtype, big_endian.dtype.isnative) == (np.int32, True)
    with xb.transfer_log() as log:
        assert xp.percentile(device, [25, 75]).shape == (2,)
        assert xp.repeat(device, [1, 0, 2]).shape == (3,)
    assert (log.uploads, log.bytes_uploaded) == (2, 16 + 24)


def test_device_arrays_are_joined_and_not_uploaded(x: FakeArray) -> None:
    with xb.transfer_log() as log:
        joined = xp.array([x[0], x[1]])
        scalars = xp.asarray([[x[0, 1], x[0, 2]]])
        assert xp.asarray(x) is x
        assert xp.array(x) is not x
    assert (log.uploads, log.launches) == (0, 3)
    np.testing.assert_array_equal(xb.to_host(joined), HOST)
    assert xb.to_host(scalars).tolist() == [[1, 2]]
    for mixture in ([x[0, 0], 1.0], [x[0], HOST[1]], [[0.0, x[0, 0]]], [x[0, 0], np.float32(1)]):
        with pytest.raises(TypeError, match="cannot be joined"):
            xp.array(mixture)
        with pytest.raises(TypeError):
            xb.asarray(mixture)
    with pytest.raises(ValueError, match="inhomogeneous"):
        xp.array([x, x[0]])


def test_get_and_set_and_asnumpy_fit_exactly(x: FakeArray) -> None:
    out = np.empty((2, 3))
    assert x.get(out=out) is out
    assert xp.asnumpy(x * 2, out=out) is out
    assert out.tolist() == (HOST * 2).tolist()
    assert x.get(order="F").flags.f_contiguous
    fresh = x.get()
    fresh[0, 0] = 9
    assert float(x[0, 0]) == 0
    assert xp.asnumpy([1, 2]).tolist() == [1, 2]
    for wrong, error in ((np.empty((2, 3), "f4"), TypeError), (np.empty(6), ValueError)):
        for call in (lambda w=wrong: x.get(out=w), lambda w=wrong: x.set(w)):
            with pytest.raises(error):
                call()
    with pytest.raises(TypeError):
        x.get(out=x)
    with pytest.raises(TypeError):
        x.set([1.0])
    with pytest.raises(RuntimeError, match="contiguous"):
        x[:, :2].set(np.ones((2, 2)))


def test_files(tmp_path: Any, x: FakeArray) -> None:
    with xb.transfer_log() as log:
        xp.save(tmp_path / "x.npy", x)
        xp.savez(tmp_path / "x.npz", x, b=x)
        xp.savetxt(tmp_path / "x.txt", x)
        with open(tmp_path / "x.bin", "wb") as file:
            x.tofile(file)
    assert (log.downloads, log.uploads) == (5, 0)
    with xb.transfer_log() as log:
        loaded = [xp.load(tmp_path / "x.npy"), xp.loadtxt(tmp_path / "x.txt"), xp.genfromtxt(
            tmp_path / "x.txt"), xp.fromfile(tmp_path / "x.bin").reshape(2, 3)]  # fmt: skip
    assert (log.downloads, log.uploads) == (0, 4)
    for array in loaded:
        np.testing.assert_array_equal(xb.to_host(array), HOST)
    with pytest.raises(NotImplementedError):
        xp.load(tmp_path / "x.npz")


def test_promotion_is_numpys() -> None:
    x = dev([1.0, 2.0], np.float32)
    results = [x * 2.0, x * 2, x + True, xp.where(x > 1, x, 0.0), xp.clip(x, 0.0, 1.5),
               x ** 0.5, 1 / x, xp.maximum(x, 0.0), xp.full_like(x, 2.0),
               x * np.float32(2)]  # fmt: skip
    assert {result.dtype.name for result in results} == {"float32"}
    strong = [x * np.float64(2), x + dev(1.0), np.float64(2) * x, xp.where(x > 1, x, dev(0.0)),
              x * dev([1, 2])]  # fmt: skip
    assert {result.dtype.name for result in strong} == {"float64"}
    with pytest.raises(OverflowError):
        dev([1], np.uint8) + 300
    with pytest.raises(TypeError):
        x += 1j
    integers = dev([1, 2])
    with pytest.raises(TypeError):
        integers += 0.5
    with pytest.raises(TypeError, match="complex"):
        xp.logical_not(dev([1j]))


def test_devices_do_not_mix_and_only_the_current_one_computes(x: FakeArray) -> None:
    other = xb.to_device(x, "fake:1")
    assert other.device == xb.Device("fake", 1)
    for call in (lambda: x + other, lambda: xp.concatenate([x, other]), lambda: x.dot(other.T),
                 lambda: x.__setitem__(0, other[0]), lambda: xp.where(x > 1, x, other),
                 lambda: xp.array([x, other])):  # fmt: skip
        with pytest.raises(ValueError, match=r"fake:0 and fake:1 met|fake:1"):
            call()
    for call in (lambda: other + 1, lambda: other.sum(), lambda: xp.exp(other), other.copy,
                 lambda: other.fill(1), lambda: xp.empty_like(other), lambda: other[dev([0])],
                 lambda: xp.zeros_like(other), lambda: other.T.reshape(6)):  # fmt: skip
        with pytest.raises((RuntimeError, ValueError), match="fake:"):
            call()
    assert other.T[0].shape == (2,)  # views and reading back work from anywhere
    assert float(other[1, 2]) == 5
    with xb.use_device("fake:1"):
        assert (other + 1).device == xp.ones(3).device == xb.Device("fake", 1)


def test_memory_returns_to_zero_and_views_share_it() -> None:
    gc.collect()
    book = memory_of(5)
    assert book.used == 0
    book.reset_peak()
    with xb.use_device("fake:5"):
        x = xp.zeros((256, 4))
        assert book.used == 8192
        views = [x.T, x[0], x.reshape(-1), x[::2][1:], x.view(np.int64)]
        x += 1
        x[0] = 2.0
        xp.exp(x, out=x)
        assert book.used == 8192
        total = x.sum()
        assert book.used == 8200
        del x
        assert book.used == 8200  # the views hold it
        del views
        assert book.used == 8
        del total
        doubled = [xp.ones(100) for _ in range(3)]
        del doubled
    assert book.used == 0
    assert book.peak == 8200
    book.reset_peak()
    assert book.peak == 0


def test_a_memory_limit_refuses_and_gives_back() -> None:
    with xb.use_device("fake:6"):
        set_memory_limit(1000, 6)
        try:
            first = xp.zeros(100)
            host, reaching_over = np.zeros(100), xb.to_device(np.zeros(100), "fake:1")
            for call, argument in ((xp.zeros, 100), (xp.ones, 100), (xp.empty, 100),
                                   (xb.asarray, host), (xb.to_device, host), (first.__add__, 1),
                                   (xb.to_device, reaching_over)):  # fmt: skip
                with pytest.raises(MemoryError, match=r"fake:6: \d+ bytes asked for, 800 of 1000"):
                    call(argument)
            assert memory_of(6).used == 800
            first += 1
            assert first[:50].sum().size == 1
            del call, argument, first
            assert xp.zeros(125).nbytes == 1000
        finally:
            set_memory_limit(None, 6)
        assert xp.zeros(1000).size == 1000
    assert memory_of(6).used == 0
    for wrong in ((-1, 0), (1, 8), (1, -1)):
        with pytest.raises(ValueError, match="expected"):
            set_memory_limit(*wrong)


def test_memory_is_exact_with_threads_and_garbage() -> None:
    book = memory_of(7)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def work() -> None:
        with xb.use_device("fake:7"):
            for _ in range(300):
                cycle: list[Any] = [xp.ones(10)]
                cycle.append(cycle)  # left to the garbage collector
                (cycle[0] + 1).sum()

    try:
        threads = [threading.Thread(target=work) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    gc.collect()
    assert book.used == 0


def test_threads_start_on_the_device_of_the_process() -> None:
    seen: list[int] = []
    with xb.use_device("fake:3"):
        thread = threading.Thread(target=lambda: seen.append(fake.current_index()))
        thread.start()
        thread.join()
        assert fake.current_index() == 3
    assert seen == [0]


def test_one_elementwise_operation_is_quick(x: FakeArray) -> None:
    from timeit import repeat

    seconds = min(repeat(lambda: x + x, number=1000, repeat=5)) / 1000
    assert seconds < 60e-6  # about 5e-6 on an idle machine
