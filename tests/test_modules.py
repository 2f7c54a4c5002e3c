"""Modules as trees: state, configuration, copies, moves."""

import copy
import io
import json
import pickle
from typing import Any

import numpy as np
import pytest

import xbackprop as xb
from xbackprop import nn
from xbackprop.backend.device import Device
from xbackprop.backend.fake import memory_of, set_memory_limit
from xbackprop.module import Module, Parameter
from xbackprop.module.parameter import clock


def batch(*shape: int, seed: int = 0) -> xb.Array:
    return xb.asarray(np.random.default_rng(seed).normal(size=shape))


def network(**options: Any) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(3, 4), nn.Dropout(0.5), nn.Sequential({"act": nn.Tanh(), "out": nn.Linear(4, 2)}),
        rng=0,
    ).to(**options)  # fmt: skip


def same_bits(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> bool:
    return list(first) == list(second) and all(
        first[name].tobytes() == second[name].tobytes() for name in first
    )


class Own(Module):
    """A user's class with every kind of argument."""

    def __init__(self, inner: Module, sizes: Any, scale: float = 1.0, *, names: Any = None) -> None:
        self.inner = inner
        self.sizes = sizes
        self.scale = scale
        self.names = names

    def forward(self, x: Any) -> tuple[Any, Any]:
        output, saved = self.inner.forward(x)
        return output * self.scale, saved

    def backward(self, grad_output: Any, saved: Any) -> Any:
        return self.inner.backward(grad_output * self.scale, saved)


class Anything(Module):
    """Takes any keywords."""

    def __init__(self, size: int, *layers: Module, **options: Any) -> None:
        self.size = size
        self.layers = nn.Sequential(*layers)
        self.options = options

    def forward(self, x: Any) -> tuple[Any, Any]:
        return self.layers.forward(x)

    def backward(self, grad_output: Any, saved: Any) -> Any:
        return self.layers.backward(grad_output, saved)


def through_json(module: Module, *types: type[Module]) -> Any:
    return nn.from_config(json.loads(json.dumps(module.config())), types=types)


# --- the tree -----------------------------------------------------------------------------


def test_names_of_parameters_modules_and_state() -> None:
    model = network(device="cpu")
    keys = ["0.weight", "0.bias", "2.out.weight", "2.out.bias"]
    assert [name for name, _ in model.named_parameters()] == keys
    assert list(model.state_dict()) == keys
    assert list(model.extra_state()) == ["1.random_state"]
    assert [name for name, _ in model.named_modules()] == ["", "0", "1", "2", "2.act", "2.out"]
    assert [type(child).__name__ for child in model.children()] == [
        "Linear", "Dropout", "Sequential",
    ]  # fmt: skip
    assert repr(model) == (
        "Sequential(\n  (0): Linear(3, 4, bias=True)\n  (1): Dropout(p=0.5)\n"
        "  (2): Sequential(\n    (act): Tanh()\n    (out): Linear(4, 2, bias=True)\n  )\n)"
    )


def test_a_shared_parameter_appears_once_and_under_each_name_in_the_state() -> None:
    layer = nn.Linear(3, 3, device="cpu")
    model = nn.Sequential(layer, nn.Tanh(), layer)
    assert [name for name, _ in model.named_parameters()] == ["0.weight", "0.bias"]
    assert len(list(model.modules())) == 3
    assert list(model.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]


def test_train_eval_and_frozen_reach_everything() -> None:
    model = network(device="cpu")
    model.eval()
    assert not any(part.training for part in model.modules())
    assert all(part.training for part in model.train().modules())
    assert not any(p.requires_grad for p in model.requires_grad_(False).parameters())


def test_slices_and_indices_of_sequential_share_the_layers() -> None:
    model = network(device="cpu")
    assert len(model) == 3
    assert model[-1] is list(model)[2]
    part = model[:2]
    assert part[0] is model[0]
    assert list(part.state_dict()) == ["0.weight", "0.bias"]


# --- configuration ------------------------------------------------------------------------


def test_config_is_plain_data() -> None:
    assert network(device="cpu").config() == {
        "type": "Sequential",
        "args": {
            "layers": [
                {"type": "Linear", "args": {"in_features": 3, "out_features": 4}},
                {"type": "Dropout", "args": {"p": 0.5}},
                {
                    "type": "Sequential",
                    "args": {
                        "layers": [
                            {
                                "act": {"type": "Tanh", "args": {}},
                                "out": {
                                    "type": "Linear",
                                    "args": {"in_features": 4, "out_features": 2},
                                },
                            }
                        ]
                    },
                },
            ]
        },
    }


def test_config_of_shared_layers_and_tied_weights_rebuilds_the_sharing() -> None:
    layer = nn.Linear(3, 3, device="cpu")
    model = nn.Sequential(layer, nn.Sequential(nn.Tanh(), layer), nn.Linear(3, 3, device="cpu"))
    model[2].weight = layer.weight
    rebuilt = through_json(model)
    assert rebuilt[1][1] is rebuilt[0]
    assert rebuilt[2].weight is rebuilt[0].weight
    assert rebuilt[2].bias is not rebuilt[0].bias
    assert rebuilt.config() == model.config()


@pytest.mark.parametrize("name", ["type", "shared", "array", "args", "tied", "dtype"])
def test_layers_may_have_any_name(name: str) -> None:
    model = nn.Sequential({name: nn.Linear(3, 2, device="cpu"), "other": nn.Tanh()})
    rebuilt = through_json(model)
    assert [child for child, _ in rebuilt.named_children()] == [name, "other"]
    assert rebuilt.config() == model.config()


def test_config_of_users_classes(xb_device: Device) -> None:
    sizes, names = np.int64(7), {"a": [1, 2.5], "b": None, "c": True}
    model = Own(nn.Linear(3, 2, dtype=np.float64), (sizes, 3), np.float32(0.5), names=names)
    rebuilt = through_json(model, Own)
    assert rebuilt.inner.dtype == np.float64
    assert rebuilt.sizes == [7, 3]
    assert rebuilt.scale == 0.5
    assert rebuilt.names == names
    assert rebuilt.config() == model.config()
    with pytest.raises(ValueError, match=r"unknown layer 'Own'\..*from_config\("):
        through_json(model)
    with pytest.raises(ValueError, match="Did you mean 'Linear'"):
        nn.from_config({"type": "Linea", "args": {}})


def test_config_of_any_keywords() -> None:
    model = Anything(3, nn.Tanh(), nn.Linear(3, 2, device="cpu"), colour="red", depth=2)
    rebuilt = through_json(model, Anything)
    assert rebuilt.size == 3
    assert rebuilt.options == {"colour": "red", "depth": 2}
    assert [type(part).__name__ for part in rebuilt.layers] == ["Tanh", "Linear"]
    assert rebuilt.config() == model.config()


def test_config_writes_arrays(xb_device: Device) -> None:
    loss = nn.CrossEntropyLoss(weight=xb.asarray([1.0, 2.0]), ignore_index=1)
    rebuilt = through_json(loss)
    np.testing.assert_array_equal(xb.to_host(rebuilt.weight), np.array([1, 2], np.float32))
    assert rebuilt.weight.dtype == np.float32
    assert rebuilt.ignore_index == 1


def test_what_is_no_plain_data_is_refused() -> None:
    class Takes(Module):
        def __init__(self, value: Any) -> None:
            self.value = value

    with pytest.raises(TypeError, match=r"cannot write function as plain data: <function"):
        Takes(lambda: None).config()


def test_arguments_that_a_layer_lacks_are_refused() -> None:
    with pytest.raises(ValueError, match=r"Linear has no argument 'in_channels'"):
        nn.from_config({"type": "Linear", "args": {"in_channels": 3}})


def test_config_names_only_classes_of_the_catalogue() -> None:
    for name in ("Module", "os.system", "Parameter"):
        with pytest.raises(ValueError, match="unknown layer"):
            nn.from_config({"type": name, "args": {}})


# --- state --------------------------------------------------------------------------------


def test_state_dict_goes_module_by_module_as_pytorch_does() -> None:
    model = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 1))
    statistics = ["running_mean", "running_var", "num_batches_tracked"]
    first = [f"0.{name}" for name in ("weight", "bias", *statistics)]
    assert list(model.state_dict()) == [*first, "1.weight", "1.bias"]


