"""A step with a NaN or infinite loss or gradient changes no bit of weights or optimizer state."""

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from optimizer_cases import OPTIMIZERS, OptimizerCase

import xbackprop as xb
from xbackprop.backend.device import Device

every_optimizer = pytest.mark.parametrize(
    "case", OPTIMIZERS, ids=lambda case: case.name.replace(" ", "-")
)
on_fake = pytest.mark.parametrize("xb_device", ["fake"], indirect=True)

# Zeros of both signs: adding 0.0 to -0.0 would change it.
START = [np.array([1.0, -2.0, 0.0, -0.0, 1e-30, 1e15]), np.array([[-0.0, 5.0]])]
GOOD = [np.array([0.5, -1.0, 0.0, -0.0, 1e-30, 1.0]), np.array([[-0.0, 2.0]])]
BAD = {
    "nan": float("nan"),
    "inf": float("inf"),
    "-inf": float("-inf"),
    "overflowing": 1e30,  # its square is infinite in float32: so is the norm
}


class Run:
    """Two parameters, an optimizer, and steps with gradients as given."""

    def __init__(self, case: OptimizerCase, **options: Any) -> None:
        self.weights = [xb.Parameter(xb.asarray(case.arrange(values))) for values in START]
        self.optimizer = case.make(self.weights, **options)
        self.optimizer.skip_nonfinite = True

    def step(self, bad: float | None = None, loss: float = 1.0) -> None:
        self.optimizer.zero_grad()
        for number, (weight, values) in enumerate(zip(self.weights, GOOD, strict=True)):
            grad = values.copy()
            if bad is not None and number == 1:
                grad[0, 1] = bad
            weight.grad = xb.asarray(grad.reshape(weight.shape))
        device_loss = xb.asarray(loss)
        with xb.transfer_guard(uploads=0, downloads=0, synchronizations=0):
            self.optimizer.step(loss=device_loss)

    def values(self) -> list[bytes]:
        return [xb.to_host(weight.data).tobytes() for weight in self.weights]

    def everything(self) -> list[Any]:
        state = self.optimizer.state_dict()["state"]
        return [
            *self.values(),
            *((n, k, np.asarray(v).tobytes()) for n, entry in state.items()
              for k, v in sorted(entry.items())),
        ]  # fmt: skip


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
@every_optimizer
def test_bad_gradient_changes_nothing(case: OptimizerCase, bad: float, xb_device: Device) -> None:
    run, undisturbed = Run(case), Run(case)
    for step in range(1, 5):
        run.step()
        undisturbed.step()
        if step in (1, 3):
            before = run.everything()
            run.step(bad)
            assert run.everything() == before
        assert run.everything() == undisturbed.everything()
    assert run.optimizer.first_nonfinite_step() == 2


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), float("-inf")])
@every_optimizer
def test_bad_loss_changes_nothing(case: OptimizerCase, loss: float, xb_device: Device) -> None:
    run = Run(case)
    run.step()
    before = run.everything()
    run.step(loss=loss)
    assert run.everything() == before
    run.step()
    assert run.everything() != before


@pytest.mark.parametrize("eps", [None, 0.0])
@every_optimizer
def test_bad_first_step_is_no_step(
    case: OptimizerCase, eps: float | None, xb_device: Device
) -> None:
    if not isinstance(Run(case).optimizer.defaults.get("eps"), float):
        eps = None
    options = {} if eps is None else {"eps": eps}
    run, undisturbed = Run(case, **options), Run(case, **options)
    before = run.everything()
    run.step(float("nan"))
    assert run.everything() == before
    assert run.optimizer.state_dict()["state"] == {}
    assert run.optimizer.first_nonfinite_step() == 1
    if eps is None:  # else a zero gradient gives 0 / 0, as in PyTorch
        run.step()
        undisturbed.step()
        assert run.everything() == undisturbed.everything()


@every_optimizer
def test_learning_rate_of_zero(case: OptimizerCase, xb_device: Device) -> None:
    if case.cls == "Rprop":
        pytest.skip("Rprop has a smallest step")
    run = Run(case, lr=0.0)
    before = run.values()
    run.step()
    state = run.everything()
    run.step(float("nan"))
    assert run.everything() == state
    if not case.options.get("maximize"):  # -0.0 - (-g * 0) is 0.0
        assert [np.frombuffer(now, np.float32).tolist() for now in run.values()] == [
            np.frombuffer(then, np.float32).tolist() for then in before
        ]


@every_optimizer
def test_parameters_that_move_apart(case: OptimizerCase, xb_device: Device) -> None:
    run, undisturbed = Run(case), Run(case)
    for each in (run, undisturbed):
        each.step()
        each.weights[0].requires_grad = False
        each.step()
        each.weights[0].requires_grad = True
    before = run.everything()
    run.step(float("nan"))
    assert run.everything() == before
    run.step()
    undisturbed.step()
    assert run.everything() == undisturbed.everything()


