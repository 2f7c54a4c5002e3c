"""`xb.observe.detect_anomaly`: a NaN planted anywhere is named where it began."""

import inspect
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from command_line import call
from layer_cases import CASES

import xbackprop as xb
from xbackprop import nn
from xbackprop.backend.device import Device
from xbackprop.dispatch import registered_ops
from xbackprop.module import Module
from xbackprop.module.frame import layer_path
from xbackprop.observe import AnomalyError, detect_anomaly
from xbackprop.testing.structures import (
    backward_of_all_inputs,
    is_float,
    random_like,
    transform,
)


class Setup:
    """A network, its loss, its optimizer and its batches."""

    def __init__(self, model: Module, loss_fn: Module, x: Any, y: Any) -> None:
        self.model, self.loss_fn = model, loss_fn
        self.x, self.y = xb.asarray(x), xb.asarray(y)
        self.optimizer = xb.optim.Adam(model.parameters(), lr=1e-3)

    def step(self) -> None:
        self.optimizer.zero_grad()
        xb.value_and_grad(self.model, self.loss_fn)(self.x, self.y)
        self.optimizer.step()


def images() -> Setup:
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3, rng=0), nn.BatchNorm2d(2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Dropout(0.5, rng=0), nn.Linear(8, 3, rng=0),
    )  # fmt: skip
    x = np.random.default_rng(0).normal(size=(4, 1, 6, 6)).astype(np.float32)
    return Setup(model, nn.CrossEntropyLoss(), x, np.array([0, 1, 2, 0]))


def tokens() -> Setup:
    ids = np.arange(8).reshape(2, 4) % 7
    return Setup(nn.GPT(7, 4, 2, 2, 8, 0.0, rng=0), nn.TokenCrossEntropyLoss(), ids, ids)


def quantities() -> Setup:
    model = nn.Sequential(nn.Linear(3, 4, rng=0), nn.Tanh(), nn.Linear(4, 2, rng=0))
    x, y = np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32)
    return Setup(model, nn.MSELoss(), x, y[:, :2])


@dataclass(frozen=True)
class Expected:
    op: str
    layer: str
    direction: str
    origin: str | None = None


OPS = [
    (images, "convolution_forward", "Sequential.0"),
    (images, "normalize_forward", "Sequential.1"),
    (images, "relu_forward", "Sequential.2"),
    (images, "max_pool_forward", "Sequential.3"),
    (images, "dropout_forward", "Sequential.5"),
    (images, "linear_forward", "Sequential.6"),
    (images, "cross_entropy_forward", "CrossEntropyLoss"),
    (images, "cross_entropy_backward", "CrossEntropyLoss"),
    (images, "linear_backward", "Sequential.6"),
    (images, "dropout_backward", "Sequential.5"),
    (images, "max_pool_backward", "Sequential.3"),
    (images, "relu_backward", "Sequential.2"),
    (images, "normalize_backward", "Sequential.1"),
    (images, "convolution_backward", "Sequential.0"),
    (tokens, "embedding_forward", "GPT.wte"),
    (tokens, "normalize_forward", "GPT.h.1.ln_1"),
    (tokens, "scaled_dot_product_attention_forward", "GPT.h.0.attn.attention"),
    (tokens, "gelu_tanh_forward", "GPT.h.1.mlp.act"),
    (tokens, "linear_forward", "GPT.h.0.mlp.c_proj"),
    (tokens, "linear_forward", "GPT"),
    (tokens, "cross_entropy_forward", "TokenCrossEntropyLoss"),
    (tokens, "scaled_dot_product_attention_backward", "GPT.h.1.attn.attention"),
    (tokens, "linear_backward", "GPT.h.0.attn.c_attn"),
    (tokens, "embedding_backward", "GPT.wte"),
]


def with_bad(value: Any, bad: float) -> Any:
    """The first float array among results, with one bad number."""
    changed: list[None] = []

    def change(leaf: Any) -> Any:
        if changed or not (is_float(leaf) or isinstance(leaf, np.floating)):
            return leaf
        changed.append(None)
        if leaf.ndim == 0:
            return leaf * 0 + bad
        xp = xb.get_array_module(leaf)
        return xp.where(xp.arange(leaf.size).reshape(leaf.shape) == leaf.size - 1, bad, leaf)

    return transform(value, change)


def plant_in_op(monkeypatch: Any, name: str, layer: str, bad: float) -> None:
    (op,) = {o for full, o in registered_ops().items() if full.rpartition(".")[2] == name}
    original = op.reference

    def reference(*args: Any, **options: Any) -> Any:
        result = original(*args, **options)
        return with_bad(result, bad) if layer_path() == layer else result

    reference.__signature__ = inspect.signature(original)  # type: ignore[attr-defined]
    monkeypatch.setattr(op, "reference", reference)


