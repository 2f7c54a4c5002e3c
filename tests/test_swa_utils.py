"""Averages of weights: of equal weights, exponential, by hand; their state; batch statistics."""

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xbackprop as xb
from xbackprop.backend.device import Device

nn, swa = xb.nn, xb.optim.swa_utils


def make_model() -> nn.Module:
    return nn.Sequential(
        nn.Linear(3, 4), nn.Dropout(0.5), nn.BatchNorm1d(4), nn.Linear(4, 2), rng=0
    )


def change(model: nn.Module, number: int) -> None:
    """Give the weights and buffers other values."""
    rng = np.random.default_rng([7, number])
    state = model.state_dict()
    for name, values in state.items():
        drawn = rng.normal(size=values.shape)
        state[name] = np.asarray(10 * number if values.dtype.kind == "i" else drawn)
    model.load_state_dict(state)


AVERAGES = {
    "equal by default": {},
    "equal": {"avg_fn": swa.get_swa_avg_fn()},
    "equal, many at once": {"multi_avg_fn": swa.get_swa_multi_avg_fn()},
    "exponential": {"avg_fn": swa.get_ema_avg_fn(0.7)},
    "exponential, many at once": {"multi_avg_fn": swa.get_ema_multi_avg_fn(0.7)},
    "by hand": {"avg_fn": lambda averaged, current, count: averaged * 0.7 + current * 0.3},
}
every_average = pytest.mark.parametrize("options", AVERAGES.values(), ids=AVERAGES)


def expected_of(values: list[np.ndarray], options: dict[str, Any]) -> np.ndarray:
    if options in (
        AVERAGES["equal by default"],
        AVERAGES["equal"],
        AVERAGES["equal, many at once"],
    ):
        return np.mean(values, axis=0)
    average = values[0]
    for value in values[1:]:
        average = 0.7 * average + 0.3 * value
    return average


@pytest.mark.parametrize("use_buffers", [False, True])
@every_average
def test_average(options: dict[str, Any], use_buffers: bool, xb_device: Device) -> None:
    model = make_model()
    averaged = swa.AveragedModel(model, **options, use_buffers=use_buffers)
    states = []
    for number in range(5):
        change(model, number)
        states.append(model.state_dict())
        with xb.transfer_guard(uploads=0, downloads=0, synchronizations=0):
            averaged.update_parameters(model)
    received = averaged.state_dict()
    assert received.pop("n_averaged") == 5
    assert {f"module.{name}" for name in states[0]} == received.keys()
    for name in states[0]:
        got = received[f"module.{name}"]
        assert got.dtype == states[0][name].dtype
        if "running" in name and not use_buffers:
            expected = states[-1][name]
        elif "num_batches" in name:
            continue
        else:
            expected = expected_of([state[name] for state in states], options)
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6, err_msg=name)
    # Whole numbers stay whole at each update, as in PyTorch: 0, 3, 8, 14, 21 with the exponential.
    is_equal = expected_of([0.0, 1.0], options) == 0.5
    count = 40 if not use_buffers else 20 if is_equal else 21
    assert received["module.2.num_batches_tracked"] == count


@every_average
def test_first_update_copies(options: dict[str, Any], xb_device: Device) -> None:
    model = make_model()
    averaged = swa.AveragedModel(model, **options, use_buffers=True)
    change(model, 3)
    averaged.update_parameters(model)
    for name, values in model.state_dict().items():
        assert averaged.state_dict()[f"module.{name}"].tobytes() == values.tobytes(), name


def test_a_function_that_fails_on_a_count_of_zero_is_not_heard(xb_device: Device) -> None:
    model = nn.Linear(2, 1, rng=0)
    averaged = swa.AveragedModel(
        model, avg_fn=lambda averaged, current, count: averaged + current / count.astype("float32")
    )
    averaged.update_parameters(model)
    averaged.update_parameters(model)
    np.testing.assert_allclose(
        averaged.state_dict()["module.weight"], 2 * model.state_dict()["weight"], rtol=1e-6
    )


def test_averaging_leaves_the_model_and_its_training_alone(xb_device: Device) -> None:
    results = []
    for is_averaged in (False, True):
        model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2), rng=0)
        optimizer = xb.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        averaged = swa.AveragedModel(model) if is_averaged else None
        for step in range(4):
            optimizer.zero_grad()
            x = xb.asarray(np.random.default_rng(step).normal(size=(5, 3)))
            xb.value_and_grad(model, nn.MSELoss())(x, x[:, :2])
            optimizer.step()
            if averaged is not None:
                averaged.update_parameters(model)
        results.append({k: v.tobytes() for k, v in model.state_dict().items()})
    assert results[0] == results[1]


def test_it_is_a_module_like_any_other(xb_device: Device) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2), rng=0)
    averaged = swa.AveragedModel(model)
    averaged.update_parameters(model)
    x = xb.asarray(np.ones((2, 3)))
    np.testing.assert_array_equal(xb.to_host(averaged(x)), xb.to_host(model(x)))
    gradients = []
    for each in (averaged, model):
        output, saved = each.forward(x)
        gradients.append(xb.to_host(each.backward(output, saved)))
    np.testing.assert_array_equal(*gradients)
    assert {name for name, _ in averaged.named_parameters()} == {
        f"module.{name}" for name, _ in model.named_parameters()
    }
    assert averaged.module[0].weight is not model[0].weight
    gradient = averaged.module[0].weight.grad
    assert swa.AveragedModel(averaged.module).module[0].weight.grad is None
    assert gradient is not None


