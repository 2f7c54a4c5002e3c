"""Clipping keeps gradients within bounds, on the device where they are."""

from typing import Any

import numpy as np
import pytest

import xbackprop as xb
from xbackprop.backend.device import Device
from xbackprop.testing import TOLERANCES

both_dtypes = pytest.mark.parametrize("dtype", ["float64", "float32"])


def parameter(values: Any, dtype: Any = np.float64) -> xb.Parameter:
    return xb.Parameter(xb.asarray(values, dtype=dtype))


NORMS = [1.0, 2.0, 3.0, float("inf")]


def clipped(grads: list[np.ndarray], max_norm: float, norm_type: float) -> list[np.ndarray]:
    everything = np.concatenate([grad.ravel() for grad in grads])
    norm = np.linalg.norm(everything, norm_type)
    return [grad * min(1.0, max_norm / (norm + 1e-6)) for grad in grads]


@both_dtypes
@pytest.mark.parametrize("max_norm", [0.0, 0.7, 1e3])
@pytest.mark.parametrize("norm_type", NORMS)
def test_clip_grad_norm(norm_type: float, max_norm: float, dtype: str, xb_device: Device) -> None:
    rng = np.random.default_rng(0)
    grads = [rng.normal(size=shape).astype(dtype) for shape in ((3, 4), (), (0, 2), (5,))]
    weights = [parameter(np.zeros(grad.shape), dtype) for grad in grads]
    unused = parameter([1.0], dtype)
    for weight, grad in zip(weights, grads, strict=True):
        weight.grad = xb.asarray(grad, dtype=dtype)
    with xb.transfer_guard(uploads=0, downloads=0, synchronizations=0):
        norm = xb.optim.clip_grad_norm_([*weights, unused], max_norm, norm_type)
    tolerance = TOLERANCES[dtype].peer
    expected = np.linalg.norm(np.concatenate([g.ravel() for g in grads]), norm_type)
    np.testing.assert_allclose(xb.to_host(norm), expected, rtol=tolerance)
    for weight, grad in zip(weights, clipped(grads, max_norm, norm_type), strict=True):
        assert weight.grad.dtype == dtype
        np.testing.assert_allclose(xb.to_host(weight.grad), grad, rtol=tolerance, atol=tolerance)
    assert unused.grad is None


def test_clip_grad_norm_of_one_parameter_and_of_infinity(xb_device: Device) -> None:
    w = parameter([0.0, 0.0])
    w.grad = xb.asarray([3.0, 4.0], dtype=np.float64)
    assert float(xb.to_host(xb.optim.clip_grad_norm_(w, 1.0))) == 5.0
    np.testing.assert_allclose(xb.to_host(w.grad), [0.6, 0.8], rtol=1e-6)
    w.grad = xb.asarray([np.inf, 1.0], dtype=np.float64)
    assert np.isinf(xb.to_host(xb.optim.clip_grad_norm_(w, 1.0)))
    np.testing.assert_array_equal(xb.to_host(w.grad), [np.nan, 0.0])


def test_clip_grad_norm_after_the_optimizer_packed(xb_device: Device) -> None:
    w = parameter([0.0, 0.0])
    optimizer = xb.optim.SGD([w], lr=1.0)
    optimizer.step()
    w.grad = xb.asarray([3.0, 4.0], dtype=np.float64)
    xb.optim.clip_grad_norm_([w], 1.0)
    optimizer.step()
    np.testing.assert_allclose(xb.to_host(w.data), [-0.6, -0.8], rtol=1e-6)


def test_no_gradient_has_norm_zero(xb_device: Device) -> None:
    w = parameter([0.0])
    for parameters in ([w], [], w, iter([w])):
        norm = xb.optim.clip_grad_norm_(parameters, 1.0)
        assert (norm.shape, norm.dtype, float(xb.to_host(norm))) == ((), np.float32, 0.0)
        xb.optim.clip_grad_value_([w], 1.0)
    assert str(xb.optim.get_total_norm([]).device) == str(xb.asarray([1.0]).device)


