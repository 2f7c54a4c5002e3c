"""Half precision: masters, copies, where it rounds, what it refuses; training to float32's loss."""

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xbackprop as xb
from xbackprop import nn
from xbackprop.backend.device import Device
from xbackprop.backend.half import half_dtype
from xbackprop.nn.generation import KeyValueCache, next_logits
from xbackprop.ops.matmul import half_product, product
from xbackprop.training import CheckpointError

HALVES = ("bfloat16", "float16")
every_half = pytest.mark.parametrize("half", HALVES)


def mlp(rng: Any = 0) -> nn.Module:
    return nn.Sequential(nn.Linear(64, 32), nn.LayerNorm(32), nn.ReLU(), nn.Linear(32, 10), rng=rng)


# --- products -----------------------------------------------------------------------------


@every_half
@pytest.mark.parametrize(
    "shapes", [((5, 7), (7, 3)), ((2, 5, 7), (2, 7, 3)), ((2, 1, 5, 7), (7, 3))]
)
def test_products_sum_in_float32_and_round_once(
    half: str, shapes: tuple[Any, Any], xb_device: Device
) -> None:
    dtype, rng = half_dtype(half), np.random.default_rng(0)
    first, second = (rng.normal(size=shape).astype(dtype) for shape in shapes)
    exact = first.astype(np.float64) @ second.astype(np.float64)
    a, b = xb.to_device(first, xb_device), xb.to_device(second, xb_device)
    wide = half_product(a, b, np.dtype(np.float32))
    np.testing.assert_allclose(xb.to_host(wide), exact, rtol=1e-5, atol=1e-5)
    low = xb.to_host(half_product(a, b, dtype))
    assert low.dtype == dtype
    unit = 2.0 ** (-8 if half == "bfloat16" else -11)
    np.testing.assert_allclose(low.astype(np.float64), exact, rtol=unit * 1.01, atol=1e-5)


def test_what_is_half_rounds_the_other_operand() -> None:
    wide = np.float32([[1 + 2**-12, 1.0]])
    low = np.float16([[1.0], [0.0]])
    assert product(wide, low)[0, 0] == 1
    assert product(wide, low).dtype == np.float32
    assert product(low.T, low).dtype == np.float16
    assert product(wide, wide.T).dtype == np.float32
    assert product(wide, wide.T, half=np.dtype("float16"))[0, 0] == 2
    assert product(wide, wide.T, half=np.dtype("float32"))[0, 0] > 2


# --- sums are float32 ---------------------------------------------------------------------

ROWS = 4096  # in half, a sum of so many ones stops at 256 or 2048


def bias_of_linear() -> tuple[nn.Module, Any, Any, str]:
    return nn.Linear(1, 1, rng=0), np.ones((ROWS, 1)), np.ones((ROWS, 1)), "bias"