def test_old_saved_arrays_are_stale_after_an_update(xb_device: Device) -> None:
    model = nn.Linear(3, 2, rng=0)
    averaged = swa.AveragedModel(model)
    output, saved = averaged.forward(xb.asarray(np.ones((2, 3))))
    averaged.update_parameters(model)
    with pytest.raises(RuntimeError, match="changed since the forward"):
        averaged.backward(output, saved)


@pytest.mark.parametrize("carry", [copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))])
@pytest.mark.parametrize(
    "options", [AVERAGES["equal by default"], AVERAGES["exponential, many at once"]]
)
def test_copies_go_on_alike(options: dict[str, Any], carry: Any, xb_device: Device) -> None:
    model = make_model()
    averaged = swa.AveragedModel(model, **options)
    for number in range(4):
        change(model, number)
        averaged.update_parameters(model)
        if number == 1:
            copied = carry(averaged).to(xb_device)
        elif number > 1:
            copied.update_parameters(model)
    for name, values in averaged.state_dict().items():
        assert copied.state_dict()[name].tobytes() == values.tobytes(), name


def test_state_goes_on_in_another(xb_device: Device, tmp_path: Path) -> None:
    model = make_model()
    averaged, other = swa.AveragedModel(model), swa.AveragedModel(model)
    for number in range(3):
        change(model, number)
        averaged.update_parameters(model)
    other.load_state_dict(averaged.state_dict())
    xb.save(tmp_path / "it", averaged)
    loaded = xb.load(tmp_path / "it", types=[swa.AveragedModel]).model
    change(model, 9)
    for each in (averaged, other, loaded):
        each.update_parameters(model)
        assert each.state_dict()["n_averaged"] == 4
    for name, values in averaged.state_dict().items():
        assert other.state_dict()[name].tobytes() == values.tobytes(), name
        assert loaded.state_dict()[name].tobytes() == values.tobytes(), name


def test_the_average_may_live_elsewhere() -> None:
    with xb.use_device("fake"):
        model = make_model()
        averaged = swa.AveragedModel(model, device="cpu")
        for number in range(3):
            change(model, number)
            averaged.update_parameters(model)
    assert str(averaged.device) == "cpu"
    here = swa.AveragedModel(make_model(), device="cpu")
    for number in range(3):
        model = make_model()
        change(model, number)
        here.update_parameters(model)
    for name, values in averaged.state_dict().items():
        assert here.state_dict()[name].tobytes() == values.tobytes(), name


def test_what_does_not_correspond_changes_nothing(xb_device: Device) -> None:
    averaged = swa.AveragedModel(make_model(), use_buffers=True)
    before = averaged.state_dict()
    less = make_model()
    less[2] = nn.BatchNorm1d(4, track_running_stats=False)
    for other, what in ((nn.Linear(3, 4, rng=0), "parameters"), (less, "buffers")):
        with pytest.raises(ValueError, match=f"expects {what} of shapes"):
            averaged.update_parameters(other)
    assert averaged.state_dict().keys() == before.keys()
    assert all(a.tobytes() == before[k].tobytes() for k, a in averaged.state_dict().items())


def test_what_makes_no_sense_is_refused() -> None:
    for make in (swa.get_ema_avg_fn, swa.get_ema_multi_avg_fn):
        for decay in (-0.1, 1.1, float("nan")):
            with pytest.raises(ValueError, match=r"decay in \[0, 1\]"):
                make(decay)
    with pytest.raises(ValueError, match="got both"):
        swa.AveragedModel(
            nn.Linear(1, 1), avg_fn=swa.get_swa_avg_fn(), multi_avg_fn=swa.get_swa_multi_avg_fn()
        )


# --- update_bn ------------------------------------------------------------------------------


def batches(dtype: Any = np.float32) -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    return [rng.normal(1.0, 2.0, size=(6, 3)).astype(dtype) for _ in range(4)]


def test_update_bn_averages_all_batches(xb_device: Device) -> None:
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2), rng=0)
    model[0].load_state_dict(
        {"running_mean": np.full(3, 9.0), "running_var": np.full(3, 9.0),
         "num_batches_tracked": np.array(5)},
        strict=False,
    )  # fmt: skip
    model.eval()
    loader = [(xb.asarray(batch), "a label") for batch in batches()]
    swa.update_bn(loader, model)
    state = model[0].state_dict()
    np.testing.assert_allclose(
        state["running_mean"], np.mean([b.mean(0) for b in batches()], axis=0), rtol=1e-5
    )
    np.testing.assert_allclose(
        state["running_var"], np.mean([b.var(0, ddof=1) for b in batches()], axis=0), rtol=1e-5
    )
    assert state["num_batches_tracked"] == 4
    assert (model[0].momentum, model.training, model[0].training) == (0.1, False, False)


def test_update_bn_moves_batches_when_asked(xb_device: Device) -> None:
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2), rng=0)
    swa.update_bn(batches(), model, device=xb_device)
    assert model[0].state_dict()["num_batches_tracked"] == 4
    assert model.training


def test_update_bn_restores_what_it_set_after_an_error(xb_device: Device) -> None:
    model = nn.Sequential(nn.BatchNorm1d(1), nn.Linear(3, 2), rng=0).eval()
    with pytest.raises(ValueError, match="expects x of shape"):
        swa.update_bn([xb.asarray(np.ones((2, 1)))], model)
    assert (model[0].momentum, model.training) == (0.1, False)


@pytest.mark.parametrize(
    "model",
    [nn.Linear(2, 2, device="cpu"), nn.InstanceNorm1d(2, track_running_stats=True, device="cpu")],
    ids=["Linear", "InstanceNorm1d"],
)
def test_update_bn_of_a_model_without_does_nothing(model: nn.Module) -> None:
    swa.update_bn(iter([1, 2]), model)