def test_state_dict_gives_contiguous_host_copies(xb_device: Device) -> None:
    model = nn.Linear(3, 2, rng=0)
    model.weight.data = xb.asarray(np.arange(6.0).reshape(3, 2)).T
    state = model.state_dict()
    assert all(type(array) is np.ndarray and array.flags.c_contiguous for array in state.values())
    np.testing.assert_array_equal(state["weight"], [[0, 2, 4], [1, 3, 5]])
    state["weight"][...] = 9
    assert float(xb.to_host(model.weight.data)[0, 0]) == 0


def test_load_state_dict_writes_into_the_storage_there_is(xb_device: Device) -> None:
    model, other = network(), network()
    other[0].reset_parameters(5)
    storage, version = model[0].weight.data, model[0].weight.version
    for state in (other.state_dict(), dict(zip(other.state_dict(), other_arrays(other)))):  # noqa: B905
        model[0].weight.data[...] = 0
        model.load_state_dict(state)
        assert model[0].weight.data is storage
        assert model[0].weight.version > version
        assert same_bits(model.state_dict(), other.state_dict())


def other_arrays(model: Module) -> list[xb.Array]:
    """Device arrays, which load_state_dict takes as well."""
    return [parameter.data for parameter in model.parameters()]


def test_load_state_dict_casts_to_the_model_s_dtype(xb_device: Device) -> None:
    model = nn.Linear(3, 2, dtype=np.float64)
    model.load_state_dict({"weight": np.ones((2, 3), np.float32), "bias": [1, 2]})
    assert model.weight.dtype == model.bias.dtype == np.float64
    np.testing.assert_array_equal(xb.to_host(model.bias.data), [1.0, 2.0])