def bias_of_convolution() -> tuple[nn.Module, Any, Any, str]:
    return nn.Conv1d(1, 1, 1, rng=0), np.ones((4, 1, ROWS // 4)), np.ones((4, 1, ROWS // 4)), "bias"


def weight_of_linear() -> tuple[nn.Module, Any, Any, str]:
    return nn.Linear(1, 1, rng=0), np.ones((ROWS, 1)), np.ones((ROWS, 1)), "weight"


def row_of_embedding() -> tuple[nn.Module, Any, Any, str]:
    return nn.Embedding(1, 1, rng=0), np.zeros(ROWS, np.int64), np.ones((ROWS, 1)), "weight"


def bias_of_normalization() -> tuple[nn.Module, Any, Any, str]:
    return nn.BatchNorm1d(1), np.arange(ROWS)[:, None] % 2.0, np.ones((ROWS, 1)), "bias"


@every_half
@pytest.mark.parametrize(
    "make",
    [
        bias_of_linear,
        bias_of_convolution,
        weight_of_linear,
        row_of_embedding,
        bias_of_normalization,
    ],
)
def test_sums_over_the_batch_are_float32(half: str, make: Any, xb_device: Device) -> None:
    layer, x, grad, name = make()
    xb.set_precision(layer, half)
    x = x if x.dtype.kind == "i" else x.astype(np.float32)
    _, saved = layer.forward(xb.asarray(x))
    layer.backward(xb.asarray(grad, dtype="float32"), saved)
    total = dict(layer.named_parameters())[name].grad
    assert total.dtype == np.float32
    assert float(xb.to_host(total).item()) == ROWS


@every_half
def test_statistics_and_softmax_are_float32(half: str, xb_device: Device) -> None:
    # The sum of so many is infinite in float16, and their mean lies between two bfloat16s.
    x = xb.asarray(np.tile(np.float32([256.0, 258.0]), (1, ROWS)))
    norm = nn.LayerNorm(2 * ROWS)
    xb.set_precision(norm, half)
    np.testing.assert_allclose(np.abs(xb.to_host(norm(x))), 1.0, rtol=1e-4)
    even = nn.Softmax(dim=-1)
    xb.set_precision(even, half)
    assert float(even(xb.asarray(np.zeros((1, ROWS), np.float32))).sum()) == 1.0


@every_half
def test_scores_of_attention_are_float32(half: str, xb_device: Device) -> None:
    # 1024.25 and 1024 are one number in both halves, and their softmax is not 1/2.
    layer = nn.ScaledDotProductAttention(scale=1.0)
    xb.set_precision(layer, half)
    q, k, v = [[32.0, 1.0]], [[32.0, 0.25], [32.0, 0.0]], [[1.0], [0.0]]
    output = layer(*(xb.asarray(np.float32(array)) for array in (q, k, v)))
    assert float(xb.to_host(output).item()) == pytest.approx(1 / (1 + np.exp(-0.25)), rel=0.005)


def test_dropout_inside_of_a_layer_does_not_round() -> None:
    layer = nn.LSTM(2, 2, num_layers=2, dropout=0.5, rng=0)
    xb.set_precision(layer, "bfloat16")
    seen = []

    class Watch:
        def before(self, call: Any) -> None:
            seen.append((call.op.name, call.args[0].dtype))

        def after(self, call: Any, result: Any) -> None: ...

    with xb.observe(Watch()):
        layer.forward(np.ones((3, 1, 2), np.float32))
    assert {dtype for name, dtype in seen if name == "lstm_forward"} == {np.dtype("float32")}


@pytest.mark.parametrize("kind", ["scaled_dot_product", "multihead"])
def test_gradients_of_float_masks(kind: str) -> None:
    mask, x = np.float32([[0.0, 0.5], [-0.5, 0.0]]), np.eye(2, dtype=np.float32)[None]
    grads = []
    for precision in ("float32", "bfloat16"):
        layer: Any = nn.ScaledDotProductAttention()
        if kind == "multihead":
            layer = nn.MultiheadAttention(2, 1, batch_first=True, rng=0)
        xb.set_precision(layer, precision)
        _output, saved = layer.forward(x, x, x, attn_mask=mask)
        grad: Any = np.ones((1, 2, 2), np.float32) * x
        grads.append(layer.backward((grad, None) if kind == "multihead" else grad, saved)[-1])
    np.testing.assert_allclose(grads[1], grads[0], rtol=0.05, atol=1e-3)


def test_losses_are_float32_of_half_logits(xb_device: Device) -> None:
    model, loss_fn = nn.Linear(3, 4, rng=0), nn.CrossEntropyLoss()
    xb.set_precision(model, "bfloat16")
    rng = np.random.default_rng(0)
    x, y = xb.asarray(rng.normal(size=(8, 3))), xb.asarray(rng.integers(0, 4, 8))
    loss, output = xb.value_and_grad(model, loss_fn)(x, y)
    logits = xb.to_host(output)
    assert output.dtype == np.float32
    assert np.array_equal(logits, logits.astype(half_dtype("bfloat16")).astype(np.float32))
    expected = nn.CrossEntropyLoss()(logits, xb.to_host(y))
    assert float(loss) == pytest.approx(float(expected), rel=1e-6)
    inside = nn.MSELoss()  # as part of a model it keeps its digits, too
    xb.set_precision(nn.ModuleList([inside]), "bfloat16")
    ones = xb.asarray(np.ones((3, 1)))
    assert float(inside(ones * 1.00390625, ones)) == pytest.approx(2.0**-16)


# --- masters and copies -------------------------------------------------------------------


@every_half
def test_masters_stay_float32_and_copies_follow(half: str, xb_device: Device) -> None:
    model = mlp()
    xb.set_precision(model, half)
    optimizer = xb.optim.AdamW(model.parameters(), lr=0.01)
    x, y = xb.asarray(np.ones((4, 64))), xb.asarray(np.arange(4))
    for change in (
        lambda: optimizer.step(),
        lambda: model.load_state_dict({k: v + 1 for k, v in model.state_dict().items()}),
        lambda: setattr(model[0].weight, "data", model[0].weight.data * 3),
        lambda: optimizer.step(),
    ):
        optimizer.zero_grad()
        xb.value_and_grad(model, nn.CrossEntropyLoss())(x, y)
        change()
        for name, parameter in model.named_parameters():
            master, value = xb.to_host(parameter.data), xb.to_host(parameter.value)
            assert master.dtype == xb.to_host(parameter.grad).dtype == np.float32
            is_norm = name.startswith("1.")
            assert value.dtype == (np.float32 if is_norm else half_dtype(half)), name
            assert np.array_equal(value, master.astype(value.dtype)), name
    assert all(values.dtype == np.float32 for values in model.state_dict().values())
    (flat,) = (flat for flat in optimizer._flats if flat.half is not None)
    assert flat.half_of(flat.data) is flat.half
    for parameter, half_view in zip(flat.parameters, flat.halves, strict=True):
        assert parameter.value is half_view is flat.half_of(parameter.data)


@every_half
def test_a_cache_of_keys_gives_the_logits_of_the_model(half: str, xb_device: Device) -> None:
    model = gpt().eval()
    for parameter in model.parameters():
        parameter.data = parameter.data * 8
    xb.set_precision(model, half)
    tokens = xb.asarray(np.array([[1, 2, 3, 4]]))
    expected, cache = xb.to_host(model(tokens)[:, -1]), KeyValueCache(model)
    for position in range(4):
        logits = next_logits(model, tokens[:, position : position + 1], cache)
    assert logits.dtype == np.float32
    unit = 2.0 ** (-8 if half == "bfloat16" else -11)
    allowed = 8 * unit * float(np.abs(expected).max())
    np.testing.assert_allclose(xb.to_host(logits), expected, rtol=0, atol=allowed)


def test_another_precision_between_two_steps(xb_device: Device) -> None:
    model = mlp()
    optimizer = xb.optim.AdamW(model.parameters(), lr=0.01)
    x, y = xb.asarray(np.ones((4, 64))), xb.asarray(np.arange(4))
    for precision in ("float16", "bfloat16", "float32", "float16"):
        xb.set_precision(model, precision)
        optimizer.zero_grad()
        xb.value_and_grad(model, nn.CrossEntropyLoss())(x, y)
        optimizer.step()
        values = [xb.to_host(model[n].weight.value) for n in (0, 3)]
        masters = [xb.to_host(model[n].weight.data) for n in (0, 3)]
        for value, master in zip(values, masters, strict=True):
            assert value.dtype.name == precision
            assert np.array_equal(value, master.astype(value.dtype))
        assert all((flat.half is None) == (precision == "float32") for flat in optimizer._flats
                   if flat.parameters[0] is model[0].weight)  # fmt: skip


@every_half
def test_copies_pickles_and_the_way_back(half: str) -> None:
    model = mlp()
    xb.set_precision(model, half)
    x = np.ones((2, 64), np.float32)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert other[0].weight.value.dtype == half_dtype(half)
        assert np.array_equal(other(x), model(x))
    with pytest.raises(RuntimeError, match="set_precision"):
        model.to(dtype="float64")
    xb.set_precision(model, "float32")
    assert model[0].weight.value is model[0].weight.data
    assert np.array_equal(model(x), mlp()(x))
    model.to(dtype="float64")


def test_moving_between_devices(xb_device: Device) -> None:
    with xb.use_device("cpu"):
        model = mlp()
        xb.set_precision(model, "bfloat16")
    x = np.ones((2, 64), np.float32)
    expected = model(x)
    model.to(xb_device)
    np.testing.assert_allclose(xb.to_host(model(xb.asarray(x))), expected, rtol=1e-2, atol=1e-2)


def test_tied_frozen_and_averaged(xb_device: Device) -> None:
    first, second = nn.Linear(4, 4, rng=0), nn.Linear(4, 4, rng=1)
    second.weight = first.weight
    model = nn.Sequential(first, second)
    first.bias.requires_grad = False
    trainer = xb.Trainer(
        model, nn.MSELoss(), xb.optim.SGD(model.parameters(), lr=0.1), precision="float16"
    )
    average = xb.optim.swa_utils.AveragedModel(model)
    x = np.ones((4, 4), np.float32)
    before = model.state_dict()
    for _ in range(3):  # the first may overflow
        trainer.step(x, 2 * x)
    average.update_parameters(model)
    after = model.state_dict()
    assert np.array_equal(before["0.bias"], after["0.bias"])
    assert not np.array_equal(before["0.weight"], after["0.weight"])
    device_x = xb.asarray(x)
    assert np.array_equal(xb.to_host(average(device_x)), xb.to_host(model(device_x)))


def test_a_recomputed_part_gives_the_same_gradients(xb_device: Device) -> None:
    x, y = xb.asarray(np.ones((4, 64))), xb.asarray(np.arange(4))
    grads = []
    for model in (mlp(), nn.Recompute(mlp())):
        xb.set_precision(model, "bfloat16")
        xb.value_and_grad(model, nn.CrossEntropyLoss())(x, y)
        grads.append([xb.to_host(p.grad).tobytes() for p in model.parameters()])
    assert grads[0] == grads[1]


def test_gradients_have_the_dtype_of_inputs_and_outputs_are_float32(xb_device: Device) -> None:
    layer = nn.Linear(2, 3, rng=0)
    xb.set_precision(layer, "bfloat16")
    for dtype in ("float32", half_dtype("bfloat16")):
        x = xb.asarray(np.ones((4, 2)), dtype="float32").astype(dtype)
        output, saved = layer.forward(x)
        assert output.dtype == np.float32
        assert layer.backward(output, saved).dtype == x.dtype


# --- refusals -----------------------------------------------------------------------------


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="one of float32, tf32, bfloat16, float16; got 'half'"):
        xb.set_precision(mlp(), "half")
    with pytest.raises(TypeError, match="float32 parameters; weight of Linear is float64"):
        xb.set_precision(nn.Linear(1, 1, dtype="float64"), "float16")
    with pytest.raises(RuntimeError, match=r"weight of LazyLinear \(0\) is not known yet"):
        xb.set_precision(nn.Sequential(nn.LazyLinear(2)), "float16")
    with pytest.raises(NotImplementedError, match=r"Embedding \(0\) with max_norm"):
        xb.set_precision(nn.Sequential(nn.Embedding(2, 2, max_norm=1.0)), "float16")
    linear, norm = nn.Linear(3, 3), nn.LayerNorm(3)
    norm.bias = linear.bias
    with pytest.raises(NotImplementedError, match="bias of LayerNorm is shared"):
        xb.set_precision(nn.Sequential(linear, norm), "float16")
    assert linear.weight.value is linear.weight.data


@pytest.mark.parametrize("device", ["cpu", "fake"])
def test_tf32_is_refused_where_there_is_none(device: str) -> None:
    told = f"'tf32' on {device}.*only GPUs have TF32"
    with xb.use_device(device), pytest.raises(NotImplementedError, match=told):
        xb.set_precision(mlp(), "tf32")


def test_bfloat16_without_ml_dtypes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ml_dtypes", None)
    with pytest.raises(ImportError, match=r"pip install 'xbackprop\[half\]'"):
        xb.set_precision(mlp(), "bfloat16")
    xb.set_precision(mlp(), "float16")  # which NumPy knows by itself


# --- training -----------------------------------------------------------------------------


class LastState(nn.Module):
    """An LSTM whose last output is classified."""

    def __init__(self) -> None:
        self.lstm = nn.LSTM(8, 24, batch_first=True, rng=0)
        self.head = nn.Linear(24, 10, rng=1)

    def forward(self, x: Any) -> Any:
        (states, _), lstm_saved = self.lstm.forward(x.reshape(len(x), 8, 8))
        output, head_saved = self.head.forward(states[:, -1])
        return output, (lstm_saved, head_saved, states.shape)

    def backward(self, grad_output: Any, saved: Any, *, input_grad: bool = True) -> Any:
        lstm_saved, head_saved, shape = saved
        grad_last = self.head.backward(grad_output, head_saved)
        grad = xb.get_array_module(grad_last).zeros(shape, dtype=grad_last.dtype)
        grad[:, -1] = grad_last
        return self.lstm.backward((grad, None), lstm_saved, input_grad=False)


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(128, 10), rng=0,
    )  # fmt: skip


