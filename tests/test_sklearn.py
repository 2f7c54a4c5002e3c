"""The perceptrons of xbackprop.sklearn beside those of scikit-learn, and among its tools."""

import inspect
import io
import re
import warnings
from typing import Any

import numpy as np
import pytest

import xbackprop as xb
from xbackprop.backend.device import Device

pytest.importorskip("sklearn", minversion="1.9")

import joblib
import scipy.sparse
import scipy.special
from sklearn import neural_network as peers
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from xbackprop.sklearn import MLPClassifier, MLPRegressor, NeuralRegressor
from xbackprop.sklearn.losses import canonical_loss_forward
from xbackprop.sklearn.optimizers import EpsilonHatAdam, VelocitySGD

OURS = {"MLPClassifier": MLPClassifier, "MLPRegressor": MLPRegressor}
SMALL: dict[str, Any] = {"hidden_layer_sizes": (7, 5), "max_iter": 12, "random_state": 3}
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

# --- numbers ------------------------------------------------------------------------------

RNG = np.random.default_rng(0)
X = RNG.normal(size=(90, 4))
LABELS = {
    "two": np.where(X[:, 0] + X[:, 1] > 0, "yes", "no"),
    "three": (X[:, 0] > 0).astype(int) + (X[:, 1] > 0.5),
    "many": (X[:, :3] > 0).astype(int),
}
NUMBERS = {
    "one": X[:, 0] * 2 - X[:, 1],
    "several": np.stack([X[:, 0], X[:, 1] * X[:, 2]], axis=1),
    "counts": np.floor(np.exp(X[:, 0])),
}
WEIGHT = RNG.uniform(0.2, 3, size=90)

OPTIONS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "sgd": {"solver": "sgd", "learning_rate_init": 0.05},
    "sgd plain momentum": {"solver": "sgd", "nesterovs_momentum": False, "momentum": 0.5},
    "sgd without momentum": {"solver": "sgd", "momentum": 0},
    "invscaling": {"solver": "sgd", "learning_rate": "invscaling", "learning_rate_init": 0.3},
    "adaptive": {"solver": "sgd", "learning_rate": "adaptive", "tol": 0.5, "n_iter_no_change": 1,
                 "max_iter": 30},
    "stops": {"tol": 0.5, "n_iter_no_change": 2},
    "lbfgs": {"solver": "lbfgs"},
    "logistic": {"activation": "logistic"},
    "tanh": {"activation": "tanh", "alpha": 0.1},
    "identity": {"activation": "identity"},
    "small batches": {"batch_size": 16},  # the order of samples matters
    "no hidden layer": {"hidden_layer_sizes": ()},
    "early stopping": {"early_stopping": True, "validation_fraction": 0.2, "n_iter_no_change": 3},
    "batches in order": {"shuffle": False, "batch_size": 32, "alpha": 1.0},
    "Adam's numbers": {"beta_1": 0.5, "beta_2": 0, "epsilon": 1e-3, "learning_rate_init": 0.02},
}  # fmt: skip


def both(name: str, **options: Any) -> tuple[Any, Any]:
    return OURS[name](**options), getattr(peers, name)(**options)


def compare(ours: Any, peer: Any, inputs: Any = X, tolerance: float = 1e-6) -> None:
    fitted = [{n for n in vars(m) if n[0] != "_" and n[-1] == "_"} for m in (ours, peer)]
    assert fitted[0] == fitted[1]
    close = {"rtol": tolerance, "atol": tolerance}
    for name in ("loss_curve_", "validation_scores_", "loss_", "best_loss_",
                 "best_validation_score_"):  # fmt: skip
        assert hasattr(ours, name) == hasattr(peer, name), name
        theirs = getattr(peer, name, None)
        assert (getattr(ours, name, None) is None) == (theirs is None), name
        if theirs is not None:
            np.testing.assert_allclose(getattr(ours, name), theirs, **close, err_msg=name)
    for name in ("n_iter_", "t_", "n_layers_", "n_outputs_", "out_activation_", "n_features_in_"):
        assert getattr(ours, name) == getattr(peer, name), name
    for name in ("coefs_", "intercepts_"):
        for mine, theirs in zip(getattr(ours, name), getattr(peer, name), strict=True):
            assert mine.dtype == theirs.dtype
            np.testing.assert_allclose(mine, theirs, **close, err_msg=name)
    mine, theirs = ours.predict(inputs), peer.predict(inputs)
    assert mine.dtype == theirs.dtype
    if hasattr(peer, "predict_proba"):
        np.testing.assert_array_equal(mine, theirs)
        np.testing.assert_array_equal(ours.classes_, peer.classes_)
        for method in ("predict_proba", "predict_log_proba"):
            np.testing.assert_allclose(
                getattr(ours, method)(inputs), getattr(peer, method)(inputs), **close
            )
    else:
        np.testing.assert_allclose(mine, theirs, **close)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