def test_a_refused_state_lists_everything_and_changes_nothing(xb_device: Device) -> None:
    model = network()
    before = model.state_dict()
    state = {name: array + 1 for name, array in before.items()}
    del state["2.out.bias"]
    state["0.bias"] = np.zeros(5)
    state["0.gamma"] = np.zeros(1)
    with pytest.raises(ValueError, match="load_state_dict changed nothing") as caught:
        model.load_state_dict(state)
    for part in (
        "missing: 2.out.bias",
        "unexpected: 0.gamma",
        "0.bias has shape (5,), expected (4,)",
    ):
        assert part in str(caught.value)
    assert same_bits(model.state_dict(), before)
    with pytest.raises(ValueError, match=r"0.bias has shape \(5,\)"):
        model.load_state_dict(state, strict=False)
    assert same_bits(model.state_dict(), before)
    del state["0.bias"]
    model.load_state_dict(state, strict=False)
    assert model.state_dict()["0.weight"].tobytes() == state["0.weight"].tobytes()
    assert model.state_dict()["2.out.bias"].tobytes() == before["2.out.bias"].tobytes()


@pytest.mark.parametrize(
    "wrong", [np.array(["a", "b"]), np.array([1j, 2j]), np.array([None, None]), ["1", "2"]],
    ids=["text", "complex", "objects", "list-of-text"],
)  # fmt: skip
def test_values_that_are_no_numbers_change_nothing(wrong: Any, xb_device: Device) -> None:
    model = network()
    before = model.state_dict()
    state = {name: array + 1 for name, array in before.items()} | {"2.out.bias": wrong}
    with pytest.raises((TypeError, ValueError), match=r"2\.out\.bias"):
        model.load_state_dict(state)
    assert same_bits(model.state_dict(), before)