@every_optimizer
def test_zeros_of_the_state_keep_their_sign(case: OptimizerCase, xb_device: Device) -> None:
    """A negative mean that decays ends as -0.0; adding a gradient of 0.0 would make it 0.0."""
    run = Run(case)
    run.step()
    state = run.optimizer.state_dict()
    for entry in state["state"].values():
        for name in {"momentum_buffer", "exp_avg", "prev", "ax", "grad_avg"} & entry.keys():
            entry[name][...] = -0.0
    run.optimizer.load_state_dict(state)
    run.optimizer.zero_grad()
    run.optimizer.step()  # of nothing: uploads what was loaded
    before = run.everything()
    run.step(float("nan"))
    assert run.everything() == before


@every_optimizer
def test_both_devices_skip_alike(case: OptimizerCase) -> None:
    results = []
    for place in ("cpu", "fake"):
        with xb.use_device(place):
            run = Run(case)
            for bad in (None, float("nan"), None, float("inf"), None):
                run.step(bad)
            results.append(run.everything())
    assert results[0] == results[1]


# --- which step it was --------------------------------------------------------------------

PLAIN = OPTIMIZERS[0]


def test_first_of_several_is_named(xb_device: Device) -> None:
    run = Run(PLAIN)
    assert run.optimizer.first_nonfinite_step() is None
    for bad in (None, None, float("nan"), None, float("inf")):
        run.step(bad)
    assert run.optimizer.first_nonfinite_step() == 3
    assert run.optimizer.first_nonfinite_step() is None  # told, and forgotten
    run.step()
    run.step(float("nan"))
    assert run.optimizer.first_nonfinite_step() == 7


@on_fake
def test_asking_downloads_one_number(xb_device: Device) -> None:
    run = Run(PLAIN)
    run.step(float("nan"))
    with xb.transfer_log() as log:
        run.optimizer.first_nonfinite_step()
    assert (log.downloads, log.bytes_downloaded, log.uploads) == (1, 8, 0)


def test_without_skipping_what_comes_is_written(xb_device: Device) -> None:
    run = Run(PLAIN)
    run.optimizer.skip_nonfinite = False
    run.step(float("nan"))
    assert np.isnan(xb.to_host(run.weights[1].data)).any()
    assert run.optimizer.first_nonfinite_step() is None


def test_stop_keeps_the_weights_until_asked(xb_device: Device) -> None:
    run = Run(PLAIN)
    run.optimizer.stop_at_nonfinite = True
    run.step()
    kept = run.everything()
    for bad in (float("nan"), None, float("inf"), None):
        run.step(bad)
        assert run.everything() == kept
    assert run.optimizer.first_nonfinite_step() == 2
    run.step()
    assert run.everything() != kept


@pytest.mark.parametrize("places", [("fake", "fake:1"), ("fake", "cpu"), ("cpu", "fake")])
def test_record_follows_to_another_device(places: tuple[str, str]) -> None:
    with xb.use_device(places[0]):
        layer = xb.nn.Linear(2, 1, rng=0)
        optimizer = xb.optim.SGD(layer.parameters(), lr=0.1)
        optimizer.skip_nonfinite = True
    compute = xb.value_and_grad(layer, xb.nn.MSELoss())

    def step(values: list[float]) -> None:
        optimizer.zero_grad()
        loss, _ = compute(xb.asarray([values]), xb.asarray([[1.0]]))
        optimizer.step(loss=loss)

    with xb.use_device(places[0]):
        step([1.0, 2.0])
        step([1.0, float("nan")])
    with xb.use_device(places[1]):
        layer.to(places[1])
        before = layer.state_dict()
        step([float("inf"), 1.0])
        assert layer.state_dict()["weight"].tobytes() == before["weight"].tobytes()
        assert optimizer.first_nonfinite_step() == 2
        step([1.0, 2.0])
        assert layer.state_dict()["weight"].tobytes() != before["weight"].tobytes()


@pytest.mark.parametrize("carry", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_record_is_copied_along(carry: Any, xb_device: Device) -> None:
    run = Run(PLAIN)
    run.step()
    run.step(float("nan"))
    _, optimizer = carry((run.weights, run.optimizer))
    assert optimizer.first_nonfinite_step() == 2
    assert run.optimizer.first_nonfinite_step() == 2


def test_parameters_on_several_devices_are_refused() -> None:
    weights = [xb.Parameter(xb.asarray([1.0], device=place)) for place in ("cpu", "fake", "fake:1")]
    for pair in (weights[:2], weights[1::-1], weights[1:]):
        optimizer = xb.optim.SGD(pair, lr=0.5)
        for weight in pair:
            with xb.use_device(weight.device):
                weight.grad = weight.data
        optimizer.step()  # each on its own device
        optimizer.skip_nonfinite = True
        with pytest.raises(NotImplementedError, match="several devices"):
            optimizer.step()
    assert [xb.to_host(weight.data).item() for weight in weights] == [0.25, 0.125, 0.5]