@pytest.mark.parametrize(
    ("name", "kind"),
    [("MLPClassifier", kind) for kind in LABELS] + [("MLPRegressor", kind) for kind in NUMBERS],
)
@pytest.mark.parametrize("xb_device", ["cpu"], indirect=True)
def test_numbers_are_scikit_learns(
    name: str, kind: str, options: dict[str, Any], weighted: bool, xb_device: Device
) -> None:
    check_numbers(name, kind, options, weighted)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize(
    ("name", "kind", "weighted"), [("MLPClassifier", "two", True), ("MLPRegressor", "one", False)]
)
@pytest.mark.parametrize("xb_device", ["fake", "cuda"], indirect=True)
def test_numbers_on_a_device(
    name: str, kind: str, options: dict[str, Any], weighted: bool, xb_device: Device
) -> None:
    """Fewer of them: what is computed does not depend on the device, only where it may."""
    check_numbers(name, kind, options, weighted)


def check_numbers(name: str, kind: str, options: dict[str, Any], weighted: bool) -> None:
    y = LABELS[kind] if name == "MLPClassifier" else NUMBERS[kind]
    if kind == "counts":
        options = {"loss": "poisson", **options}
    ours, peer = both(name, **{**SMALL, **options})
    weight = WEIGHT if weighted else None
    compare(ours.fit(X, y, weight), peer.fit(X, y, weight), tolerance=1e-6)


@pytest.mark.parametrize("form", [scipy.sparse.csr_array, scipy.sparse.csc_matrix])
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_sparse_inputs(form: Any, solver: str, xb_device: Device) -> None:
    sparse = form(np.where(np.abs(X) > 0.5, X, 0))
    ours, peer = both("MLPClassifier", **SMALL, solver=solver)
    compare(ours.fit(sparse, LABELS["three"]), peer.fit(sparse, LABELS["three"]), sparse)


def test_float32_stays_float32(xb_device: Device) -> None:
    inputs = X.astype(np.float32)
    ours, peer = both("MLPClassifier", **SMALL)
    compare(ours.fit(inputs, LABELS["three"]), peer.fit(inputs, LABELS["three"]), inputs, 1e-4)


@pytest.mark.parametrize("solver", ["sgd", "adam"])
def test_partial_fit_and_warm_start(solver: str, xb_device: Device) -> None:
    ours, peer = both("MLPClassifier", **SMALL, solver=solver)
    for _ in range(3):
        for model in (ours, peer):
            model.partial_fit(X, LABELS["three"], classes=[0, 1, 2])
        compare(ours, peer)
    for model in (ours, peer):
        model.set_params(warm_start=True).fit(X, LABELS["three"])
    compare(ours, peer)


def test_partial_fit_of_numbers_takes_every_solver(xb_device: Device) -> None:
    """scikit-learn's regressor goes on by L-BFGS too, its classifier does not."""
    ours, peer = both("MLPRegressor", **SMALL, solver="lbfgs")
    for _ in range(2):
        for model in (ours, peer):
            model.partial_fit(X, NUMBERS["several"])
        compare(ours, peer)


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("solver", ["sgd", "adam"])
def test_epochs_go_on_after_lbfgs(
    name: str, early_stopping: bool, solver: str, xb_device: Device
) -> None:
    """scikit-learn lacks the records of epochs there, and ends with an AttributeError."""
    targets = {"MLPClassifier": LABELS["three"], "MLPRegressor": NUMBERS["one"]}[name]
    models = both(name, **SMALL, solver="lbfgs", warm_start=True)
    for model in models:
        model.fit(X, targets).set_params(solver=solver, early_stopping=early_stopping)
    ours, peer = models
    peer.loss_curve_, peer._no_improvement_count = [], 0
    peer.validation_scores_ = [] if early_stopping else None
    peer.best_validation_score_ = -np.inf if early_stopping else None
    peer.best_loss_ = None if early_stopping else np.inf
    compare(ours.fit(X, targets), peer.fit(X, targets))
    if not early_stopping:
        for model in models:
            model.partial_fit(X, targets)
        compare(ours, peer)