@pytest.mark.parametrize(
    ("path", "wrong", "message"),
    [
        ("0.weight", [[1, 2], [3]], "0.weight is no array"),
        ("2.out.bias", [1j, 2j], "2.out.bias has dtype complex128, expected real numbers"),
        ("calls", 2.5, "calls has dtype float64, expected int64"),
        ("calls", [1, 2], r"calls has shape \(2,\), expected \(\)"),
    ],
)
def test_values_of_another_kind_change_nothing(
    path: str, wrong: Any, message: str, xb_device: Device
) -> None:
    model = network()
    model.register_buffer("calls", xb.asarray(7))
    before = model.state_dict()
    assert before["calls"].dtype == np.int64
    state = {name: array + 1 for name, array in before.items()} | {path: wrong}
    with pytest.raises(ValueError, match=f"changed nothing: .*{message}"):
        model.load_state_dict(state)
    assert same_bits(model.state_dict(), before)
    model.load_state_dict(before | {"calls": np.int32(9)})
    assert model.state_dict()["calls"] == 9


def test_shared_values_that_differ_change_nothing(xb_device: Device) -> None:
    shared = nn.Linear(2, 2)
    model = nn.Sequential(shared, nn.ReLU(), shared, nn.Linear(2, 2))
    model[3].weight = shared.weight
    before = model.state_dict()
    for path in ("2.bias", "3.weight"):
        state = {name: array + 1 for name, array in before.items()}
        state[path] = state[path] + 1
        with pytest.raises(ValueError, match=rf"changed nothing: .*{path} differs from 0\."):
            model.load_state_dict(state)
        with pytest.raises(ValueError, match=rf"{path} differs from 0\."):
            model.load_state_dict(on_device(state), strict=False)
        assert same_bits(model.state_dict(), before)
    model.load_state_dict({name: np.full_like(array, np.nan) for name, array in before.items()})
    assert np.isnan(model.state_dict()["3.weight"]).all()


def on_device(state: dict[str, Any]) -> dict[str, xb.Array]:
    return {name: xb.asarray(array) for name, array in state.items()}


def test_values_may_be_those_of_the_model_itself(xb_device: Device) -> None:
    model = nn.Sequential(nn.Linear(3, 3, rng=0), nn.Linear(3, 3, rng=1))
    first, second = (model[i].state_dict() for i in (0, 1))
    live = dict(model.named_parameters())
    model.load_state_dict({path: live[f"{1 - int(path[0])}{path[1:]}"].data for path in live})
    assert same_bits(model[0].state_dict(), second)
    assert same_bits(model[1].state_dict(), first)


def test_no_memory_for_all_values_changes_nothing() -> None:
    with xb.use_device("fake"):
        model = nn.Sequential(nn.Linear(50, 50), nn.Linear(50, 50))
        before, earlier = model.state_dict(), clock.time
        state = {name: array + 1 for name, array in before.items()}
        memory = memory_of(0)
        for room in range(0, 20_400, 3_000):  # the values need 20,400 bytes
            set_memory_limit(memory.used + room)
            try:
                with pytest.raises(MemoryError):
                    model.load_state_dict(state)
            finally:
                set_memory_limit(None)
            assert same_bits(model.state_dict(), before)
            assert clock.time == earlier
        model.load_state_dict(state)
        assert same_bits(model.state_dict(), state)


@pytest.mark.parametrize(
    "array",
    [
        {"array": [1], "dtype": "O"},
        {"array": ["a"], "dtype": "U9"},
        {"array": ["a"], "dtype": "S9"},
        {"array": ["2001-01-01"], "dtype": "M8[s]"},
        {"array": [1], "dtype": ["f4"]},
        {"array": [1e308], "dtype": "f4"},
        {"array": [2**70], "dtype": "i8"},
    ],
)
def test_arrays_of_a_config_hold_numbers(array: dict[str, Any]) -> None:
    config = {"type": "CrossEntropyLoss", "args": {"weight": array}}
    with pytest.raises(ValueError, match="config: an array of dtype"):
        nn.from_config(config)


@pytest.mark.parametrize("levels", [17, 60, 2000])
def test_config_that_shares_itself_too_often_is_refused(levels: int) -> None:
    """Each level names the one before twice; walking 2^levels paths would never end."""
    layers: list[Any] = [{"type": "Sequential", "args": {"layers": [{"type": "ReLU"}]}}]
    numbers = [1, *range(3, levels + 3)]
    for level in range(levels):
        layers.append({"type": "Sequential", "args": {"layers": [{"shared": numbers[level]}] * 2}})
    with pytest.raises(ValueError, match="more than 100000 paths"):
        nn.from_config({"type": "Sequential", "args": {"layers": layers}})
    few = {"type": "Sequential", "args": {"layers": layers[:11]}}
    assert sum(1 for _ in nn.from_config(few).modules()) == 13


