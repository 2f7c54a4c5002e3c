"""Layers that run as one have the bits of the layers, and step aside for whoever looks inside."""

from typing import Any

import numpy as np
import pytest
from test_layers import evaluate

import xbackprop as xb
from xbackprop.dispatch import Op
from xbackprop.nn import containers, fusion

ACTIVATIONS = {"relu": xb.nn.ReLU, "gelu": lambda: xb.nn.GELU(approximate="tanh")}
on_both_backends = pytest.mark.parametrize("xb_device", ["cpu", "fake"], indirect=True)
on_fake = pytest.mark.parametrize("xb_device", ["fake"], indirect=True)


class Watcher:
    def before(self, call: Any) -> None: ...

    def after(self, call: Any, result: Any) -> None: ...


@pytest.fixture
def fused(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the fused ops that ran."""
    names: list[str] = []
    plain = Op.__call__

    def called(op: Op, *args: Any, **options: Any) -> Any:
        if op.name.startswith("bias_"):
            names.append(op.name)
        return plain(op, *args, **options)

    monkeypatch.setattr(Op, "__call__", called)
    return names


def make(activation: str) -> Any:
    nn = xb.nn
    return nn.Sequential(
        nn.Linear(5, 8), ACTIVATIONS[activation](), nn.Linear(8, 7), ACTIVATIONS[activation](),
        rng=0,
    )  # fmt: skip


def batch(shape: tuple[int, ...], seed: int) -> Any:
    return xb.asarray(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def train(model: Any, shape: tuple[int, ...], steps: int = 3, **options: Any) -> list[bytes]:
    """Return the bits of outputs, gradients and parameters over some steps."""
    optimizer = xb.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    bits = []
    for step in range(steps):
        optimizer.zero_grad()
        output, saved = model.forward(batch(shape, step))
        grad = model.backward(batch((*shape[:-1], 7), 9 + step), saved, **options)
        grads = [p.grad for p in model.parameters() if p.has_grad]
        optimizer.step()
        arrays = [output, *grads, *(p.data for p in model.parameters())]
        arrays += [] if grad is None else [grad]
        bits += [xb.to_host(array).tobytes() for array in arrays]
    return bits


def unfused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers.sequential, "may_fuse", lambda x: False)


@on_both_backends
@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("shape", [(6, 5), (2, 3, 5), (5,), (0, 5)])
def test_fused_layers_have_the_bits_of_the_layers(
    shape: Any, activation: str, precision: str, xb_device: Any, fused: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    results = []
    for input_grad in (True, False):
        model = make(activation)
        xb.set_precision(model, precision)
        results.append(train(model, shape, input_grad=input_grad))
    assert len(fused) == (0 if xb_device.kind == "cpu" else 24)
    unfused(monkeypatch)
    for input_grad, result in zip((True, False), results, strict=True):
        model = make(activation)
        xb.set_precision(model, precision)
        assert train(model, shape, input_grad=input_grad) == result
    assert len(fused) == (0 if xb_device.kind == "cpu" else 24)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_reference_on_the_cpu_is_the_two_layers(activation: str, dtype: str) -> None:
    linear, layer = xb.nn.Linear(5, 8, dtype=dtype, rng=0, device="cpu"), ACTIVATIONS[activation]()
    x, g = (np.random.default_rng(s).standard_normal((6, n)).astype(dtype)
            for s, n in ((1, 5), (2, 8)))  # fmt: skip
    x[0, 0] = np.nan
    pair = fusion._find_activation(layer)
    assert pair is not None
    output, saved = fusion.forward_pair(pair, linear, x)
    assert saved is not None
    grad = fusion.backward_pair(linear, g, saved, True)
    grads = [p.grad.copy() for p in linear.parameters()]
    linear.zero_grad()
    chain = xb.nn.Sequential(linear, layer)
    expected, chain_saved = chain.forward(x)
    expected_grad = chain.backward(g, chain_saved)
    for got, want in zip(
        [output, grad, *grads],
        [expected, expected_grad, *(p.grad for p in linear.parameters())],
        strict=True,
    ):
        assert got.tobytes() == want.tobytes()


@on_fake
@pytest.mark.parametrize("frozen", ["0.weight", "0.bias", "2.weight", "2.bias"])
def test_frozen_parameters(
    frozen: str, xb_device: Any, fused: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    results = []
    for _ in range(2):
        model = make("gelu")
        dict(model.named_parameters())[frozen].requires_grad = False
        results.append(train(model, (6, 5)))
        unfused(monkeypatch)
    assert results[0] == results[1]
    assert len(fused) == 12


@on_fake
def test_whoever_looks_inside_sees_the_layers(xb_device: Any, fused: list[str]) -> None:
    model = make("relu")
    with xb.observe(Watcher()):
        model(batch((6, 5), 0))
    assert not fused
    model(batch((6, 5), 0))
    assert len(fused) == 2


@on_fake
def test_other_classes_and_replaced_methods_run_by_themselves(
    xb_device: Any, fused: list[str]
) -> None:
    class Mine(xb.nn.Linear):
        pass

    class Cut(xb.nn.ReLU):
        pass

    nn = xb.nn
    replaced = nn.Linear(5, 8, rng=0)
    replaced.__dict__["forward"] = replaced.forward
    for layers in (
        (Mine(5, 8, rng=0), nn.ReLU()), (nn.Linear(5, 8, rng=0), Cut()), (replaced, nn.ReLU()),
        (nn.Linear(5, 8, bias=False, rng=0), nn.ReLU()), (nn.Linear(5, 8, rng=0), nn.GELU()),
        (nn.Linear(5, 8, rng=0),),
    ):  # fmt: skip
        nn.Sequential(*layers)(batch((6, 5), 0))
    assert not fused


@on_fake
def test_what_a_layer_refuses_is_refused_by_the_layer(xb_device: Any) -> None:
    model = xb.nn.Sequential(make("relu"))
    with pytest.raises(ValueError, match=r"Linear \(Sequential.0.0\) expects x of shape"):
        model(batch((6, 4), 0))
    with pytest.raises(TypeError, match=r"Linear \(Sequential.0.0\).*float64"):
        model(batch((6, 5), 0).astype("float64"))


@on_fake
def test_saved_is_consumed_or_kept_and_a_shared_layer_adds_twice(
    xb_device: Any, fused: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    results = []
    for _ in range(2):
        shared = xb.nn.Linear(5, 5, rng=0)
        model = xb.nn.Sequential(shared, xb.nn.ReLU(), shared, xb.nn.ReLU())
        _, saved = model.forward(batch((6, 5), 0))
        for keep in (True, False):
            model.backward(batch((6, 5), 1), saved, keep=keep)
        with pytest.raises(RuntimeError, match="already used"):
            model.backward(batch((6, 5), 1), saved)
        results.append([xb.to_host(p.grad).tobytes() for p in model.parameters()])
        unfused(monkeypatch)
    assert results[0] == results[1]
    assert len(fused) == 6


@pytest.mark.parametrize("pair", [fusion.BIAS_RELU, fusion.BIAS_GELU_TANH])
def test_formulas_are_what_the_ops_compute(pair: fusion.OpPair) -> None:
    rng = np.random.default_rng(0)
    x, bias, grad = (rng.standard_normal(shape) for shape in ((3, 2, 5), (5,), (3, 2, 5)))
    output, saved = pair.forward(x, bias)
    assert pair.forward.formula is not None
    shown = evaluate(pair.forward.formula, {"x": x, "bias": bias})
    np.testing.assert_allclose(output, shown["output"], rtol=1e-12)
    results = pair.backward(grad, *saved)
    assert pair.backward.formula is not None
    shown = evaluate(pair.backward.formula, {"grad_output": grad, **saved._asdict()})
    for got, want in zip(results, shown.values(), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-14)
