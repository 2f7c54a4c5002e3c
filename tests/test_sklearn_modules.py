"""NeuralClassifier and NeuralRegressor: any Module as an estimator."""

import io
from typing import Any

import numpy as np
import pytest

import xbackprop as xb
from xbackprop.backend.device import Device

pytest.importorskip("sklearn", minversion="1.9")

import joblib
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from xbackprop.sklearn import NeuralClassifier, NeuralRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
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


def test_partial_fit_and_warm_start(xb_device: Device) -> None:
    flat = X.reshape(60, 16)
    options: dict[str, Any] = {"random_state": 0, "shuffle": False, "batch_size": 20}
    model = NeuralClassifier(max_iter=3, **options).fit(flat, Y)
    steps = NeuralClassifier(**options)
    warm = NeuralClassifier(max_iter=1, warm_start=True, **options)
    for _ in range(3):
        steps.partial_fit(flat, Y, classes=["no", "yes"])
        warm.fit(flat, Y)
    assert model.loss_curve_ == steps.loss_curve_ == warm.loss_curve_
    assert (model.n_iter_, steps.n_iter_, warm.n_iter_) == (3, 1, 1)
    assert len(NeuralClassifier(max_iter=1).fit(flat, Y).fit(flat, Y).loss_curve_) == 1


def test_predictions_have_the_dtype_of_the_targets() -> None:
    flat, numbers = X.reshape(60, 16), X.mean(axis=(1, 2, 3))
    for dtype, expected in (("f4", "f4"), ("f8", "f8"), ("i8", "f8"), (bool, "f8"), (object, "f8")):
        for shape in ((60,), (60, 1)):
            y = numbers.astype(dtype).reshape(shape)
            found = NeuralRegressor(max_iter=1, device="cpu").fit(flat, y).predict(flat)
            assert (found.dtype, found.shape) == (np.dtype(expected), shape)


def test_what_does_not_go_on_is_refused() -> None:
    flat, numbers = X.reshape(60, 16), X.mean(axis=(1, 2, 3))
    model = NeuralClassifier(device="cpu")
    with pytest.raises(ValueError, match="classes must be passed"):
        model.partial_fit(flat, Y)
    model.partial_fit(flat[:5], Y[:5], classes=["no", "yes"])
    with pytest.raises(ValueError, match=r"has \['maybe'\] as well"):
        model.partial_fit(flat, np.where(Y == "no", "maybe", "yes"))
    with pytest.raises(ValueError, match="16 features"):
        model.partial_fit(flat[:, :5], Y)
    with pytest.raises(TypeError, match=r"NeuralClassifier expects module\(.* got NoneType"):
        NeuralClassifier(lambda *_: None, device="cpu").fit(flat, Y)
    warm = NeuralRegressor(device="cpu", max_iter=1, warm_start=True).fit(flat, numbers)
    with pytest.raises(ValueError, match=r"\('samples',\), as before; got \(60, 1\)"):
        warm.fit(flat, numbers[:, None])


def test_a_file_goes_on_on_another_device(xb_device: Device) -> None:
    flat, numbers = X.reshape(60, 16), X.mean(axis=(1, 2, 3))
    moving = NeuralRegressor(random_state=0, device=xb_device).partial_fit(flat, numbers)
    staying = NeuralRegressor(random_state=0, device="cpu").partial_fit(flat, numbers)
    for device in ("cpu", "fake:2", xb_device):
        file = io.BytesIO()
        joblib.dump(moving, file)
        file.seek(0)
        moving = joblib.load(file).set_params(device=device)
        for model in (moving, staying):
            model.partial_fit(flat, numbers)
        np.testing.assert_allclose(moving.loss_curve_, staying.loss_curve_, rtol=1e-4)


def test_scikit_learns_tools() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X.reshape(60, 16), columns=[f"c{i}" for i in range(16)])
    chain = make_pipeline(StandardScaler(), NeuralClassifier(max_iter=2, device="cpu"))
    chain.set_output(transform="pandas").fit(frame, Y)
    assert chain[-1].feature_names_in_.tolist() == frame.columns.tolist()
    assert "NeuralClassifier" in chain._repr_html_()
    with pytest.raises(ValueError, match="feature names"):
        chain[-1].predict(frame[frame.columns[::-1]])
    search = GridSearchCV(chain, {"neuralclassifier__batch_size": [10, 30]}, cv=2, n_jobs=2)
    assert search.fit(frame, Y).predict(frame).shape == (60,)