def digits(count: int) -> tuple[Any, Any]:
    data = xb.data.load_digits()
    return data.x_train[:count].astype(np.float32), data.y_train[:count]


def text(count: int) -> tuple[Any, Any]:
    tokens = np.cumsum(np.random.default_rng(0).integers(0, 3, (count, 17)), axis=1) % 12
    return tokens[:, :-1], tokens[:, 1:]


def gpt() -> nn.Module:
    return nn.GPT(12, 16, num_layers=2, num_heads=2, embed_dim=24, rng=0)


NETWORKS = {
    "mlp": (mlp, nn.CrossEntropyLoss, digits),
    "cnn": (cnn, nn.CrossEntropyLoss, digits),
    "lstm": (LastState, nn.CrossEntropyLoss, digits),
    "gpt": (gpt, nn.TokenCrossEntropyLoss, text),
}


def train(name: str, precision: str, count: int, epochs: int) -> xb.Trainer:
    make, make_loss, data = NETWORKS[name]
    model = make()
    optimizer = xb.optim.AdamW(model.parameters(), lr=0.005)
    # Down to 0, so that the last loss is that of a place and not of a step around it.
    schedule = xb.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * count // 32)
    trainer = xb.Trainer(
        model, make_loss(), optimizer, precision=precision, scheduler=schedule,
        scheduler_interval="step",
    )  # fmt: skip
    trainer.fit(*data(count), epochs=epochs, batch_size=32, rng=0)
    return trainer


