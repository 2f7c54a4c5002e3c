"""What happens around the steps of a training leaves every bit of its weights as it would be.

One course of training, with momentum, running means and dropout masks, is interrupted half way:
pickled, copied, moved, restored, given a second optimizer, refused a batch.
"""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from optimizer_cases import OPTIMIZERS, OptimizerCase

import xbackprop as xb
from xbackprop.backend.device import Device

nn = xb.nn
# Those that differ in what they remember; half of them with counts of steps that part ways.
PART_WAYS = {
    "SGD": True,
    "SGD with momentum": False,
    "SGD with dampening": True,
    "Adam": True,
    "Adam with AMSGrad": False,
    "AdamW": False,
    "AdamW with AMSGrad": True,
    "NAdam": True,
    "NAdam with weight decay": False,
    "Adagrad with a decaying rate": True,
    "RMSprop with everything": False,
    "Rprop": True,
    "ASGD that averages": True,
    "ASGD maximizing": False,
    "Adafactor": True,
    "Muon": False,
    "Lion": True,
}
every_optimizer = pytest.mark.parametrize(
    "case",
    [case for case in OPTIMIZERS if case.name in PART_WAYS],
    ids=lambda case: case.name.replace(" ", "-"),
)
STEPS, HALF_WAY = 6, 3
Course = tuple[nn.Module, Any]  # model and optimizer


def make_model() -> nn.Module:
    return nn.Sequential(
        nn.Linear(4, 6), nn.Tanh(), nn.Dropout(0.4), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3),
        rng=0,
    )  # fmt: skip


def batch(step: int) -> tuple[Any, Any]:
    rng = np.random.default_rng([2, step])
    x = rng.normal(size=(8, 4)).astype(np.float32)
    return xb.to_device(x), xb.to_device(rng.integers(0, 3, size=8))


def one_step(case: OptimizerCase, model: nn.Module, optimizer: Any, step: int) -> None:
    optimizer.zero_grad()
    compute = xb.value_and_grad(model, nn.CrossEntropyLoss())
    model[3].requires_grad_(not (PART_WAYS[case.name] and step == 2))
    compute(*batch(step))
    optimizer.step()
    model[3].requires_grad_(True)


def train(
    case: OptimizerCase, interrupt: Callable[[Course, OptimizerCase], Course] | None = None
) -> dict[str, bytes]:
    """Return weights, dropout counter and optimizer state after all steps."""
    model = make_model()
    optimizer = case.make(case.trainable(model.parameters()))
    for step in range(STEPS):
        if step == HALF_WAY and interrupt is not None:
            model, optimizer = interrupt((model, optimizer), case)
        one_step(case, model, optimizer, step)
    return everything(model, optimizer)


def everything(model: nn.Module, optimizer: Any) -> dict[str, bytes]:
    found = {**model.state_dict(), **model.extra_state()}
    for number, entry in optimizer.state_dict()["state"].items():
        found |= {f"{number}.{name}": np.asarray(value) for name, value in entry.items()}
    return {name: array.tobytes() for name, array in found.items()}


# --- interruptions ------------------------------------------------------------------------


def pickled_together(course: Course, case: OptimizerCase) -> Course:
    model, optimizer = pickle.loads(pickle.dumps(course))
    return model.to(xb.default_device()), optimizer


def pickled_optimizer_first(course: Course, case: OptimizerCase) -> Course:
    optimizer, model = pickle.loads(pickle.dumps(course[::-1]))
    return model.to(xb.default_device()), optimizer


def pickled_model_and_fresh_optimizer(course: Course, case: OptimizerCase) -> Course:
    model = pickle.loads(pickle.dumps(course[0])).to(xb.default_device())
    return model, resumed(case, model, course[1])


def pickled_aside(course: Course, case: OptimizerCase) -> Course:
    pickle.dumps(course[0])
    pickle.dumps(course)
    return course


def copied_together(course: Course, case: OptimizerCase) -> Course:
    return copy.deepcopy(course)