@pytest.mark.parametrize("tie", [["0.weight", "1.forward"], ["0.weight", "1.bias"], ["0", "1"]])
def test_config_that_ties_what_is_not_alike_is_refused(tie: list[str]) -> None:
    config = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)).config()
    with pytest.raises(ValueError, match="config ties"):
        nn.from_config({**config, "tied": [tie]})


@pytest.mark.parametrize("name", ["", "a.b", ".", 3])
def test_names_that_make_no_paths_are_refused(name: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="Sequential expects names"):
        nn.Sequential({name: nn.ReLU()})


def test_extra_state_continues_the_random_stream(xb_device: Device) -> None:
    first, second = nn.Dropout(0.5, rng=0), nn.Dropout(0.5, rng=1)
    x = batch(6, 6)
    first(x)
    second.load_extra_state(first.extra_state())
    assert xb.to_host(first(x)).tobytes() == xb.to_host(second(x)).tobytes()
    with pytest.raises(ValueError, match="load_extra_state changed nothing: missing: random_state"):
        second.load_extra_state({})


# --- copies and moves ---------------------------------------------------------------------


def step(model: Module, seed: int) -> None:
    """One step of training that leaves traces in every weight and counter."""
    optimizer = xb.optim.SGD(model.parameters(), lr=0.1)
    x = xb.to_device(np.random.default_rng(seed).normal(size=(4, 3)), model.device)
    x = x.astype(model.dtype)
    model.zero_grad()
    output, saved = model.forward(x)
    model.backward(output, saved)
    optimizer.step()


@pytest.mark.parametrize("way", ["deepcopy", "pickle", "there and back", "state"])
def test_training_goes_on_bit_for_bit_after(way: str, xb_device: Device) -> None:
    model, undisturbed = network(), network()
    for trained in (model, undisturbed):
        step(trained, 0)
    if way == "deepcopy":
        model = copy.deepcopy(model)
    elif way == "pickle":
        model = pickle.loads(pickle.dumps(model)).to(xb_device)
    elif way == "there and back":
        model.to("cpu").to(xb_device)
    else:
        fresh = nn.from_config(model.config())
        fresh.load_state_dict(model.state_dict())
        fresh.load_extra_state(model.extra_state())
        model = fresh
    assert same_bits(model.state_dict(), undisturbed.state_dict())
    for trained in (model, undisturbed):
        step(trained, 1)
    assert same_bits(model.state_dict(), undisturbed.state_dict())
    assert same_bits(model.extra_state(), undisturbed.extra_state())


def test_copies_share_nothing_and_keep_their_own_sharing(xb_device: Device) -> None:
    layer = nn.Linear(3, 3, rng=0)
    model = nn.Sequential(layer, nn.Dropout(0.5), layer, nn.Linear(3, 3), rng=0)
    model[3].weight = layer.weight
    model[3].bias.requires_grad = False
    layer.bias.accumulate(xb.asarray(np.ones(3)))
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)).to(xb_device)):
        assert copied[0] is copied[2]
        assert copied[3].weight is copied[0].weight
        assert not copied[3].bias.requires_grad
        assert xb.to_host(copied[0].bias.grad).tolist() == [1, 1, 1]
        before = model.state_dict() | model.extra_state()
        copied[0].weight.data[...] = 0
        copied[0].bias.grad[...] = 5
        copied(batch(2, 3))
        assert same_bits(model.state_dict() | model.extra_state(), before)
        assert xb.to_host(layer.bias.grad).tolist() == [1, 1, 1]
        assert xb.device_of(copied[1].random_state) == xb_device