@pytest.mark.parametrize("name", list(NETWORKS))
def test_training_reaches_the_loss_of_float32(name: str) -> None:
    x, y = NETWORKS[name][2](512)
    losses = {}
    for precision in ("float32", *HALVES):
        trainer = train(name, precision, 512, epochs=4)
        losses[precision] = trainer.evaluate(x, y).loss
        assert sum(row.skipped_steps for row in trainer.history) == 0
    assert losses["float32"] < 0.9 * np.log(10)  # it learns something
    for half in HALVES:
        assert losses[half] == pytest.approx(losses["float32"], rel=0.01), half


@every_half
@pytest.mark.parametrize("name", list(NETWORKS))
def test_a_run_on_the_stand_in_is_that_of_the_cpu(name: str, half: str) -> None:
    weights = []
    for device in ("cpu", "fake"):
        with xb.use_device(device), xb.use_references():  # those of the CPU's kernels are close
            trainer = train(name, half, 64, epochs=1)
            weights.append({k: v.tobytes() for k, v in trainer.model.state_dict().items()})
    assert weights[0] == weights[1]


@every_half
@pytest.mark.parametrize("name", list(NETWORKS))
@pytest.mark.xb_budget(downloads=0)
def test_a_step_crosses_nothing(name: str, half: str) -> None:
    with xb.use_device("fake"):
        make, make_loss, data = NETWORKS[name]
        model = make()
        optimizer = xb.optim.AdamW(model.parameters(), lr=0.005)
        trainer = xb.Trainer(model, make_loss(), optimizer, precision=half, clip_norm=1.0)
        x, y = (xb.asarray(array) for array in data(8))
        trainer.step(x, y)
        with xb.transfer_guard():
            trainer.step(x, y)
            trainer.step(x, y)