def copied_model_and_fresh_optimizer(course: Course, case: OptimizerCase) -> Course:
    model = copy.deepcopy(course[0])
    return model, resumed(case, model, course[1])


def copied_aside(course: Course, case: OptimizerCase) -> Course:
    """A copy trains on other data meanwhile; neither may see the other."""
    model, optimizer = copy.deepcopy(course)
    before = everything(*course)
    for step in range(20, 23):
        one_step(case, model, optimizer, step)
    assert everything(*course) == before
    assert everything(model, optimizer) != before
    return course


def other_device() -> str:
    place = xb.default_device()
    if place.kind == "cuda":
        return "cpu"
    return "fake" if place.kind == "cpu" else f"fake:{place.index + 1}"


def moved_there_and_back(course: Course, case: OptimizerCase) -> Course:
    here = xb.default_device()
    course[0].to(other_device()).to(here)
    return course


def moved_for_one_step_without_effect(course: Course, case: OptimizerCase) -> Course:
    """The state moves as well, because a step is made there: one that has nothing to do."""
    model, optimizer = course
    here = xb.default_device()
    model.to(other_device())
    optimizer.zero_grad()
    optimizer.step()
    model.to(here)
    return course


def cast_there_and_back(course: Course, case: OptimizerCase) -> Course:
    model, optimizer = course
    model.to(dtype=np.float64)
    optimizer.zero_grad()
    optimizer.step()
    model.to(dtype=np.float32)
    return course


def model_state_loaded(course: Course, case: OptimizerCase) -> Course:
    course[0].load_state_dict(course[0].state_dict())
    course[0].load_extra_state(course[0].extra_state())
    return course


def model_state_loaded_into_another(course: Course, case: OptimizerCase) -> Course:
    model = make_model()
    model.load_state_dict(course[0].state_dict())
    model.load_extra_state(course[0].extra_state())
    return model, resumed(case, model, course[1])


def optimizer_state_loaded(course: Course, case: OptimizerCase) -> Course:
    course[1].load_state_dict(course[1].state_dict())
    return course


def optimizer_replaced(course: Course, case: OptimizerCase) -> Course:
    return course[0], resumed(case, *course)


def optimizer_replaced_by_one_in_use(course: Course, case: OptimizerCase) -> Course:
    """State that the other optimizer gathered on other parameters is forgotten."""
    model = make_model()
    optimizer = case.make(case.trainable(model.parameters()), lr=0.5)
    one_step(case, model, optimizer, 30)
    model.load_state_dict(course[0].state_dict())
    model.load_extra_state(course[0].extra_state())
    optimizer.load_state_dict(course[1].state_dict())
    return model, optimizer


def second_optimizer(course: Course, case: OptimizerCase) -> Course:
    """It takes over the storage of the weights, and moves them by nothing."""
    other = xb.optim.SGD(course[0].parameters(), lr=0.0)
    other.step()
    return course


def second_optimizer_of_some(course: Course, case: OptimizerCase) -> Course:
    other = xb.optim.Adam(list(course[0].parameters())[1:3], lr=0.0)
    other.step()
    return course


def storage_replaced(course: Course, case: OptimizerCase) -> Course:
    for parameter in course[0].parameters():
        parameter.data = parameter.data.copy()
    return course


def frozen_for_one_step_without_gradient(course: Course, case: OptimizerCase) -> Course:
    model, optimizer = course
    optimizer.zero_grad()
    model[0].requires_grad_(False)
    optimizer.step()
    model[0].requires_grad_(True)
    return course


def inference_in_between(course: Course, case: OptimizerCase) -> Course:
    model = course[0].eval()
    model(batch(40)[0])
    model.train()
    return course


def refused_by_a_layer(course: Course, case: OptimizerCase) -> Course:
    """Behind the dropout, so that its counter has moved inside the call."""
    model = course[0]
    fitting, layers = model[5].in_features, model[5]
    layers.in_features = fitting + 1
    with pytest.raises(ValueError, match=r"Linear .* expects x of shape \(..., 7\)"):
        model.forward(batch(41)[0])
    layers.in_features = fitting
    return course