MAKERS = [(*row, float("nan")) for row in OPS]
MAKERS += [(*row, float("inf")) for row in (OPS[0], OPS[6], OPS[9])]


@pytest.mark.parametrize(
    ("make", "op", "layer", "bad"),
    MAKERS,
    ids=[f"{op}-{layer}-{bad}" for _, op, layer, bad in MAKERS],
)
def test_an_op_that_makes_it_is_named(
    make: Any, op: str, layer: str, bad: float, xb_device: Device, monkeypatch: Any
) -> None:
    setup = make()
    with detect_anomaly():
        setup.step()
        setup.step()
        plant_in_op(monkeypatch, op, layer, bad)
        with pytest.raises(AnomalyError, match=f"^step 3, .*{op} made the first") as caught:
            setup.step()
    error = caught.value
    assert (error.op, error.layer, error.step, error.origin) == (op, layer, 3, None)
    assert error.direction == op.rpartition("_")[2]
    assert (
        "1 NaN, the first at" in str(error)
        or "1 infinite, the first at" in str(error)
        or (" is nan" in str(error) or " is inf" in str(error))
    )
    assert " from " in str(error)
    assert len(str(error).splitlines()) == 1


def spoil_parameter(setup: Setup, path: str, bad: float) -> None:
    parameter = dict(setup.model.named_parameters())[path]
    parameter.data = with_bad(parameter.data, bad)


def spoil_buffer(setup: Setup, layer: int, name: str, bad: float) -> None:
    setup.model.eval()
    part = setup.model[layer]
    part.commit_buffer(name, with_bad(part.__dict__["_buffers"][name], bad))


def spoil_input(setup: Setup, name: str, bad: float) -> None:
    setattr(setup, name, with_bad(getattr(setup, name), bad))


def spoil_state(setup: Setup, name: str) -> None:
    state = setup.optimizer.state_dict()
    state["state"][0][name] = np.full_like(state["state"][0][name], np.nan)
    setup.optimizer.load_state_dict(state)


def spoil_gradient(setup: Setup, path: str) -> None:
    parameter = dict(setup.model.named_parameters())[path]
    original = setup.optimizer.step

    def step() -> None:
        parameter.grad = with_bad(parameter.grad, float("nan"))
        original()

    setup.optimizer.step = step  # type: ignore[method-assign, assignment]