def test_predictions_and_losses_are_float32() -> None:
    trainer = train("mlp", "bfloat16", 64, epochs=1)
    x, y = digits(64)
    assert trainer.predict(x).dtype == np.float32
    assert trainer.step(x[:8], y[:8]).dtype == np.float32


@every_half
def test_a_resumed_run_is_bit_equal(half: str, tmp_path: Path, xb_device: Device) -> None:
    def made() -> xb.Trainer:
        model = mlp()
        return xb.Trainer(
            model, nn.CrossEntropyLoss(), xb.optim.Adam(model.parameters(), lr=0.01),
            precision=half, accumulation_steps=2,
        )  # fmt: skip

    def stop(trainer: xb.Trainer) -> Any:
        return lambda done, total: trainer.request_stop() if done == 3 else None

    x, y = digits(160)
    whole, first, second = made(), made(), made()
    whole.fit(x, y, epochs=2, batch_size=32, rng=0)
    first.fit(x, y, epochs=2, batch_size=32, rng=0, on_batch=stop(first))
    first.save(tmp_path / "it")
    second.resume(tmp_path / "it").fit(x, y, epochs=2, batch_size=32, rng=0)
    for key, values in whole.model.state_dict().items():
        assert values.dtype == np.float32
        assert values.tobytes() == second.model.state_dict()[key].tobytes(), key
    if half == "float16":
        assert whole.scaler.state_dict() == second.scaler.state_dict()
    rows = [[row.skipped_steps for row in trainer.history] for trainer in (whole, second)]
    assert rows[0] == rows[1]
    other = mlp()
    plain = xb.Trainer(
        other, nn.CrossEntropyLoss(), xb.optim.Adam(other.parameters()), accumulation_steps=2
    )
    with pytest.raises(CheckpointError, match=f"precision: saved {half}, here float32"):
        plain.resume(tmp_path / "it")