def refused_by_the_loss(course: Course, case: OptimizerCase) -> Course:
    x, y = batch(42)
    with pytest.raises(ValueError, match="expect a target of shape"):
        xb.value_and_grad(course[0], nn.CrossEntropyLoss())(x, y[:-1])
    return course


def refused_by_the_trainer(course: Course, case: OptimizerCase) -> Course:
    model, optimizer = course
    trainer = xb.Trainer(model, nn.CrossEntropyLoss(), optimizer)
    x, y = batch(43)
    for wrong_x, wrong_y in ((x, y[:-1]), (x[:, :-1], y), (x, xb.to_host(y) + 3)):
        with pytest.raises(ValueError, match="expect"):
            trainer.step(wrong_x, wrong_y)
    assert trainer.steps == 0
    optimizer.skip_nonfinite = optimizer.stop_at_nonfinite = False
    return course


INTERRUPTIONS = [
    pickled_together,
    pickled_optimizer_first,
    pickled_model_and_fresh_optimizer,
    pickled_aside,
    copied_together,
    copied_model_and_fresh_optimizer,
    copied_aside,
    moved_there_and_back,
    moved_for_one_step_without_effect,
    cast_there_and_back,
    model_state_loaded,
    model_state_loaded_into_another,
    optimizer_state_loaded,
    optimizer_replaced,
    optimizer_replaced_by_one_in_use,
    second_optimizer,
    second_optimizer_of_some,
    storage_replaced,
    frozen_for_one_step_without_gradient,
    inference_in_between,
    refused_by_a_layer,
    refused_by_the_loss,
    refused_by_the_trainer,
]


def resumed(case: OptimizerCase, model: nn.Module, earlier: Any) -> Any:
    optimizer = case.make(case.trainable(model.parameters()), lr=123.0)
    optimizer.load_state_dict(earlier.state_dict())
    return optimizer


@pytest.fixture(scope="module")
def undisturbed() -> Callable[[OptimizerCase], dict[str, bytes]]:
    """Return the course without any interruption, computed once per optimizer and device."""
    known: dict[tuple[str, str], dict[str, bytes]] = {}

    def get(case: OptimizerCase) -> dict[str, bytes]:
        key = (case.name, str(xb.default_device()))
        if key not in known:
            known[key] = train(case)
        return known[key]

    return get


@pytest.mark.parametrize("interrupt", INTERRUPTIONS)
@every_optimizer
def test_training_goes_on_as_if_nothing_had_happened(
    case: OptimizerCase,
    interrupt: Callable[[Course, OptimizerCase], Course],
    undisturbed: Any,
    xb_device: Device,
) -> None:
    expected, received = undisturbed(case), train(case, interrupt)
    assert expected.keys() == received.keys()
    assert [name for name in expected if expected[name] != received[name]] == []


@every_optimizer
def test_training_goes_on_elsewhere_with_the_same_bits(case: OptimizerCase) -> None:
    with xb.use_device("cpu"):
        expected = train(case)
    places = ["cpu", "fake", "fake:1", "cpu", "fake:1", "cpu"]
    model = make_model()
    optimizer = case.make(case.trainable(model.parameters()))
    for step, place in enumerate(places):
        with xb.use_device(place):
            model.to(place)
            one_step(case, model, optimizer, step)
    assert everything(model, optimizer) == expected


@every_optimizer
def test_optimizer_made_before_the_model_moves(case: OptimizerCase, xb_device: Device) -> None:
    expected = train(case)
    with xb.use_device("cpu" if xb_device.kind != "cpu" else "fake"):
        model = make_model()
        optimizer = case.make(case.trainable(model.parameters()))
    model.to(xb_device)
    for step in range(STEPS):
        one_step(case, model, optimizer, step)
    assert everything(model, optimizer) == expected


