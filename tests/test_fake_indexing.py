"""Indexing on the stand-in GPU: views, copies, and what CuPy wraps or leaves undefined."""

from typing import Any

import numpy as np
import pytest

import xbackprop as xb
from xbackprop.backend.fake import FakeArray, memory_of, xp

HOST = np.arange(6.0).reshape(2, 3)


def dev(values: Any, dtype: Any = None) -> FakeArray:
    return xp.asarray(np.array(values, dtype))


@pytest.fixture
def x() -> FakeArray:
    return dev(HOST)


def test_basic_indices_are_views_that_cost_nothing(x: FakeArray) -> None:
    used = memory_of(0).used
    with xb.transfer_log() as log:
        views = [x[0], x[0, 1], x[:, 1:], x[..., None], x[::-1], x[()], x[-1, -1], x.T,
                 x.reshape(6), x.ravel(), x[None], x.reshape(3, 2), x.view(np.int64),
                 x.swapaxes(0, 1), x.real,
                 xp.broadcast_to(x, (2, 2, 3)), xp.expand_dims(x, 0), x.squeeze(), x.transpose(),
                 *xp.split(x, 3, axis=1), xp.flip(x), xp.moveaxis(x, 0, 1), x.diagonal(), x.mT,
                 xp.asarray(x), x.astype(np.float64, copy=False),
                 xp.ascontiguousarray(x)]  # fmt: skip
    assert log.events == []
    assert memory_of(0).used == used
    x.fill(7)
    for view in views:
        if view.dtype == np.float64:
            assert float(view.max()) == 7


def test_writing_through_a_view_is_seen() -> None:
    x = dev(np.zeros((2, 3)))
    x[0][1] = 1
    x.T[2, 0] = 2
    x.reshape(6)[5] += 3
    x[1, ::2][0] = 4
    x[:, 1][1] -= 5
    np.testing.assert_array_equal(xb.to_host(x), [[0, 1, 2], [4, -5, 3]])


def test_a_reshape_that_copies_is_a_launch_and_memory(x: FakeArray) -> None:
    used = memory_of(0).used
    with xb.transfer_log() as log:
        copied = x.T.reshape(6)
    assert log.launches == 1
    assert memory_of(0).used == used + 48
    copied[0] = 9
    assert float(x[0, 0]) == 0


INDEX_KEYS = {
    "rows": np.array([1, 0, 1]), "negative": np.array([-1, 0]), "matrix": np.array([[0, 1]]),
    "mask": np.array([[True, False, True], [False, True, False]]),
    "row mask": np.array([True, False]),
    "pair": (np.array([0, 1]), np.array([2, 0])),
    "array and slice": (slice(None), np.array([2, 0])),
    "broadcast": (np.array([[0], [1]]), np.array([0, 2])), "array and int": (np.array([0, 1]), 1),
    "mask and int": (np.array([True, True]), 2), "none": (np.array([1]), None),
    "unsigned": np.array([1], np.uint8), "empty": np.zeros(0, int), "number": np.array(1),
    "number and slice": (np.array(1), slice(1, 3)), "int": 1, "numpy int": np.int64(-1),
    "ellipsis": (Ellipsis, 0), "steps": (slice(None, None, -1), slice(0, 3, 2)),
}  # fmt: skip


def key_on_device(key: Any) -> Any:
    if isinstance(key, tuple):
        return tuple(map(key_on_device, key))
    return dev(key) if isinstance(key, np.ndarray) else key


@pytest.mark.parametrize("name", INDEX_KEYS)
def test_reading_by_index_gives_numpys_result(name: str, x: FakeArray) -> None:
    key = INDEX_KEYS[name]
    result = x[key_on_device(key)]
    np.testing.assert_array_equal(xb.to_host(result), np.asarray(HOST[key]), strict=True)
    has_arrays = any(isinstance(k, np.ndarray) for k in (key if type(key) is tuple else (key,)))
    if has_arrays and result.size:  # a copy: NumPy's view for an index array without dimensions too
        result.fill(-1)
        assert float(x.min()) == 0