def test_norm_and_scaling_apart(xb_device: Device) -> None:
    weights = [parameter([0.0, 0.0]), parameter([0.0])]
    for weight, grad in zip(weights, ([3.0, 0.0], [4.0]), strict=True):
        weight.grad = xb.asarray(grad, dtype=np.float64)
    with xb.transfer_guard(uploads=0, downloads=0, synchronizations=0):
        norm = xb.optim.get_total_norm([weight.grad for weight in weights])
        one = xb.optim.get_total_norm(weights[0].grad, float("inf"))
        xb.optim.clip_grads_with_norm_(weights, 0.5, norm)
    assert (float(xb.to_host(norm)), float(xb.to_host(one))) == (5.0, 3.0)
    np.testing.assert_allclose(xb.to_host(weights[0].grad), [0.3, 0.0], rtol=1e-6)
    np.testing.assert_allclose(xb.to_host(weights[1].grad), [0.4], rtol=1e-6)


@both_dtypes
def test_clip_grad_value(dtype: str, xb_device: Device) -> None:
    w, unused = parameter(np.zeros((2, 3)), dtype), parameter([1.0], dtype)
    values = [[3.0, -0.5, -7.0], [np.inf, -np.inf, np.nan]]
    w.grad = xb.asarray(values, dtype=dtype)
    with xb.transfer_guard(uploads=0, downloads=0, synchronizations=0):
        xb.optim.clip_grad_value_(iter([w, unused]), 2.0)
    assert w.grad.dtype == dtype
    np.testing.assert_array_equal(xb.to_host(w.grad), [[2.0, -0.5, -2.0], [2.0, -2.0, np.nan]])
    assert unused.grad is None


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_error_if_nonfinite(bad: float, xb_device: Device) -> None:
    w = parameter([0.0, 0.0])
    w.grad = xb.asarray([bad, 1.0], dtype=np.float64)
    with (
        xb.transfer_log() as log,
        pytest.raises(RuntimeError, match=r"order 2\.0 .* is NaN or inf"),
    ):
        xb.optim.clip_grad_norm_(w, 1.0, error_if_nonfinite=True)
    on_device = int(xb_device.kind != "cpu")
    assert (log.downloads, log.uploads) == (on_device, 0)
    np.testing.assert_array_equal(xb.to_host(w.grad), [bad, 1.0])
    w.grad = xb.asarray([3.0, 4.0], dtype=np.float64)
    assert float(xb.to_host(xb.optim.clip_grad_norm_(w, 1.0, error_if_nonfinite=True))) == 5.0


def test_clipping_refuses_what_makes_no_sense() -> None:
    w = parameter([0.0])
    w.grad = w.data
    with pytest.raises(ValueError, match="norm_type=0"):
        xb.optim.clip_grad_norm_([w], 1.0, 0)
    with pytest.raises(ValueError, match="clip_grad_norm_ expects max_norm >= 0; got -1"):
        xb.optim.clip_grad_norm_([w], -1.0)
    with pytest.raises(ValueError, match="clip_grads_with_norm_ expects max_norm >= 0; got -1"):
        xb.optim.clip_grads_with_norm_([w], -1.0, w.data)
    with pytest.raises(ValueError, match="clip_value >= 0; got -1"):
        xb.optim.clip_grad_value_([w], -1.0)


def test_total_norm_of_arrays_on_two_devices_and_of_two_dtypes() -> None:
    arrays = [xb.asarray([3.0], device="cpu"), xb.asarray([4.0], device="fake")]
    assert float(xb.optim.get_total_norm(arrays)) == 5.0
    mixed = [np.float32([3.0]), np.float64([4.0])]
    assert float(xb.optim.get_total_norm(mixed)) == 5.0