@every_optimizer
def test_group_added_on_the_way(case: OptimizerCase, xb_device: Device) -> None:
    """The first group keeps its state; the second starts like one that had no gradient before."""
    expected_model, model = make_model(), make_model()
    expected = case.make(
        [{"params": case.trainable(expected_model[i].parameters())} for i in (0, 5)]
    )
    optimizer = case.make(case.trainable(model[0].parameters()))
    for step in range(STEPS):
        if step == HALF_WAY:
            optimizer.add_param_group({"params": case.trainable(model[5].parameters())})
        for trained, by in ((expected_model, expected), (model, optimizer)):
            trained.zero_grad()
            xb.value_and_grad(trained, nn.CrossEntropyLoss())(*batch(step))
            if step < HALF_WAY:
                trained[5].zero_grad()
            by.step()
    assert everything(model, optimizer) == everything(expected_model, expected)


# --- several uses before one step ---------------------------------------------------------


@every_optimizer
def test_two_interleaved_forwards(case: OptimizerCase, xb_device: Device) -> None:
    results = []
    for order in ("one after the other", "interleaved", "backwards crossed"):
        model = make_model()
        optimizer = case.make(case.trainable(model.parameters()))
        for step in range(3):
            (x1, _), (x2, _) = batch(2 * step), batch(2 * step + 1)
            optimizer.zero_grad()
            output1, saved1 = model.forward(x1)
            if order == "one after the other":
                model.backward(output1 * 0.5, saved1)
            output2, saved2 = model.forward(x2)
            if order == "interleaved":
                model.backward(output1 * 0.5, saved1)
            model.backward(output2 * 0.25, saved2)
            if order == "backwards crossed":
                model.backward(output1 * 0.5, saved1)
            optimizer.step()
        results.append(everything(model, optimizer))
    assert results[0] == results[1]
    assert results[0] == results[2]  # a sum of two does not mind the order


@every_optimizer
def test_layer_used_twice(case: OptimizerCase, xb_device: Device) -> None:
    layer = nn.Linear(4, 4, rng=0)
    model = nn.Sequential(layer, nn.Tanh(), layer)
    optimizer = case.make(case.trainable(model.parameters()))
    first, second = nn.Linear(4, 4, rng=0), nn.Linear(4, 4, rng=0)
    apart = nn.Sequential(first, nn.Tanh(), second)
    summed = [xb.Parameter(p.data.copy()) for p in first.parameters()]
    plain = case.make(case.trainable(summed))
    x, y = xb.asarray(xb.to_host(batch(0)[0])), xb.asarray(xb.to_host(batch(1)[0]))
    for _ in range(4):
        for network in (model, apart):
            network.zero_grad()
            with xb.use_references():  # a small network of two layers would run as one op
                xb.value_and_grad(network, nn.MSELoss())(x, y)
        optimizer.step()
        for total, one, other in zip(summed, first.parameters(), second.parameters(), strict=True):
            total.grad = other.grad + one.grad
        plain.step()
        for total, *copies in zip(summed, first.parameters(), second.parameters(), strict=True):
            for each in copies:
                each.data = total.data.copy()
    assert model.state_dict()["0.weight"].tobytes() == apart.state_dict()["0.weight"].tobytes()
    assert model.state_dict()["0.bias"].tobytes() == apart.state_dict()["0.bias"].tobytes()


def test_two_optimizers_take_turns(xb_device: Device) -> None:
    """Each step one of them takes over the storage; both keep their own momentum."""
    w = xb.Parameter(xb.asarray([1.0, -2.0], dtype=np.float64))
    ours = [xb.optim.SGD([w], lr=0.1, momentum=0.5), xb.optim.Adam([w], lr=0.01)]
    value, buffer, mean, square = np.array([1.0, -2.0]), 0.0, 0.0, 0.0
    for step in range(1, 5):
        w.grad = w.data
        ours[0].step()
        buffer = 0.5 * buffer + value
        value = value - 0.1 * buffer
        w.grad = w.data
        ours[1].step()
        mean, square = 0.9 * mean + 0.1 * value, 0.999 * square + 0.001 * value**2
        mean_hat, square_hat = mean / (1 - 0.9**step), square / (1 - 0.999**step)
        value = value - 0.01 * mean_hat / (np.sqrt(square_hat) + 1e-8)
    np.testing.assert_allclose(xb.to_host(w.data), value, rtol=1e-12)