@pytest.mark.parametrize("name", [name for name in INDEX_KEYS if name != "rows"])
def test_writing_by_index_gives_numpys_result(name: str, x: FakeArray) -> None:
    key, host = INDEX_KEYS[name], HOST.copy()
    host[key] = -1
    x[key_on_device(key)] = -1
    np.testing.assert_array_equal(xb.to_host(x), host)
    values = host[key] * 0.5 + np.arange(np.size(host[key])).reshape(np.shape(host[key]))
    host[key] = values
    x[key_on_device(key)] = dev(values)
    host[key] += 2
    x[key_on_device(key)] += 2
    np.testing.assert_array_equal(xb.to_host(x), host)


ROWS = {
    "array": np.array([1, 1]), "negative alias": np.array([1, -1]), "pair": (
        np.array([0, 0]), np.array([2, 2])), "negative alias in a pair": (
        np.array([0, -2]), np.array([-1, 2])), "with a slice": (slice(None), np.array([0, 0])),
    "slice after": (np.array([1, -1]), slice(0, 2)), "broadcast": (
        np.array([[0], [0]]), np.array([1, 2])), "with an int": (0, np.array([1, 1])),
    "with an ellipsis": (Ellipsis, np.array([2, -1])), "matrix": np.array([[0, 1], [1, 0]]),
    "unsigned": np.array([1, 1], np.uint8),
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("value", [7.0, "array"])
def test_an_element_addressed_twice_is_refused(name: str, value: Any, x: FakeArray) -> None:
    key = key_on_device(ROWS[name])
    new = x[key] + 1 if value == "array" else value
    with pytest.raises(ValueError, match="same element twice"):
        x[key] = new
    with pytest.raises(ValueError, match="same element twice"):
        x[key] += 1
    np.testing.assert_array_equal(xb.to_host(x), HOST)


def test_put_refuses_duplicates_and_indices_out_of_range(x: FakeArray) -> None:
    for indices, mode in (([1, 1], None), ([0, -6], None), ([1, 7], "wrap"), ([5, 9], "clip")):
        for call in (x.put, lambda *rest, **options: xp.put(x, *rest, **options)):
            options = {} if mode is None else {"mode": mode}
            with pytest.raises(ValueError, match="same element twice"):
                call(dev(indices), 1.0, **options)
    for options in ({}, {"mode": "raise"}):
        with pytest.raises(IndexError):
            x.put(dev([6]), 1.0, **options)  # CuPy's default wraps it
    with pytest.raises(ValueError, match="same element twice"):
        xp.put_along_axis(x, dev([[1, 1]]), 1.0, 1)
    with pytest.raises(ValueError, match="wrap"):
        x.put(dev([1]), 1.0, mode="other")
    with pytest.raises(TypeError):
        x.put([1], 1.0)
    np.testing.assert_array_equal(xb.to_host(x), HOST)


@pytest.mark.parametrize("key", [6, -3, (0, 3), np.array([2]), np.array([-3]),
                                 (np.array([0]), np.array([3])), (slice(None), np.array([3]))],
                         ids=str)  # fmt: skip
def test_indices_out_of_range_are_refused(key: Any, x: FakeArray) -> None:
    device_key = key_on_device(key)
    with pytest.raises(IndexError):
        x[device_key]
    with pytest.raises(IndexError):
        x[device_key] = 1.0
    with pytest.raises(IndexError):
        xp.add.at(x, device_key, 1.0)
    with pytest.raises(IndexError):
        xp.take(x, dev([6]))


@pytest.mark.parametrize("key", [[0, 1], np.array([0]), (0, [1]), (slice(None), np.array([0, 1])),
                                 np.array([[True] * 3] * 2), [True, False], 1.0, "a", True,
                                 np.bool_(True), np.float64(1), (0, (1,)), range(2), 1j],
                         ids=str)  # fmt: skip
def test_host_arrays_and_lists_are_no_index(key: Any, x: FakeArray) -> None:
    for call in (lambda: x[key], lambda: x.__setitem__(key, 1.0), lambda: xp.add.at(x, key, 1.0)):
        with pytest.raises((TypeError, IndexError)):
            call()


def test_index_arrays_of_other_kinds_are_refused(x: FakeArray) -> None:
    for key in (
        dev([0.0]),
        dev([1j]),
        dev([True]),
        dev(np.ones((3, 2), bool)),
        (x[:, 0] > 1, x[0] < 9),
    ):
        with pytest.raises(IndexError):
            x[key]
        with pytest.raises(IndexError):
            x[key] = 1.0
    with pytest.raises(ValueError, match="fake:1"):
        x[xb.to_device(dev([0]), "fake:1")]


@pytest.mark.parametrize("value", [HOST, HOST[0], np.array(1.0), [1.0, 2.0, 3.0], (1.0,), None,
                                   "a", np.datetime64("2020-01-01"), np.longdouble(1)],
                         ids=repr)  # fmt: skip
@pytest.mark.parametrize("key", [..., 0, (0, 1), slice(None)], ids=repr)
def test_host_values_are_not_assigned(key: Any, value: Any, x: FakeArray) -> None:
    for target in (key, dev([0]), x > 1):
        with pytest.raises(TypeError):
            x[target] = value


def test_numbers_and_device_arrays_are_assigned(x: FakeArray) -> None:
    x[0] = np.float32(0.5)
    x[1, 0] = x[0, 1]
    x[1, 1:] = dev([[8.0, 9.0]])  # leading axes of one element are dropped
    x[0, 2] = True
    np.testing.assert_array_equal(xb.to_host(x), [[0.5, 0.5, 1], [0.5, 8, 9]])
    with pytest.raises(ValueError, match="broadcast"):
        x[0] = dev([1.0, 2.0])
    with pytest.raises(ValueError, match="read-only"):
        xp.broadcast_to(x, (2, 2, 3))[0, 0, 0] = 1


def test_the_last_step_of_an_indexed_update_costs_nothing(x: FakeArray) -> None:
    with xb.transfer_log() as log:
        x[0] += 1
    assert log.launches == 1
    with xb.transfer_log() as log:
        x[dev([0])] += 1
    assert log.launches == 3  # read, add, write


def test_scatter_adds_duplicates_and_takes_cupys_dtypes() -> None:
    x = dev([0.0, 0.0, 0.0])
    xp.add.at(x, dev([0, 0, -1]), dev([1.0, 2.0, 5.0]))
    xp.maximum.at(x, dev([1, 1]), 7.0)
    np.testing.assert_array_equal(xb.to_host(x), [3, 7, 5])
    for dtype in (np.int16, np.uint8, np.complex64, bool):
        with pytest.raises(TypeError, match="CuPy supports"):
            xp.add.at(dev([0, 0], dtype), dev([0]), dev([1], dtype))
    with pytest.raises(TypeError):
        xp.add.at(np.zeros(3), dev([0]), 1.0)
    with pytest.raises(TypeError):
        xp.add.at(x, dev([0]), np.ones(1))
    with pytest.raises(AttributeError, match="no method 'at'"):
        xp.divide.at(x, dev([0]), 1.0)
    with pytest.raises(AttributeError, match=r"xp\.add\.at"):
        x.scatter_add(dev([0]), 1.0)


def test_flat(x: FakeArray) -> None:
    x.flat[::4] = 9
    x.flat[1] = x[1, 2]
    np.testing.assert_array_equal(xb.to_host(x), [[9, 5, 2], [3, 9, 5]])
    np.testing.assert_array_equal(xb.to_host(x.T.flat[...]), [9, 3, 5, 9, 2, 5])
    assert len(x.flat) == 6
    with xb.transfer_log() as log:
        assert [type(value) for value in x.flat] == [FakeArray] * 6
    assert log.synchronizations == 1
    for key in (dev([0]), [0], True, (0, 1), 1.0):
        with pytest.raises(IndexError):
            x.flat[key]
    with pytest.raises(TypeError):
        x.flat[:] = np.ones(6)