@pytest.mark.parametrize("form", [scipy.sparse.csr_array, scipy.sparse.csc_matrix])
@pytest.mark.parametrize("options", ["defaults", "early stopping", "lbfgs"])
def test_sparse_labels(form: Any, options: str, xb_device: Device) -> None:
    ours, peer = both("MLPClassifier", **{**SMALL, **OPTIONS[options]})
    labels = form(LABELS["many"])
    for model in (ours, peer):
        model.fit(X, labels)
    found, expected = ours.predict(X), peer.predict(X)
    assert type(found) is type(expected)
    np.testing.assert_array_equal(found.toarray(), expected.toarray())
    np.testing.assert_allclose(ours.predict_proba(X), peer.predict_proba(X), rtol=1e-6)
    assert ours.score(X, labels) == peer.score(X, labels)


def test_a_warm_start_keeps_the_best_weights(xb_device: Device) -> None:
    """scikit-learn trains its best weights on, and keeps the last where no score is better."""
    options = {**SMALL, "warm_start": True, "early_stopping": True, "tol": 0.0, "max_iter": 3}
    ours, peer = both("MLPClassifier", **options)
    best = []
    for _ in range(2):
        for model in (ours, peer):
            model.fit(X, LABELS["two"]).set_params(learning_rate_init=1e-9)
        best.append((ours.best_validation_score_, [values.copy() for values in ours.coefs_]))
    assert best[0][0] == best[1][0]
    for before, after in zip(best[0][1], best[1][1], strict=True):
        np.testing.assert_array_equal(before, after)
    assert ours.loss_curve_ == pytest.approx(peer.loss_curve_, rel=1e-6)
    assert any(
        (mine != theirs).any() for mine, theirs in zip(ours.coefs_, peer.coefs_, strict=True)
    )


DIVERGES: dict[str, dict[str, Any]] = {
    "no score is a number": {"solver": "sgd", "learning_rate_init": 80.0},
    "predictions underflow": {"solver": "lbfgs"},
}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("options", DIVERGES.values(), ids=DIVERGES)
def test_training_that_diverges(options: dict[str, Any], xb_device: Device) -> None:
    """Early stopping gives the first weights back; L-BFGS steps back from what is no number."""
    ours, peer = both(
        "MLPRegressor", **SMALL, **options,
        loss="poisson", activation="identity", early_stopping=True,
    )  # fmt: skip
    for model in (ours, peer):
        model.fit(X * 50, NUMBERS["counts"])
    compare(ours, peer, X * 50)
    assert np.isnan(ours.loss_)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("score", [-1000.0, 0.0, 1000.0])
@pytest.mark.parametrize("target", [-1.0, 0.0, 2.0])
def test_poisson_loss_at_the_ends(score: float, target: float, xb_device: Device) -> None:
    """L-BFGS looks at it there, and decides otherwise on a number than on none."""
    prediction = np.exp(np.array(score))
    expected = scipy.special.xlogy(target, target / prediction) - target + prediction
    scores, y = (xb.to_device(np.full((1, 1), value), xb_device) for value in (score, target))
    with np.errstate(all="ignore"):
        loss, _ = canonical_loss_forward(scores, y, None, 1.0, "exp")
    np.testing.assert_allclose(xb.to_host(loss), expected)


