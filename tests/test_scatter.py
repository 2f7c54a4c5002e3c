"""Rows that share an index: their sum, number and maximum, on every device and in every order."""

import math
from typing import Any

import numpy as np
import pytest

import xbackprop as xb
from xbackprop.backend.device import Device
from xbackprop.ops.scatter import count_by_index, max_by_index, sum_by_index

# rows, indices from -1 to length, length, width
SIZES = [
    (0, 4, 2), (1, 1, 1), (2, 1, 3), (7, 3, 2), (8, 1, 2), (9, 1, 2), (64, 1, 3), (65, 2, 3),
    (1000, 5, 3), (1000, 96, 4), (300, 2000, 3), (5, 3, 0), (4, 0, 2),
]  # fmt: skip
every_size = pytest.mark.parametrize("size", SIZES, ids=str)


def draw(size: tuple[int, int, int], dtype: Any = np.float32) -> tuple[np.ndarray, np.ndarray]:
    rows, length, width = size
    rng = np.random.default_rng(size)
    return rng.normal(size=(rows, width)).astype(dtype), rng.integers(-1, length + 1, size=rows)


def in_a_loop(rows: np.ndarray, indices: np.ndarray, length: int) -> list[np.ndarray]:
    return [rows[indices == index] for index in range(length)]


@every_size
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sum(size: Any, dtype: Any, xb_device: Device) -> None:
    rows, indices = draw(size, dtype)
    before = rows.copy(), indices.copy()
    here, there = xb.to_device(rows), xb.to_device(indices)
    with xb.transfer_log() as log:
        totals = sum_by_index(here, there, size[1])
    assert (log.uploads, log.downloads, log.synchronizations) == (0, 0, 0)
    assert totals.dtype == dtype
    expected = np.zeros((size[1], size[2]))
    for index, part in enumerate(in_a_loop(rows, indices, size[1])):
        expected[index] = [math.fsum(column) for column in part.T]
    np.testing.assert_allclose(
        xb.to_host(totals), expected, rtol=0, atol=64 * np.finfo(dtype).eps, strict=False
    )
    np.testing.assert_array_equal(rows, before[0])
    np.testing.assert_array_equal(indices, before[1])


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 31, 32, 33, 64])
def test_all_rows_of_one_index(count: int, xb_device: Device) -> None:
    rows = np.arange(1, count + 1, dtype=np.float32)[:, None]
    here, there = xb.to_device(rows), xb.to_device(np.zeros(count, np.int64))
    assert xb.to_host(sum_by_index(here, there, 1)).tolist() == [[count * (count + 1) / 2]]
    for sign, place in ((1, count - 1), (-1, 0)):
        values, positions = max_by_index(sign * here, there, 1)
        assert xb.to_host(values).tolist() == [[rows[place, 0] * sign]]
        assert xb.to_host(positions).tolist() == [[place]]


@every_size
def test_kernel_gives_the_bits_of_the_reference(size: Any, xb_device: Device) -> None:
    rows, indices = draw(size)
    rows[::3] = -0.0  # whose sum with 0.0 is another zero
    with xb.use_device("cpu"):
        expected = sum_by_index.reference(rows, indices, size[1])
    received = sum_by_index(xb.to_device(rows), xb.to_device(indices), size[1])
    assert xb.to_host(received).tobytes() == expected.tobytes()
    assert received.shape == expected.shape


def test_cpu_has_a_kernel() -> None:
    sum_by_index(np.ones((2, 1)), np.array([0, 0]), 1)
    (entry,) = sum_by_index.kernels["cpu"]
    assert entry.function.__module__ == "xbackprop.kernels.cpu.ops.scatter"


def test_sums_of_many_are_more_accurate_than_one_after_the_other(xb_device: Device) -> None:
    rng = np.random.default_rng(0)
    rows, indices = rng.random((50_000, 4), np.float32), rng.integers(0, 3, size=50_000)
    exact = [part.astype(np.float64).sum(axis=0) for part in in_a_loop(rows, indices, 3)]
    in_turn = np.zeros((3, 4), np.float32)
    np.add.at(in_turn, indices, rows)
    received = xb.to_host(sum_by_index(xb.to_device(rows), xb.to_device(indices), 3))
    error = abs(received - exact).max() / np.max(exact)
    assert error < abs(in_turn - exact).max() / np.max(exact)
    assert error < 2e-7  # half a unit in float32's last place is 6e-8


def test_no_index_gets_what_belongs_to_another(xb_device: Device) -> None:
    """The difference of cumulative sums would be NaN from the first NaN on, and lose the 1."""
    rows = np.array([[1.0], [np.nan], [3e38], [3e38], [1.0], [1e8], [1.0]], np.float32)
    indices = np.array([0, 1, 2, 2, 3, 4, 5])
    with np.errstate(over="ignore"):
        totals = sum_by_index(xb.to_device(rows), xb.to_device(indices), 6)
    expected = np.array([1, np.nan, np.inf, 1, 1e8, 1], np.float32)
    np.testing.assert_array_equal(xb.to_host(totals)[:, 0], expected)


@every_size
def test_count(size: Any, xb_device: Device) -> None:
    _, indices = draw(size)
    with xb.transfer_log() as log:
        counts = count_by_index(xb.to_device(indices), size[1])
    assert (log.downloads, log.synchronizations) == (0, 0)
    expected = [int((indices == index).sum()) for index in range(size[1])]
    assert xb.to_host(counts).tolist() == expected


@every_size
def test_maximum_and_its_first_row(size: Any, xb_device: Device) -> None:
    rows, indices = draw(size)
    rows = np.round(rows)  # with many that are equally great
    here, there = xb.to_device(rows), xb.to_device(indices)
    with xb.transfer_log() as log:
        values, positions = max_by_index(here, there, size[1])
    assert (log.uploads, log.downloads, log.synchronizations) == (0, 0, 0)
    values, positions = xb.to_host(values), xb.to_host(positions)
    assert (values.dtype, positions.dtype) == (np.float32, np.int64)
    assert values.shape == positions.shape == (size[1], size[2])
    for index, part in enumerate(in_a_loop(rows, indices, size[1])):
        if len(part):
            np.testing.assert_array_equal(values[index], part.max(axis=0))
            first = np.flatnonzero(indices == index)[part.argmax(axis=0)]
            np.testing.assert_array_equal(positions[index], first)
        else:
            assert not values[index].any()
            assert (positions[index] == -1).all()


def test_nan_is_the_greatest(xb_device: Device) -> None:
    rows = np.array([1, np.nan, 2, np.nan, -np.inf, -np.inf], np.float32)[:, None]
    indices = np.array([0, 0, 0, 0, 1, 1])
    values, positions = max_by_index(xb.to_device(rows), xb.to_device(indices), 2)
    np.testing.assert_array_equal(xb.to_host(values)[:, 0], [np.nan, -np.inf])
    assert xb.to_host(positions)[:, 0].tolist() == [1, 4]