def test_a_pickle_made_on_fake_opens_on_cpu(xb_device: Device) -> None:
    """Parameters, gradients, buffers and arrays given to constructors become host arrays."""
    model = nn.Sequential({"net": network(), "sig": nn.Sigmoid()})
    loss = nn.BCEWithLogitsLoss(pos_weight=xb.asarray([1.0, 3.0]))
    output, saved = model.forward(batch(4, 3))
    model.backward(output, saved)
    data = pickle.dumps((model, loss))
    with xb.use_device("cpu"):
        on_cpu, loss_on_cpu = pickle.load(io.BytesIO(data))
        assert str(on_cpu.device) == "cpu"
        assert type(loss_on_cpu.pos_weight) is np.ndarray
        assert type(on_cpu[0][0].weight.grad) is np.ndarray
        assert same_bits(on_cpu.state_dict(), model.state_dict())
        assert same_bits(on_cpu.extra_state(), model.extra_state())
        x, y = np.ones((2, 3), np.float32), np.ones((2, 2), np.float32)
        assert np.isfinite(loss_on_cpu(on_cpu(x), y))
        assert nn.from_config(loss_on_cpu.config()).config() == loss.config()


def test_to_moves_and_casts_parameters_gradients_and_buffers(xb_device: Device) -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.5), rng=0).to("cpu")
    model[0].weight.accumulate(np.ones((2, 3), np.float32))
    version = model[0].weight.version
    assert model.to(xb_device, np.float64) is model
    weight = model[0].weight
    assert weight.device == xb_device == model.device == xb.device_of(model[1].random_state)
    assert weight.dtype == weight.grad.dtype == model.dtype == np.float64
    assert model[1].random_state.dtype == np.uint32
    assert weight.version > version
    assert weight.value is weight.data
    version = weight.version
    assert model.to(xb_device).to(dtype=np.float64)[0].weight.version == version  # nothing to do


def test_a_loss_moves_its_weights(xb_device: Device) -> None:
    loss = nn.CrossEntropyLoss(weight=np.array([1.0, 2.0]))
    loss.to(dtype=np.float64)
    logits = xb.asarray(np.ones((2, 2)), dtype=np.float64)
    assert loss(logits, xb.asarray([0, 1])).dtype == np.float64


def test_parameters_take_arrays_only() -> None:
    parameter = Parameter(np.zeros(2, np.float32))
    for wrong in ([1.0, 2.0], 1.0, None):
        with pytest.raises(TypeError, match="expects an array; got"):
            parameter.data = wrong
    assert repr(parameter) == "Parameter(shape=(2,), dtype=float32, device=cpu)"
    parameter.requires_grad = False
    assert repr(parameter).endswith(", frozen)")


def test_replicate_says_that_it_is_not_there() -> None:
    with pytest.raises(NotImplementedError, match="replicate"):
        nn.Tanh().replicate()


# --- seeds --------------------------------------------------------------------------------


def test_every_child_of_sequential_has_a_stream_of_its_own(xb_device: Device) -> None:
    short = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), rng=3)
    long = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 4), rng=3)
    state, longer = short.state_dict(), long.state_dict()
    assert same_bits(state, {name: longer[name] for name in state})
    assert same_bits(short.extra_state(), long.extra_state())
    assert not same_bits(state, nn.Sequential(nn.Linear(3, 4), rng=4).state_dict())


@pytest.mark.parametrize("wrap", [nn.Residual, nn.Recompute, nn.Sequential])
def test_seeds_reach_what_is_inside(wrap: Any) -> None:
    with xb.use_device("cpu"):
        first = nn.Sequential(wrap(nn.Linear(3, 3)), rng=0).state_dict()
        second = nn.Sequential(wrap(nn.Linear(3, 3)), rng=0).state_dict()
    assert same_bits(first, second)


def test_initial_values_are_the_same_in_both_precisions_and_on_every_device(
    xb_device: Device,
) -> None:
    double = nn.Linear(5, 4, dtype=np.float64, device="cpu", rng=2).state_dict()
    single = nn.Linear(5, 4, rng=2).state_dict()
    for name, array in double.items():
        np.testing.assert_array_equal(array.astype(np.float32), single[name], strict=True)
    bound = 1 / np.sqrt(5)
    assert all(np.abs(array).max() <= bound for array in double.values())