def test_what_is_printed(capsys: pytest.CaptureFixture[str], xb_device: Device) -> None:
    for options in ("stops", "adaptive", "early stopping"):
        ours, peer = both("MLPClassifier", **{**SMALL, **OPTIONS[options]}, verbose=True)
        ours.fit(X, LABELS["two"])
        printed = capsys.readouterr().out
        peer.fit(X, LABELS["two"])
        assert printed == capsys.readouterr().out


# --- the interface ------------------------------------------------------------------------


def parameters_of(function: Any) -> list[Any]:
    found = inspect.signature(function).parameters.values()
    return [(p.name, p.kind, p.default) for p in found if p.name != "device"]


@pytest.mark.parametrize("name", OURS)
def test_the_interface_is_scikit_learns(name: str) -> None:
    ours, peer = OURS[name], getattr(peers, name)
    assert parameters_of(ours) == parameters_of(peer)
    names = [member for member in dir(peer) if not member.startswith("_")]
    assert names == [member for member in dir(ours) if not member.startswith("_")]
    for member in names:
        if callable(getattr(peer, member)):
            assert parameters_of(getattr(ours, member)) == parameters_of(getattr(peer, member))
    assert repr(ours(alpha=1.0, solver="sgd")) == repr(peer(alpha=1.0, solver="sgd"))
    assert ours().__sklearn_tags__() == peer().__sklearn_tags__()


# Values of each parameter that are wrong, or nearly so.
NEARLY: dict[str, list[Any]] = {
    "hidden_layer_sizes": [0, -1, (3, -1), "ab", None, 2.5, np.array([0])],
    "activation": ["gelu", None], "solver": ["newton", 1], "learning_rate": ["cosine", None],
    "alpha": [-1e-9, "a", None], "batch_size": [0, 2.5, "all"], "power_t": [-0.1, "x"],
    "learning_rate_init": [0, -1, "x"], "max_iter": [0, 1.5, None], "shuffle": ["yes", 2],
    "random_state": ["a", -1, 1.5], "tol": [-1, None], "verbose": ["yes", -1],
    "warm_start": ["x", 1], "momentum": [-0.1, 0, 1, 1.1], "nesterovs_momentum": ["x", 1],
    "early_stopping": ["x", 1], "validation_fraction": [-0.1, 1.0, 2], "beta_1": [-0.1, 0, 1],
    "beta_2": [-0.1, 0, 1], "epsilon": [0, -1], "n_iter_no_change": [0, 1.5, np.inf],
    "max_fun": [0, 2.5],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "parameter"),
    [*((name, parameter) for name in OURS for parameter in NEARLY), ("MLPRegressor", "loss")],
)
def test_every_parameter_is_checked_as_in_scikit_learn(name: str, parameter: str) -> None:
    assert {*NEARLY, "loss"} == set(peers.MLPRegressor().get_params())
    y = np.arange(12) % 2
    for value in NEARLY.get(parameter, ["mse", "log_loss", None]):
        ends = []
        for model in both(name, max_iter=1):
            try:
                model.set_params(**{parameter: value}).fit(X[:12], y)
                ends.append("")
            except (TypeError, ValueError) as error:
                ends.append(f"{type(error)} {sorted(re.findall(r'[^ ,{}]+', str(error)))}")
        assert ends[0] == ends[1], value


# --- refusals and warnings ----------------------------------------------------------------

