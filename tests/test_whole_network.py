"""Small networks that run with their loss as one op: the numbers of their modules, and never where
anything is out of the ordinary."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import xbackprop as xb
from xbackprop.kernels.loops import HAS_NUMBA
from xbackprop.module import collect_gradients
from xbackprop.training.whole_network import WholeNetwork

nn = xb.nn
pytestmark = pytest.mark.skipif(not HAS_NUMBA, reason="numba is not installed (extra fast)")

CHAINS: dict[str, Callable[[Any], xb.Module]] = {
    "linear": lambda dtype: nn.Linear(3, 2, dtype=dtype, rng=0),
    "relu": lambda dtype: nn.Sequential(
        nn.Linear(3, 5, dtype=dtype), nn.ReLU(), nn.Linear(5, 2, dtype=dtype), rng=0
    ),
    "mixed": lambda dtype: nn.Sequential(
        nn.Linear(3, 4, dtype=dtype), nn.Tanh(), nn.Linear(4, 6, dtype=dtype),
        nn.Linear(6, 5, dtype=dtype), nn.Sigmoid(), nn.Linear(5, 2, dtype=dtype), nn.Identity(),
        rng=0,
    ),
}  # fmt: skip
LOSSES = {"half": nn.HalfSquaredError, "mse": nn.MSELoss, "classes": nn.CrossEntropyLoss}


def data(dtype: Any, rows: int = 6, is_of_classes: bool = False) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((rows, 3)).astype(dtype)
    y = rng.integers(0, 2, rows) if is_of_classes else rng.standard_normal((rows, 2)).astype(dtype)
    return x, y


def relu_network() -> xb.Module:
    return CHAINS["relu"](np.float32)


def grads(model: xb.Module) -> list[np.ndarray]:
    return [p.grad.copy() for p in model.parameters() if p.grad is not None]


@pytest.fixture(autouse=True)
def on_cpu() -> Any:
    with xb.use_device("cpu"):
        yield


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("chain", CHAINS)
def test_numbers_are_those_of_the_modules(chain: str, loss: str, dtype: Any) -> None:
    model, loss_fn = CHAINS[chain](dtype), LOSSES[loss]()
    x, y = data(dtype, is_of_classes=loss == "classes")
    tolerance = 1e-5 if dtype == np.float32 else 1e-13
    twin = copy.deepcopy(model)
    network = WholeNetwork(model, loss_fn)
    for _ in range(2):  # the second one adds
        done = network.run(x, y)
        assert done is not None
        with xb.use_references():
            expected = xb.value_and_grad(twin, loss_fn)(x, y)
        for received, wanted in zip((*done, *grads(model)), (*expected, *grads(twin)), strict=True):
            assert type(received) is type(wanted)
            assert received.dtype == wanted.dtype
            assert received.shape == wanted.shape
            np.testing.assert_allclose(received, wanted, rtol=tolerance, atol=tolerance)
    assert [p.contributions for p in model.parameters()] == [2] * len(grads(model))


def test_value_and_grad_takes_it_and_the_trainer_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    done = []
    run = WholeNetwork.run
    monkeypatch.setattr(
        WholeNetwork, "run", lambda self, x, y: done.append(run(self, x, y)) or done[-1]
    )
    model, loss_fn = relu_network(), nn.HalfSquaredError()
    x, y = data(np.float32)
    loss, output = xb.value_and_grad(model, loss_fn)(x, y)
    ((seen, seen_output),) = done
    assert loss is seen
    assert output is seen_output
    # It has the bits of the layers, watched or not.
    trainer = xb.Trainer(model, loss_fn, xb.optim.SGD(model.parameters(), lr=0.1))
    assert trainer.step(x, y) == pytest.approx(float(loss), rel=1e-6)
    assert len(done) == 1


class Doubled(nn.Linear):
    def forward(self, x: Any) -> Any:
        output, saved = super().forward(x)
        return output * 2, saved


def freeze(model: Any) -> None:
    model[0].weight.requires_grad = False


def tie(model: Any) -> None:
    model.extend([nn.Linear(2, 5), model[2]])


def watch(model: Any) -> None:
    model[1].forward = lambda x: (x, (x,))


UNSUITED = {
    "a layer of another kind": lambda m: m.insert(1, nn.Dropout(0.5)),
    "a subclass": lambda m: m.insert(0, Doubled(3, 3)),
    "no bias": lambda m: m.insert(0, nn.Linear(3, 3, bias=False)),
    "an activation first": lambda m: m.insert(0, nn.ReLU()),
    "two activations": lambda m: m.insert(1, nn.ReLU()),
    "frozen": freeze,
    "tied": tie,
    "a method of its own": watch,
    "half precision": lambda m: xb.set_precision(m, "float16"),
    "too deep": lambda m: m.extend([nn.Linear(2, 2) for _ in range(3)]),
    "too wide": lambda m: m.extend([nn.Linear(2, 20_000), nn.Linear(20_000, 2)]),
}


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("name", UNSUITED)
def test_other_networks_are_left_to_their_modules(name: str, when: str) -> None:
    model, (x, y) = relu_network(), data(np.float32)
    network = WholeNetwork(model, nn.MSELoss())
    if when == "after":
        assert network.run(x, y) is not None
        model.zero_grad()
    UNSUITED[name](model)
    assert network.run(x, y) is None
    assert grads(model) == []


@pytest.mark.parametrize(
    "loss_fn",
    [nn.MSELoss("sum"), nn.CrossEntropyLoss(label_smoothing=0.1), nn.L1Loss(),
     nn.CrossEntropyLoss(weight=[1.0, 2.0]), nn.CrossEntropyLoss(ignore_index=0)],
)  # fmt: skip
def test_other_losses_are_left_to_their_modules(loss_fn: xb.Module) -> None:
    is_of_classes = isinstance(loss_fn, nn.CrossEntropyLoss)
    x, y = data(np.float32, is_of_classes=is_of_classes)
    assert WholeNetwork(relu_network(), loss_fn).run(x, y) is None


X, Y = data(np.float32)
READ_ONLY = X.copy()
READ_ONLY.flags.writeable = False


@pytest.mark.parametrize(
    ("x", "y"),
    [(X[0], Y[0]), ((X,), Y), (X.astype(np.float64), Y), (np.asfortranarray(X), Y), (READ_ONLY, Y),
     (X[:, :2].copy(), Y), (X, Y[:, :1].copy()), (X[:0], Y[:0]), (X, Y[:5]), (X.astype(">f4"), Y),
     (X.tolist(), Y)],
)  # fmt: skip
def test_other_arrays_are_left_to_the_modules(x: Any, y: Any) -> None:
    model = relu_network()
    assert WholeNetwork(model, nn.MSELoss()).run(x, y) is None
    assert grads(model) == []


@pytest.mark.parametrize("label", [-100, -1, 2])
def test_labels_out_of_range_are_left_to_the_loss(label: int) -> None:
    model, (x, y) = relu_network(), data(np.float32, is_of_classes=True)
    y[3] = label
    network = WholeNetwork(model, nn.CrossEntropyLoss())
    assert network.run(x, y) is None
    assert grads(model) == []
    y[3] = 1
    assert network.run(x, y) is not None


def test_whoever_watches_sees_the_layers() -> None:
    model, (x, y) = relu_network(), data(np.float32)
    network = WholeNetwork(model, nn.MSELoss())

    class Watcher:
        def before(self, call: Any) -> None: ...

        def after(self, call: Any, result: Any) -> None: ...

    with xb.observe(Watcher()):
        assert network.run(x, y) is None
    with xb.use_references():
        assert network.run(x, y) is None
    with collect_gradients():
        assert network.run(x, y) is None
    assert network.run(x, y) is not None


def test_gradients_that_only_some_have_are_added_by_the_modules() -> None:
    model, (x, y) = relu_network(), data(np.float32)
    network = WholeNetwork(model, nn.MSELoss())
    assert network.run(x, y) is not None
    model[0].bias.zero_grad()
    assert network.run(x, y) is None


def test_follows_what_becomes_of_the_modules() -> None:
    """New storage, new values, new layers: what counts is what the modules are now."""
    model, loss_fn, (x, y) = relu_network(), nn.MSELoss(), data(np.float32)
    compute, seen = xb.value_and_grad(model, loss_fn), []

    def check() -> None:
        model.zero_grad()
        loss, _ = compute(x, y)
        seen.append(float(loss))
        assert loss == pytest.approx(float(loss_fn(model(x), y)), rel=1e-6)

    check()
    optimizer = xb.optim.SGD(model.parameters(), lr=0.1)
    optimizer.step()  # the parameters move into the optimizer's arrays
    check()
    model.load_state_dict(CHAINS["relu"](np.float32).state_dict())
    check()
    model[0].weight = xb.Parameter(np.ones((5, 3), np.float32))
    check()
    model[2].bias.data = np.ones(2, np.float32)
    check()
    model.append(nn.Tanh())
    check()
    model.eval()
    model.pop(3)
    model.append(nn.Sigmoid())
    check()
    assert seen[2] == pytest.approx(seen[0], rel=1e-6)
    assert len({round(value, 6) for value in seen}) == 6


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_copy_has_a_network_of_its_own(copied: Callable[[Any], Any]) -> None:
    model, (x, y) = relu_network(), data(np.float32)
    network = WholeNetwork(model, nn.MSELoss())
    assert network.run(x, y) is not None
    twin = copied(network)
    model.zero_grad()
    assert twin.run(x, y) is not None
    assert grads(model) == []


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("loss", LOSSES)
def test_numbers_that_are_none_stay_so(loss: str, bad: float) -> None:
    model, loss_fn = relu_network(), LOSSES[loss]()
    x, y = data(np.float32, is_of_classes=loss == "classes")
    x[2, 1] = bad
    twin = copy.deepcopy(model)
    done = WholeNetwork(model, loss_fn).run(x, y)
    with xb.use_references():
        expected = xb.value_and_grad(twin, loss_fn)(x, y)
    assert done is not None
    for received, wanted in zip((*done, *grads(model)), (*expected, *grads(twin)), strict=True):
        np.testing.assert_array_equal(np.isfinite(received), np.isfinite(wanted))