# --- the state dict -----------------------------------------------------------------------

STATE_KEYS = {
    "SGD": [],
    "SGD with momentum": ["momentum_buffer"],
    "Adam": ["exp_avg", "exp_avg_sq", "step"],
    "Adam with AMSGrad": ["exp_avg", "exp_avg_sq", "max_exp_avg_sq", "step"],
    "AdamW": ["exp_avg", "exp_avg_sq", "step"],
}


@pytest.mark.parametrize("name", STATE_KEYS)
def test_state_dict_has_the_layout_of_pytorch(name: str, xb_device: Device) -> None:
    (case,) = (row for row in OPTIMIZERS if row.name == name)
    model = nn.Linear(2, 3, rng=0)
    optimizer = case.make(
        [{"params": model.weight, "lr": 0.5}, {"params": [model.bias], "weight_decay": 0.25}]
    )
    assert optimizer.state_dict()["state"] == {}
    model.weight.grad = model.weight.data
    model.bias.grad = model.bias.data
    optimizer.step()
    state = optimizer.state_dict()
    assert sorted(state) == ["param_groups", "state"]
    expected = STATE_KEYS[name]
    assert {n: sorted(entry) for n, entry in state["state"].items()} == (
        {0: expected, 1: expected} if expected else {}
    )
    for shape, entry in zip(((3, 2), (3,)), state["state"].values(), strict=False):
        assert entry.get("step", 1) == 1
        for key in set(entry) - {"step"}:
            assert type(entry[key]) is np.ndarray, key
            assert entry[key].shape == shape
    groups = state["param_groups"]
    assert [group["params"] for group in groups] == [[0], [1]]
    assert [group["lr"] for group in groups] == [0.5, 0.05]
    assert groups[1]["weight_decay"] == 0.25
    assert groups[0].keys() == {"params", *optimizer.defaults}


def test_state_dict_is_a_copy(xb_device: Device) -> None:
    w = xb.Parameter(xb.asarray([1.0]))
    optimizer = xb.optim.SGD([w], lr=0.1, momentum=0.9)
    w.grad = w.data
    optimizer.step()
    state = optimizer.state_dict()
    state["state"][0]["momentum_buffer"][...] = 100.0
    state["param_groups"][0]["lr"] = 100.0
    again = optimizer.state_dict()
    assert again["state"][0]["momentum_buffer"] == [1.0]
    assert again["param_groups"][0]["lr"] == 0.1


