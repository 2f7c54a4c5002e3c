"""Ops: devices, kernels, named saved values, observers."""

from typing import Any

import numpy as np
import pytest

import xbackprop as xb
from xbackprop import dispatch, nn
from xbackprop.backend.device import Device
from xbackprop.dispatch import ArraySpec, OpCall, op, registered_ops


@pytest.fixture
def scale() -> Any:
    """A fresh op, so that kernels of one test are unknown to the next."""

    @op
    def scale_reference(x: Any, factor: float = 2.0, *, shift: float = 0.0) -> Any:
        return x * factor + shift

    return scale_reference


def ones(*shape: int) -> xb.Array:
    return xb.asarray(np.ones(shape))


class Record:
    """An observer that writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, int]] = []
        self.calls: list[OpCall] = []

    def before(self, call: OpCall) -> None:
        self.told.append(("before", call.op.name, call.depth))
        self.calls.append(call)

    def after(self, call: OpCall, result: Any) -> None:
        self.told.append(("after", call.op.name, call.depth))


# --- which device -------------------------------------------------------------------------


def test_an_op_runs_where_its_first_array_lives(scale: Any, xb_device: Device) -> None:
    x = ones(3)
    record = Record()
    with xb.use_device("cpu"), xb.observe(record):
        for result in (scale(x), scale(x, 3.0), scale(x=x), scale(factor=2.0, x=x, shift=1.0)):
            assert xb.device_of(result) == xb_device
    assert {call.device for call in record.calls} == {xb_device}
    np.testing.assert_array_equal(xb.to_host(scale(factor=3.0, x=x, shift=1.0)), [4, 4, 4])


def test_arrays_by_name_work_again_and_again(scale: Any) -> None:
    x = np.ones(3)
    for _ in range(3):
        np.testing.assert_array_equal(scale(x=x, shift=1.0), [3, 3, 3])
        np.testing.assert_array_equal(scale(x, factor=3.0), [3, 3, 3])


def test_arrays_of_two_devices_are_refused_with_the_call_to_make() -> None:
    @op
    def add(a: Any, b: Any) -> Any:
        return a + b

    host = np.ones(3)
    fake, other = (xb.to_device(host, name) for name in ("fake", "fake:1"))
    expected = r"add: argument 1 is on fake:0, an earlier one on cpu. .*to_device\(array, 'cpu'\)"
    for _ in range(2):  # the second time by the short way
        assert add(host, host).sum() == 6
        with pytest.raises(ValueError, match=expected):
            add(host, fake)
        with pytest.raises(ValueError, match=expected):
            add(a=host, b=fake)
    with pytest.raises(ValueError, match=r"argument 1 is on fake:1, an earlier one on fake:0"):
        add(fake, other)
    # NumPy scalars are host values without a device of their own.
    assert xb.device_of(add(fake, np.float64(1))) == xb.device_of(fake)


def test_a_kernel_is_given_no_arrays_of_two_devices() -> None:
    """Not in the second call either, which asks for no more than it has to."""

    @op
    def first_of(x: Any, y: Any) -> Any:
        return x + y

    @first_of.kernel("cpu")
    def take_first(x: Any, y: Any) -> Any:
        return x

    host = np.ones(3)
    for _ in range(2):
        assert first_of(host, host) is host
    with pytest.raises(ValueError, match="argument 1 is on fake"):
        first_of(host, xb.to_device(host, "fake"))


def test_an_op_without_arrays_takes_a_device(xb_device: Device) -> None:
    @op
    def draw(size: int, *, device: Any = None) -> Any:
        return xb.asarray(np.zeros(size), device=device)

    assert xb.device_of(draw(3)) == xb_device
    assert xb.device_of(draw(3, device="cpu")) == xb.device_of(np.ones(1))


# --- kernels ------------------------------------------------------------------------------


def test_a_cpu_kernel_replaces_the_reference_on_cpu_only(scale: Any, xb_device: Device) -> None:
    x = ones(3)
    assert xb.to_host(scale(x))[0] == 2  # also learns the short way, which a kernel must close

    @scale.kernel("cpu")
    def faster(x: Any, factor: float = 2.0, *, shift: float = 0.0) -> Any:
        return x * factor + shift + 100

    expected = 102 if xb_device.kind == "cpu" else 2
    assert xb.to_host(scale(x))[0] == expected
    assert xb.to_host(scale.reference(x))[0] == 2
    assert faster(np.ones(1))[0] == 102  # the decorator returns the function itself


def test_the_newest_kernel_that_can_serve_does(scale: Any) -> None:
    asked: list[Any] = []

    def is_small(x: ArraySpec, factor: float = 2.0) -> bool:
        asked.append((x, factor))
        return x.shape[0] < 3

    scale.kernel("cpu")(lambda x, factor=2.0: "old")
    scale.kernel("cpu", when=is_small)(lambda x, factor=2.0: "small")
    assert scale(np.ones(2, np.float32), 5.0) == "small"
    assert scale(np.ones(3)) == "old"
    assert scale(factor=5.0, x=np.ones(2, np.float32)) == "small"
    spec = ArraySpec((2,), np.dtype(np.float32))
    assert asked == [(spec, 5.0), (ArraySpec((3,), np.dtype(np.float64)), 2.0), (spec, 5.0)] or (
        asked == [(spec, 5.0), (ArraySpec((3,), np.dtype(np.float64)),), (spec, 5.0)]
    )


def test_fake_asks_the_cuda_kernel_runs_the_reference_and_books_its_launches(scale: Any) -> None:
    specs: list[Any] = []

    def supports(x: ArraySpec, *rest: Any) -> bool:
        specs.append(x)
        return x.dtype == np.float32

    @scale.kernel("cuda", when=supports, launches=3)
    def fused(x: Any, factor: float = 2.0) -> Any:
        raise AssertionError("no CUDA here")

    with xb.use_device("fake:1"):
        x = ones(4)
        y = xb.asarray(np.ones(4), dtype=np.float64)
        with xb.transfer_log() as log:
            result = scale(x)
        assert xb.to_host(result)[0] == 2
        assert [(e.kind, e.what, e.device) for e in log.events] == [
            ("launch", "scale_reference", "fake:1")
        ]
        assert log.launches == 3
        with xb.transfer_log() as log:
            scale(y)
        assert log.launches == 2  # the reference's own: a product and a sum
    assert specs == [ArraySpec((4,), np.dtype(d)) for d in (np.float32, np.float64)]
    assert scale(np.ones(1))[0] == 2  # on cpu nobody asks


def test_a_kernel_is_asked_with_options_and_with_the_order_in_memory() -> None:
    @op
    def shifted(x: Any, *, by: float = 0.0) -> Any:
        return x + by + 0 + 0

    def supports(x: ArraySpec, *, by: float = 0.0) -> bool:
        return x.is_contiguous and by != 3

    def count(x: ArraySpec, *, by: float = 0.0) -> int:
        return 2 if by else 1

    shifted.kernel("cuda", when=supports, launches=count)(lambda x, *, by=0.0: x)

    def launches(x: Any, **options: float) -> int:
        with xb.transfer_log() as log:
            shifted(x, **options)
        return log.launches

    with xb.use_device("fake"):
        x = xb.asarray(np.ones((2, 3)))
        assert launches(x) == 1
        assert launches(x, by=2) == 2
        assert launches(x, by=3) == 3  # the reference's
        assert launches(x.T) == 3


def test_launches_of_nested_ops_are_those_of_the_outer_kernel() -> None:
    @op
    def inner(x: Any) -> Any:
        return x + 1

    @op
    def outer(x: Any) -> Any:
        return inner(x) * inner(x)

    inner.kernel("cuda", launches=7)(lambda x: x)
    x = xb.asarray([1.0], device="fake")
    with xb.transfer_log() as log:
        outer(x)
    assert log.launches == 15  # two inner kernels, and the product
    outer.kernel("cuda", launches=1)(lambda x: x)
    with xb.transfer_log() as log:
        outer(x)
    assert log.launches == 1


def test_kernels_are_for_cpu_or_cuda(scale: Any) -> None:
    for name in ("fake", "gpu", "cuda:0"):
        with pytest.raises(ValueError, match=f"for 'cpu' or 'cuda'; got '{name}'"):
            scale.kernel(name)


def test_kernels_of_the_cpu_are_loaded_though_the_first_call_was_on_fake(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @op
    def late(x: Any) -> Any:
        return x * 2

    def load(kind: str) -> None:
        if kind == "cpu" and not late.kernels:
            late.kernel("cpu")(lambda x: "kernel")

    monkeypatch.setattr(dispatch, "_load_kernels", load)
    assert xb.to_host(late(xb.asarray([1.0], device="fake")))[0] == 2
    assert late(np.ones(1)) == "kernel"


# --- saved --------------------------------------------------------------------------------


def test_saved_is_named_after_the_arguments_of_backward(xb_device: Device) -> None:
    from xbackprop.nn.linear import linear_forward

    x, weight, bias = ones(2, 3), ones(4, 3), ones(4)
    for _ in range(2):
        _, saved = linear_forward(x, weight, bias)
        assert saved._fields == ("x", "weight")
        assert saved.x is x
        assert saved.weight is weight
    assert type(saved).__name__ == "linear_saved"


def test_every_op_is_registered_by_its_full_name() -> None:
    ops = registered_ops()
    assert "xbackprop.nn.linear.linear_forward" in ops
    assert repr(ops["xbackprop.nn.linear.linear_forward"]) == "<op linear_forward>"
    for name, found in ops.items():
        assert name == f"{found.reference.__module__}.{found.reference.__name__}"
        assert found.__doc__ == found.reference.__doc__


def test_flops_follow_the_shapes() -> None:
    flops = registered_ops()["xbackprop.nn.linear.linear_forward"].flops
    x, weight = ArraySpec((5, 2, 3), np.dtype("f4")), ArraySpec((4, 3), np.dtype("f4"))
    assert flops is not None
    assert flops(x, weight, None) == 2 * 10 * 3 * 4


# --- observers ----------------------------------------------------------------------------


def test_observers_are_told_before_and_after_with_the_depth(xb_device: Device) -> None:
    @op
    def inner(x: Any) -> Any:
        return x + 1

    @op
    def outer(x: Any) -> Any:
        return inner(inner(x))

    x = ones(2)
    outer(x)
    first, second = Record(), Record()
    with xb.observe(first):
        outer(x)
        with xb.observe(second):
            inner(x)
    outer(x)
    assert first.told == [
        ("before", "outer", 0),
        ("before", "inner", 1),
        ("after", "inner", 1),
        ("before", "inner", 1),
        ("after", "inner", 1),
        ("after", "outer", 0),
        ("before", "inner", 0),
        ("after", "inner", 0),
    ]
    assert second.told == [("before", "inner", 0), ("after", "inner", 0)]
    assert first.calls[0].args[0] is x
    assert first.calls[0].device == xb_device


def test_depth_is_right_again_after_an_op_failed() -> None:
    @op
    def failing(x: Any) -> Any:
        raise ZeroDivisionError

    record = Record()
    with xb.observe(record):
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                failing(np.ones(1))
    assert record.told == [("before", "failing", 0)] * 2


def test_observers_see_the_ops_of_a_training_step(xb_device: Device) -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), rng=0)
    loss = nn.MSELoss()
    record = Record()
    x, y = ones(4, 3), ones(4, 2)
    with xb.observe(record):
        output, saved = model.forward(x)
        _, loss_saved = loss.forward(output, y)
        model.backward(loss.backward(1.0, loss_saved), saved)
    assert [(name, depth) for when, name, depth in record.told if when == "before"] == [
        ("linear_forward", 0),
        ("relu_forward", 0),
        ("mse_loss_forward", 0),
        ("mse_loss_backward", 0),
        ("relu_backward", 0),
        ("linear_backward", 0),
    ]
