"""A GELU and the Linear after it: the bits of the two layers, and GELU's output is not kept."""

import tracemalloc
from typing import Any

import numpy as np
import pytest
from test_layers import evaluate

import xbackprop as xb
from xbackprop.kernels.loops import HAS_NUMBA
from xbackprop.nn import containers, remade
from xbackprop.nn.fusion import PairedSaved

pytestmark = pytest.mark.skipif(not HAS_NUMBA, reason="numba is not installed (extra fast)")
nn = xb.nn


@pytest.fixture(autouse=True)
def on_cpu() -> Any:
    with xb.use_device("cpu"):
        yield


def gelu() -> Any:
    return nn.GELU(approximate="tanh")


def make(*, bias: bool = True) -> Any:
    """A pair in the middle, one at the end, and a GELU without a Linear after it."""
    return nn.Sequential(
        nn.Linear(32, 48, rng=0), gelu(), nn.Linear(48, 40, bias, rng=1),
        gelu(), nn.Linear(40, 24, rng=2), gelu(),
    )  # fmt: skip


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return 2 * np.random.default_rng(seed).standard_normal(shape, np.float32)


def pairs(saved: Any) -> int:
    return sum(type(part) is remade.RemadeSaved for part in saved.content)


def bits(model: Any, x: np.ndarray, expected_pairs: int, **options: Any) -> list[bytes | None]:
    """Output, gradient of the input and gradients of two backwards that add."""
    model.zero_grad()
    output, saved = model.forward(x)
    assert pairs(saved) == expected_pairs
    grad_output = numbers(*output.shape, seed=1)
    for keep in (True, False):
        grad = model.backward(grad_output, saved, keep=keep, **options)
    with pytest.raises(RuntimeError, match="already used"):
        model.backward(grad_output, saved)
    arrays = [output, grad, *(p.grad for p in model.parameters())]
    return [None if array is None else array.tobytes() for array in arrays]


def apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers.sequential, "may_remake", lambda layers: False)


@pytest.mark.parametrize("input_grad", [True, False])
@pytest.mark.parametrize("shape", [(200, 32), (4, 50, 32)])
@pytest.mark.parametrize("frozen", [None, "2.weight", "2.bias", "4.weight"])
def test_the_bits_are_those_of_the_layers(
    shape: Any, frozen: str | None, input_grad: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = []
    for number in (2, 0):
        model = make()
        if frozen:
            dict(model.named_parameters())[frozen].requires_grad = False
        results.append(bits(model, numbers(*shape), number, input_grad=input_grad))
        apart(monkeypatch)
    assert results[0] == results[1]


@pytest.mark.parametrize("bias", [True, False])
def test_a_pair_at_the_beginning_is_not_asked_for_its_input(
    bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = []
    for number in (1, 0):
        model = nn.Sequential(gelu(), nn.Linear(32, 24, bias, rng=0))
        results.append(bits(model, numbers(200, 32), number, input_grad=False))
        apart(monkeypatch)
    assert results[0] == results[1]


def test_inference_saves_nothing_and_has_the_bits_of_training() -> None:
    model = make()
    x = numbers(200, 32)
    assert model(x).tobytes() == model.forward(x)[0].tobytes()


def test_the_layers_run_where_anything_is_out_of_the_ordinary() -> None:
    class Mine(nn.Linear):
        pass

    replaced = nn.Linear(32, 24, rng=0)
    replaced.__dict__["backward"] = replaced.backward
    x = numbers(200, 32)
    for layers in (
        (gelu(), Mine(32, 24, rng=0)), (gelu(), replaced), (gelu(), gelu()),
        (nn.GELU(), nn.Linear(32, 24, rng=0)), (nn.ReLU(), nn.Linear(32, 24, rng=0)),
    ):  # fmt: skip
        assert type(nn.Sequential(*layers).forward(x)[1].content) is list
    model = make()
    for given in (numbers(2, 32), np.asfortranarray(x)):  # few; the first layer makes C order of it
        assert pairs_of_any(model.forward(given)[1]) == (0 if len(given) == 2 else 2)
    with xb.use_references():
        assert pairs_of_any(model.forward(x)[1]) == 0
    half = make()
    xb.set_precision(half, "float16")
    assert pairs_of_any(half.forward(x)[1]) == 0
    half = nn.Sequential(gelu(), nn.Linear(32, 24, rng=0))
    xb.set_precision(half[0], "float16")  # whose result the Linear refuses
    with pytest.raises(TypeError, match="expects x of dtype float32; got float16"):
        half(x)
    double = nn.Sequential(gelu(), nn.Linear(32, 24, rng=0, dtype="float64"))
    assert pairs_of_any(double.forward(x.astype(np.float64))[1]) == 0


def pairs_of_any(saved: Any) -> int:
    return pairs(saved) if type(saved.content) is PairedSaved else 0


def test_whoever_looks_inside_sees_the_layers() -> None:
    class Watcher:
        def __init__(self) -> None:
            self.names: list[str] = []

        def before(self, call: Any) -> None:
            self.names.append(call.op.name)

        def after(self, call: Any, result: Any) -> None: ...

    watcher = Watcher()
    with xb.observe(watcher):
        make()(numbers(200, 32))
    assert watcher.names == 3 * ["linear_forward", "gelu_tanh_forward"]


def test_what_a_layer_refuses_is_refused_by_the_layer() -> None:
    x = numbers(200, 32)
    model = nn.Sequential(gelu(), nn.Linear(30, 24, rng=0))
    with pytest.raises(ValueError, match=r"Linear \(Sequential.1\) expects x of shape"):
        model(x)
    model = nn.Sequential(gelu(), nn.Linear(32, 24, rng=0, dtype="float64"))
    with pytest.raises(TypeError, match=r"Linear \(Sequential.1\)"):
        model(x)


def test_formulas_are_what_the_ops_compute() -> None:
    rng = np.random.default_rng(0)
    x, weight, bias, grad = (rng.standard_normal(s) for s in ((3, 2, 5), (4, 5), (4,), (3, 2, 4)))
    forward, backward = remade.gelu_tanh_linear_forward, remade.gelu_tanh_linear_backward
    assert forward.formula is not None
    assert backward.formula is not None
    output, saved = forward(x, weight, bias)
    shown = evaluate(forward.formula, {"x": x, "weight": weight, "bias": bias})
    np.testing.assert_allclose(output, shown["output"], rtol=1e-12)
    shown = evaluate(backward.formula, {"grad_output": grad, **saved._asdict()})
    for got, want in zip(backward(grad, *saved), shown.values(), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-14)


def test_memory_of_a_step() -> None:
    """At its peak, early in the backward, one array of the wide kind a block; two more in work."""
    blocks, rows, width = 6, 512, 32
    model = nn.Sequential(
        *(
            nn.Sequential(nn.Linear(width, 8 * width, rng=0), gelu(), nn.Linear(8 * width, width))
            for _ in range(blocks)
        )
    )
    x = numbers(rows, width)
    wide = 4 * rows * 8 * width

    def step() -> None:
        output, saved = model.forward(x)
        model.backward(output, saved, input_grad=False)

    step()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        step()
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    narrow = wide / 8
    # Each block keeps its input and what GELU is given; the last one makes GELU's output anew and
    # has a gradient of it.
    assert peak < blocks * (wide + narrow) + 2 * wide + 4 * narrow