BAD: dict[str, tuple[dict[str, Any], Any, Any, Any]] = {
    "hidden sizes": ({"hidden_layer_sizes": (3, 0)}, X, LABELS["two"], None),
    "activation": ({"activation": "gelu"}, X, LABELS["two"], None),
    "tol": ({"tol": -1}, X, LABELS["two"], None),
    "NaN": ({}, np.where(X > 2, np.nan, X), LABELS["two"], None),
    "length": ({}, X[:5], LABELS["two"], None),
    "weights": ({}, X, LABELS["two"], WEIGHT[:4]),
    "weights of zero in a batch": (
        {"shuffle": False, "batch_size": 30}, X, LABELS["two"], np.repeat([1.0, 0.0], [30, 60])),
    "few to validate": ({"early_stopping": True, "validation_fraction": 0.1}, X[:9],
                        LABELS["many"][:9], None),
    "diverges": ({"solver": "sgd", "learning_rate_init": 1e300}, X, LABELS["two"], None),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(("options", "x", "y", "weight"), BAD.values(), ids=BAD)
def test_refusals_are_scikit_learns(
    options: dict[str, Any], x: Any, y: Any, weight: Any, xb_device: Device
) -> None:
    messages = []
    for model in both("MLPClassifier", **SMALL):
        model.set_params(**options)
        with pytest.raises(Exception, match=r".") as caught:
            model.fit(x, y, weight)
        words = sorted(re.findall(r"\w+", str(caught.value)))  # a set of choices has no order
        messages.append((caught.type, words))
    assert messages[0] == messages[1]


def test_other_classes_are_refused() -> None:
    for model in both("MLPClassifier", **SMALL):
        with pytest.raises(ValueError, match="classes must be passed"):
            model.partial_fit(X, LABELS["three"])
        model.partial_fit(X, LABELS["three"], classes=[0, 1, 2])
        with pytest.raises(ValueError, match="classes not in"):
            model.partial_fit(X, LABELS["three"] + 1)
        with pytest.raises(ValueError, match="warm_start can only"):
            model.set_params(warm_start=True).fit(X, LABELS["three"] + 1)
        model.set_params(early_stopping=True, warm_start=False)
        with pytest.raises(ValueError, match="early_stopping=True"):
            model.partial_fit(X, LABELS["three"])
        model.set_params(solver="lbfgs")
        with pytest.raises(AttributeError):
            _ = model.partial_fit


@pytest.mark.parametrize("make", [MLPRegressor, NeuralRegressor, peers.MLPRegressor])
@pytest.mark.parametrize("texts", [["1", "2", "3"], ["a", "b", "c"]])
def test_texts_are_no_numbers(make: Any, texts: list[str]) -> None:
    with pytest.raises(TypeError) as caught:
        make().fit(X[:30], texts * 10)
    if make is not peers.MLPRegressor:
        assert f"{make.__name__} expects y of numbers; got texts (<U1)" in str(caught.value)


def test_other_layers_are_refused() -> None:
    """Not so by scikit-learn, which trains the old ones on, or fails somewhere."""
    model = MLPRegressor(**SMALL, device="cpu").partial_fit(X, NUMBERS["one"])
    message = r"MLPRegressor goes on .* \[4, 7, 5, 1\] units .* hidden_layer_sizes and y ask for "
    with pytest.raises(ValueError, match=message + r"\[4, 7, 5, 2\]\. Call fit with warm_start="):
        model.partial_fit(X, NUMBERS["several"])
    for sizes in ((7, 6), (7,), ()):
        model.set_params(hidden_layer_sizes=sizes, warm_start=True)
        for fit in (model.fit, model.partial_fit):
            with pytest.raises(ValueError, match=message):
                fit(X, NUMBERS["one"])
    model.set_params(hidden_layer_sizes=(7, 5)).fit(X, NUMBERS["one"])
    model.set_params(hidden_layer_sizes=(3,), warm_start=False).fit(X, NUMBERS["several"])
    assert [values.shape for values in model.coefs_] == [(4, 3), (3, 2)]


def test_warnings_are_scikit_learns() -> None:
    for options in (
        {}, {"max_iter": True}, {"batch_size": 1000}, {"solver": "lbfgs", "max_iter": 2}
    ):  # fmt: skip
        seen = []
        for model in both("MLPClassifier", **{**SMALL, **options}):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                model.fit(X, LABELS["two"])
            seen.append([(w.category, str(w.message)) for w in caught])
        assert seen[0] == seen[1]
        assert any(category is ConvergenceWarning for category, _ in seen[0])


def test_a_wrong_device_is_refused() -> None:
    with pytest.raises(xb.DeviceError, match="fake"):
        MLPClassifier(device="tpu").fit(X, LABELS["two"])


# --- devices ------------------------------------------------------------------------------


@pytest.mark.parametrize("xb_device", ["fake", "fake:1"], indirect=True)
def test_data_moves_once_per_fit(xb_device: Device) -> None:
    with xb.transfer_log() as log:
        MLPClassifier(**SMALL, batch_size=10).fit(X, LABELS["three"])
    # X, y, and two arrays a layer; one order and one loss an epoch; the weights come back.
    assert log.uploads == 2 + 6 + 12
    assert log.downloads == log.synchronizations == 12 + 6


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
    inputs = np.random.default_rng(1).normal(size=(400, 100))
    y = inputs[:, 0] > 0
    options = {**SMALL, "max_iter": 2, "batch_size": 20}
    expected = MLPClassifier(**options).fit(inputs, y)
    try:
        set_memory_limit(inputs.nbytes)
        with xb.transfer_log() as log:
            streamed = MLPClassifier(**options).fit(inputs, y)
        set_memory_limit(4_000_000)
        with xb.transfer_log() as predicting:
            streamed.predict(np.tile(inputs, (8, 1)))
    finally:
        set_memory_limit(None)
    assert streamed.loss_curve_ == expected.loss_curve_
    # y, two arrays a layer, an order an epoch, and each batch; the losses and the layers.
    assert log.uploads == 1 + 6 + 2 + 40
    assert log.downloads == log.synchronizations == 2 + 6
    assert (predicting.uploads, predicting.downloads) == (6 + 4, 4)
    assert copies == [20] * 40 + [1024] * 3 + [128]  # all of them from pinned memory


def test_a_file_goes_on_on_another_device(xb_device: Device) -> None:
    options = {**SMALL, "solver": "adam"}
    moving, staying = MLPClassifier(**options, device=xb_device), MLPClassifier(**options)
    staying.set_params(device="cpu")
    for model in (moving, staying):
        model.partial_fit(X, LABELS["three"], classes=[0, 1, 2])
    for device in ("cpu", "fake:2", xb_device):
        file = io.BytesIO()
        joblib.dump(moving, file)
        file.seek(0)
        moving = joblib.load(file).set_params(device=device)
        for model in (moving, staying):
            model.partial_fit(X, LABELS["three"])
        np.testing.assert_allclose(moving.loss_curve_, staying.loss_curve_, rtol=1e-9)


# --- scikit-learn's tools -----------------------------------------------------------------


@parametrize_with_checks(
    [MLPClassifier(max_iter=100, device="cpu"), MLPRegressor(max_iter=100, device="cpu")]
)
@pytest.mark.filterwarnings("ignore")  # the checks provoke what they look for
def test_scikit_learns_own_checks(estimator: Any, check: Any) -> None:
    check(estimator)


def test_pipelines_and_searches() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=list("abcd"))
    model = MLPClassifier(**SMALL, device="cpu")
    pipeline = make_pipeline(StandardScaler().set_output(transform="pandas"), model)
    search = GridSearchCV(pipeline, {"mlpclassifier__alpha": [1e-4, 1.0]}, n_jobs=2, cv=2)
    search.fit(frame, LABELS["two"])
    fitted = search.best_estimator_[-1]
    assert list(fitted.feature_names_in_) == list("abcd")
    assert "MLPClassifier" in search._repr_html_()
    with pytest.raises(ValueError, match="feature names"):
        fitted.predict(frame[["b", "a", "c", "d"]])
    peer = peers.MLPClassifier(**SMALL)
    scores, expected = (cross_val_score(m, X, LABELS["two"], cv=3) for m in (model, peer))
    np.testing.assert_allclose(scores, expected)
    assert clone(fitted).get_params() == fitted.get_params()


@pytest.mark.parametrize("solver", ["sgd", "adam"])
def test_a_skipped_step_changes_no_bit(solver: str, xb_device: Device) -> None:
    layer = xb.nn.Linear(3, 2, rng=0)
    if solver == "sgd":
        optimizer: Any = VelocitySGD(layer.parameters(), 0.1, 0.9, True, 0.1)
    else:
        optimizer = EpsilonHatAdam(layer.parameters(), 0.1, weight_decay=0.1)
    optimizer.skip_nonfinite = True
    for value in (1.0, float("nan")):
        before = {key: values.copy() for key, values in layer.state_dict().items()}
        for parameter in layer.parameters():
            parameter.grad = parameter.data * 0 + value
        optimizer.step()
    for name, values in layer.state_dict().items():
        np.testing.assert_array_equal(values, before[name])
