"""What the property tests share: few examples, the same in every run, and how to compare."""

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

import xbackprop as xb
from xbackprop.testing import TOLERANCES
from xbackprop.testing.structures import leaves

few = settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=6,
    # The device of a test is that of all its examples.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
seeds = st.integers(0, 2**32 - 1)
dtypes = st.sampled_from(["float32", "float64"])
on_cpu = pytest.mark.parametrize("xb_device", ["cpu"], indirect=True)
on_two = pytest.mark.parametrize("xb_device", ["cpu", "fake"], indirect=True)


def host(value: Any) -> np.ndarray:
    return np.asarray(xb.to_host(value))


def plain(value: Any) -> list[Any]:
    """The arrays of nested results, on the host; None where there is none."""
    return [None if leaf is None else host(leaf) for _, leaf in leaves(value, "")]


def close_all(received: Any, expected: Any, dtype: str = "float64") -> None:
    for one, other in zip(plain(received), plain(expected), strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            close(one, other, dtype)


def close(received: Any, expected: Any, dtype: str = "float64", what: str = "") -> None:
    received, expected = host(received), host(expected)
    assert received.shape == expected.shape, what
    finite = np.abs(expected[np.isfinite(expected)])
    tolerance = 10 * TOLERANCES[dtype].reordered * max(1.0, float(finite.max(initial=0.0)))
    np.testing.assert_allclose(received, expected, rtol=0, atol=tolerance, err_msg=what)