NAN, INF = float("nan"), float("inf")
PLACES = {
    "a weight of a convolution": (
        images, lambda s: spoil_parameter(s, "0.weight", NAN),
        Expected("convolution_forward", "Sequential.0", "forward",
                 "parameter 'weight' of Sequential.0"),
    ),
    "a bias of a normalization": (
        images, lambda s: spoil_parameter(s, "1.bias", NAN),
        Expected("normalize_forward", "Sequential.1", "forward",
                 "parameter 'bias' of Sequential.1"),
    ),
    "an infinite weight": (
        images, lambda s: spoil_parameter(s, "6.weight", INF),
        Expected("linear_forward", "Sequential.6", "forward",
                 "parameter 'weight' of Sequential.6"),
    ),
    "a weight deep inside": (
        tokens, lambda s: spoil_parameter(s, "h.1.attn.c_proj.weight", NAN),
        Expected("linear_forward", "GPT.h.1.attn.c_proj", "forward",
                 "parameter 'weight' of GPT.h.1.attn.c_proj"),
    ),
    "a running mean": (
        images, lambda s: spoil_buffer(s, 1, "running_mean", INF),
        Expected("normalize_by_forward", "Sequential.1", "forward",
                 "buffer 'running_mean' of Sequential.1"),
    ),
    "a running variance": (
        images, lambda s: spoil_buffer(s, 1, "running_var", NAN),
        Expected("normalize_by_forward", "Sequential.1", "forward",
                 "buffer 'running_var' of Sequential.1"),
    ),
    "an input": (
        images, lambda s: spoil_input(s, "x", NAN),
        Expected("convolution_forward", "Sequential.0", "forward", "'x', an input of Sequential"),
    ),
    "an infinite input": (
        quantities, lambda s: spoil_input(s, "x", INF),
        Expected("linear_forward", "Sequential.0", "forward", "'x', an input of Sequential"),
    ),
    "a target": (
        quantities, lambda s: spoil_input(s, "y", NAN),
        Expected("mse_loss_forward", "MSELoss", "forward", "'target', an input of MSELoss"),
    ),
    "a gradient": (
        quantities, lambda s: spoil_gradient(s, "2.bias"),
        Expected("adam_update", "", "update",
                 "the gradient of parameter '2.bias' of Sequential"),
    ),
    "the optimizer's state": (
        quantities, lambda s: spoil_state(s, "exp_avg"),
        Expected("adam_update", "", "update", "the optimizer's 'exp_avg'"),
    ),
    "a learning rate": (
        quantities, lambda s: s.optimizer.param_groups[0].__setitem__("lr", INF),
        Expected("adam_update", "", "update", "the optimizer's 'step_size'"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_what_held_it_before_is_named(place: str, xb_device: Device) -> None:
    make, spoil, expected = PLACES[place]
    setup = make()
    with detect_anomaly(steps_done=10):
        setup.step()
        spoil(setup)
        with pytest.raises(AnomalyError, match=r"^step 12, .* the first NaN or infinity") as caught:
            setup.step()
    error = caught.value
    received = Expected(error.op, error.layer, error.direction, error.origin)
    assert received == expected, str(error)
    assert expected.origin is not None
    assert f"It comes from {expected.origin}. Arguments: " in str(error)


def test_what_is_saved_is_looked_at(xb_device: Device, monkeypatch: Any) -> None:
    setup = quantities()
    (op,) = {o for full, o in registered_ops().items() if full.endswith(".tanh_forward")}
    original = op.reference

    def reference(x: Any) -> Any:
        output, saved = original(x)
        return output, with_bad(saved, NAN)

    setup.step()  # the op has learned the names of what it saves
    monkeypatch.setattr(op, "reference", reference)
    with detect_anomaly(), pytest.raises(AnomalyError, match=r"forward made .*: saved output of"):
        setup.step()


class Between(Module):
    """Makes a NaN by itself, with no op."""

    def forward(self, x: Any) -> tuple[Any, Any]:
        return x * float("nan"), ()

    def backward(self, grad_output: Any, saved: Any, *, input_grad: bool = True) -> Any:
        return grad_output


def test_arithmetic_between_ops_is_said_to_be_so(xb_device: Device) -> None:
    setup = quantities()
    setup.model[1] = Between()
    with detect_anomaly(), pytest.raises(AnomalyError) as caught:
        setup.step()
    assert caught.value.origin == (
        "'x', which no op made: arithmetic between ops, or an array from elsewhere"
    )
    assert caught.value.layer == "Sequential.2"


def test_masks_and_what_is_saved_are_no_anomalies() -> None:
    with xb.use_device("cpu"), detect_anomaly():
        for case in CASES:
            module = case.make()
            inputs = case.inputs(np.random.default_rng(0))
            inputs = transform(
                inputs if isinstance(inputs, tuple) else (inputs,),
                lambda leaf: leaf.astype(np.float32) if is_float(leaf) else leaf,
            )
            output, saved = module.forward(*inputs)
            grad = random_like(output, np.random.default_rng(1))
            backward_of_all_inputs(module, grad, saved, len(inputs))


class Count:
    """An observer that counts."""

    calls = 0

    def before(self, call: Any) -> None:
        self.calls += 1

    def after(self, call: Any, result: Any) -> None:
        pass


def test_it_waits_once_for_each_op_and_not_at_all_when_off() -> None:
    with xb.use_device("fake"):
        setup = images()
        setup.step()
        with xb.transfer_log() as log:
            setup.step()
        assert log.synchronizations == log.downloads == 0
        count = Count()
        with detect_anomaly(), xb.observe(count), xb.transfer_log() as log:
            setup.step()
        no_floats = 3  # of dropout: the number of the call, random bits, and what is kept
        assert log.synchronizations == log.bytes_downloaded == count.calls - no_floats == 17


def test_the_bits_stay(xb_device: Device) -> None:
    plain, watched = images(), images()
    plain.step()
    with detect_anomaly():
        watched.step()
    for name, array in plain.model.state_dict().items():
        assert array.tobytes() == watched.model.state_dict()[name].tobytes(), name


# --- the command --------------------------------------------------------------------------


def test_the_command_names_the_op(capsys: Any, tmp_path: Any, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("train", "--epochs", "2", "--hidden", "8", "--quiet", "--detect-anomaly")
    code, out, err = call(capsys, *words, "--out", "good")
    assert (code, err) == (0, "")
    plant_in_op(monkeypatch, "linear_backward", "Sequential.2", NAN)
    code, out, err = call(capsys, *words, "--out", "bad")
    assert (code, out) == (1, "")
    assert "step 1, backward of Sequential.2 (Linear): linear_backward made the first" in err
    assert len(err.splitlines()) == 1
