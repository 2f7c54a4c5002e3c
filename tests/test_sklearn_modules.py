"""NeuralClassifier and NeuralRegressor: any Module as an estimator."""

from typing import Any

import numpy as np
import pytest

import xbackprop as xb
from xbackprop.backend.device import Device

pytest.importorskip("sklearn", minversion="1.9")

from sklearn.base import clone
from sklearn.model_selection import cross_val_score
from sklearn.utils.estimator_checks import parametrize_with_checks

from xbackprop.sklearn import NeuralClassifier, NeuralRegressor

nn = xb.nn
X = np.random.default_rng(0).normal(size=(60, 1, 4, 4))
Y = np.where(X.mean(axis=(1, 2, 3)) > 0, "yes", "no")


def make_convnet(features: int, outputs: int, rng: np.random.Generator) -> nn.Module:
    layers = nn.Conv2d(features, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, outputs)
    return nn.Sequential(*layers, rng=rng)


@pytest.mark.filterwarnings("ignore")  # the checks provoke what they look for
@parametrize_with_checks([NeuralClassifier(device="cpu"), NeuralRegressor(device="cpu")])
def test_scikit_learns_own_checks(estimator: Any, check: Any) -> None:
    check(estimator)


def test_a_function_makes_the_network(xb_device: Device) -> None:
    options: dict[str, Any] = {"learning_rate_init": 0.02, "random_state": 0, "max_iter": 60}
    model = NeuralClassifier(make_convnet, **options).fit(X, Y)
    assert model.score(X, Y) > 0.95
    assert cross_val_score(clone(model).set_params(max_iter=2), X, Y, cv=2).shape == (2,)
    again = NeuralClassifier(make_convnet, **options, device="cpu").fit(X, Y)
    np.testing.assert_allclose(model.loss_curve_, again.loss_curve_, rtol=1e-4)


def test_a_given_module_is_copied(xb_device: Device) -> None:
    module = nn.Linear(16, 2, rng=0)
    before = module.state_dict()
    models = [NeuralClassifier(module, max_iter=3, random_state=1) for _ in range(2)]
    curves = [model.fit(X.reshape(60, 16), Y).loss_curve_ for model in models]
    assert curves[0] == curves[1]
    for name, values in module.state_dict().items():
        np.testing.assert_array_equal(values, before[name])


def test_outputs_that_do_not_fit_are_refused() -> None:
    model = NeuralClassifier(nn.Linear(16, 3), max_iter=1, device="cpu").fit(X.reshape(60, 16), Y)
    with pytest.raises(ValueError, match="one for each class"):
        model.predict(X.reshape(60, 16))


@pytest.mark.parametrize("xb_device", ["fake", "fake:1"], indirect=True)
def test_data_moves_once_per_fit(xb_device: Device) -> None:
    module = nn.Linear(16, 2, rng=0)
    with xb.transfer_log() as log:
        NeuralClassifier(module, max_iter=3, batch_size=10).fit(X.reshape(60, 16), Y)
    assert log.uploads == 2 + 3  # inputs, targets, and an order an epoch


@pytest.mark.parametrize("xb_device", ["fake"], indirect=True)
def test_what_does_not_fit_is_streamed(xb_device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    from xbackprop.backend.fake import set_memory_limit
    from xbackprop.backend.fake.staging import FakeCopyStream

    copies: list[int] = []
    copy = FakeCopyStream.copy

    def counted(self: FakeCopyStream, host: np.ndarray) -> Any:
        copies.append(host.shape[0])
        return copy(self, host)

    monkeypatch.setattr(FakeCopyStream, "copy", counted)
    inputs = np.random.default_rng(1).normal(size=(400, 100)).astype(np.float32)
    options: dict[str, Any] = {"max_iter": 2, "batch_size": 20, "random_state": 0}
    expected = NeuralRegressor(nn.Linear(100, 1, rng=0), **options).fit(inputs, inputs[:, 0])
    try:
        set_memory_limit(inputs.nbytes)
        with xb.transfer_log() as log:
            streamed = NeuralRegressor(nn.Linear(100, 1, rng=0), **options)
            streamed.fit(inputs, inputs[:, 0])
    finally:
        set_memory_limit(None)
    assert streamed.loss_curve_ == expected.loss_curve_
    assert copies == [20] * 40
    assert log.uploads == 2 + 1 + 2 + 40  # weights, targets, an order an epoch, batches