def damaged(change: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    w, b = xb.Parameter(xb.asarray([1.0, 2.0])), xb.Parameter(xb.asarray([1.0]))
    optimizer = xb.optim.Adam([w, b], lr=0.5)
    w.grad, b.grad = w.data, b.data
    optimizer.step()
    state = optimizer.state_dict()
    change(state)
    return state


REFUSED_STATES = {
    "another group": (
        lambda state: state["param_groups"].append(state["param_groups"][0]),
        r"expected groups of \[2\] parameters; got \[2, 2\]",
    ),
    "more parameters": (
        lambda state: state["param_groups"][0]["params"].append(2),
        r"expected groups of \[2\] parameters; got \[3\]",
    ),
    "another optimizer's options": (
        lambda state: state["param_groups"][0].pop("betas"),
        "without betas. It seems to come from another optimizer",
    ),
    "options out of range": (
        lambda state: state["param_groups"][0].update(lr=-1.0),
        "Adam expects lr >= 0",
    ),
    "a shape": (
        lambda state: state["state"][0].update(exp_avg=np.zeros(3)),
        r"state 'exp_avg' of parameter 0 has shape \(3,\); expected \(2,\)",
    ),
    "state missing": (
        lambda state: state["state"][1].pop("exp_avg_sq"),
        "of parameter 1; got none of the name exp_avg_sq",
    ),
    "AMSGrad without its state": (
        lambda state: state["param_groups"][0].update(amsgrad=True),
        "got none of the name max_exp_avg_sq",
    ),
    "a parameter's number": (
        lambda state: state["state"].update({2: state["state"][0]}),
        "state of parameter 2; there are 2",
    ),
    "a negative number": (
        lambda state: state["state"].update({-1: state["state"][0]}),
        "state of parameter -1; there are 2",
    ),
}


@pytest.mark.parametrize("what", REFUSED_STATES)
def test_state_that_does_not_fit_changes_nothing(what: str, xb_device: Device) -> None:
    change, message = REFUSED_STATES[what]
    state = damaged(change)
    w, b = xb.Parameter(xb.asarray([1.0, 2.0])), xb.Parameter(xb.asarray([1.0]))
    optimizer = xb.optim.Adam([w, b], lr=0.25)
    w.grad, b.grad = w.data, b.data
    optimizer.step()
    before = optimizer.state_dict()
    with pytest.raises(ValueError, match=message):
        optimizer.load_state_dict(state)
    after = optimizer.state_dict()
    assert after["param_groups"] == before["param_groups"]
    assert pickle.dumps(after["state"]) == pickle.dumps(before["state"])


def test_loaded_state_is_not_shared_with_what_was_loaded(xb_device: Device) -> None:
    w = xb.Parameter(xb.asarray([1.0]))
    optimizer = xb.optim.SGD([w], lr=0.1, momentum=0.9)
    buffer = np.array([2.0], dtype=np.float32)
    group = {**optimizer.state_dict()["param_groups"][0]}
    optimizer.load_state_dict({"state": {0: {"momentum_buffer": buffer}}, "param_groups": [group]})
    buffer[...] = 100.0
    group["lr"] = 100.0
    assert optimizer.state_dict()["state"][0]["momentum_buffer"] == [2.0]
    assert optimizer.param_groups[0]["lr"] == 0.1


# --- states of other versions -------------------------------------------------------------


def test_state_from_before_an_option_takes_its_default(xb_device: Device) -> None:
    w = xb.Parameter(xb.asarray([1.0]))
    for cls, is_decoupled in ((xb.optim.Adam, False), (xb.optim.AdamW, True)):
        state = cls([w]).state_dict()
        for name in ("maximize", "foreach", "capturable", "fused", "decoupled_weight_decay"):
            del state["param_groups"][0][name]
        optimizer = cls([w], lr=0.7)
        optimizer.load_state_dict(state)
        assert optimizer.param_groups[0]["lr"] == 1e-3
        assert optimizer.param_groups[0]["decoupled_weight_decay"] is is_decoupled
        assert optimizer.param_groups[0]["foreach"] is None


def test_adamw_goes_on_from_adam_with_decoupled_decay(xb_device: Device) -> None:
    w = xb.Parameter(xb.asarray([1.0]))
    optimizer = xb.optim.AdamW([w])
    optimizer.load_state_dict(xb.optim.Adam([w]).state_dict())
    assert optimizer.param_groups[0]["decoupled_weight_decay"] is True


def test_sum_before_the_first_update_is_loaded(xb_device: Device) -> None:
    """PyTorch's Adagrad saves parameters that were never updated."""
    w = xb.Parameter(xb.asarray([1.0], dtype=np.float64))
    optimizer = xb.optim.Adagrad([w], lr=1.0, initial_accumulator_value=0.5, eps=0.0)
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict(
        {"state": {0: {"step": 0.0, "sum": np.array([0.5])}}, "param_groups": groups}
    )
    assert optimizer.state_dict()["state"] == {}
    w.grad = w.data
    optimizer.step()
    np.testing.assert_allclose(xb.to_host(w.data), [1 - 1 / 1.5**0.5], rtol=1e-12)
