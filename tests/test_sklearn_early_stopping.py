"""NeuralClassifier and NeuralRegressor know when to stop, as scikit-learn's MLPs do."""

import re
import warnings
from typing import Any

import numpy as np
import pytest

import xbackprop as xb
from xbackprop.backend.device import Device

pytest.importorskip("sklearn", minversion="1.9")

import scipy.sparse
from sklearn import neural_network as peers
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import train_test_split

from xbackprop.sklearn import NeuralClassifier, NeuralRegressor

nn = xb.nn
RNG = np.random.default_rng(7)
X = RNG.normal(size=(60, 5))
LABELS = np.where(X[:, 0] + 0.7 * RNG.normal(size=60) > 0, "yes", "no")
NUMBERS = X[:, 0] * X[:, 1] + 0.3 * RNG.normal(size=60)
WEIGHT = RNG.uniform(0.2, 3, size=60)
MODELS: dict[str, Any] = {
    "classes": (NeuralClassifier, LABELS, 2, accuracy_score),
    "numbers": (NeuralRegressor, NUMBERS, 1, r2_score),
}
EARLY: dict[str, Any] = {"early_stopping": True, "random_state": 0, "learning_rate_init": 0.03}
fleeting = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def make_network(outputs: int) -> nn.Module:
    """One that computes otherwise in training, and has running statistics."""
    layers = nn.Linear(5, 20), nn.BatchNorm1d(20), nn.ReLU(), nn.Dropout(0.3)
    return nn.Sequential(*layers, nn.Linear(20, outputs), rng=0)


# --- the best weights ---------------------------------------------------------------------


@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
@pytest.mark.parametrize("name", MODELS)
def test_the_best_weights_are_restored(name: str, weighted: bool, xb_device: Device) -> None:
    make, y, outputs, measure = MODELS[name]
    weight = WEIGHT if weighted else None
    options = {"batch_size": 16, "validation_fraction": 0.3, "n_iter_no_change": 8}
    model = make(make_network(outputs), **options, **EARLY)
    model.fit(X, y, weight)
    scores, best = model.validation_scores_, model.best_validation_score_
    assert len(scores) == len(model.loss_curve_) == model.n_iter_ < model.max_iter
    assert best == max(scores) > scores[-1]
    assert model.best_loss_ is None
    assert model.t_ == 42 * model.n_iter_
    stratify = y if name == "classes" else None
    parts = train_test_split(X, y, WEIGHT, random_state=0, test_size=0.3, stratify=stratify)
    held, expected, held_weight = parts[1::2]
    weights = {"sample_weight": held_weight} if weighted else {}
    assert measure(expected, model.predict(held), **weights) == pytest.approx(best, rel=1e-6)


def test_without_it_the_loss_judges(capsys: pytest.CaptureFixture[str]) -> None:
    model = NeuralRegressor(tol=0.1, n_iter_no_change=2, verbose=True, device="cpu").fit(X, NUMBERS)
    assert model.validation_scores_ is model.best_validation_score_ is None
    assert model.best_loss_ == min(model.loss_curve_)
    assert model.n_iter_ < model.max_iter
    reason = "Training loss did not improve more than tol=0.100000 for 2 consecutive epochs."
    assert capsys.readouterr().out.endswith(f"{reason} Stopping.\n")
    NeuralRegressor(n_iter_no_change=1, verbose=True, device="cpu", **EARLY).fit(X, NUMBERS)
    printed = capsys.readouterr().out
    assert re.search(r"Iteration 1, loss = \d\.\d{8}\nValidation score: -?\d\.\d{6}\n", printed)
    assert "Validation score did not improve more than tol=0.000100 for 1 consecutive" in printed


class NotANumberLater(nn.Module):
    """Gives NaN where it is not trained."""

    def forward(self, x: Any) -> Any:
        return (x if self.training else x * float("nan")), None

    def backward(self, grad_output: Any, saved: Any, *, input_grad: bool = True) -> Any:
        return grad_output


def test_scores_that_are_no_numbers(xb_device: Device) -> None:
    network = nn.Sequential(nn.Linear(5, 1, rng=0), NotANumberLater())
    model = NeuralRegressor(network, max_iter=4, n_iter_no_change=1, **EARLY)
    with pytest.warns(ConvergenceWarning):
        model.fit(X, NUMBERS)
    assert np.isnan(model.validation_scores_).all()
    assert len(model.validation_scores_) == 4
    assert model.best_validation_score_ == -np.inf
    before, after = (m.state_dict()["0.weight"] for m in (network, model.module_))
    assert not np.allclose(before, after)  # what was learned is not given up for the first weights


# --- fits that go on ----------------------------------------------------------------------


@fleeting
def test_warm_starts(xb_device: Device) -> None:
    model = NeuralClassifier(make_network(2), warm_start=True, max_iter=3, **EARLY)
    for fits in (1, 2, 3):
        model.fit(X, LABELS)
        assert len(model.validation_scores_) == len(model.loss_curve_) == 3 * fits
        assert model.best_validation_score_ == max(model.validation_scores_)
        assert (model.n_iter_, model.t_) == (3, 54 * 3 * fits)
    for stops_early in (False, True):  # judged otherwise: what was best is forgotten
        model.set_params(early_stopping=stops_early).fit(X, LABELS)
        assert (model.best_loss_ is None) is stops_early
        assert len(model.validation_scores_ or []) == 3 * stops_early
    assert len(model.loss_curve_) == 15


@fleeting
def test_a_fit_that_fails_leaves_one_that_goes_on(xb_device: Device) -> None:
    """Network and optimizer belong together, also when the second fit breaks off."""
    options = {"max_iter": 2, "shuffle": False, "batch_size": 30}
    model = NeuralRegressor(make_network(1), **options).fit(X, NUMBERS)
    with pytest.raises(ZeroDivisionError):
        model.fit(X, NUMBERS, np.repeat([1.0, 0.0], 30))
    predicted = model.predict(X)
    np.testing.assert_array_equal(model.predict(X), predicted)  # no dropout
    before = model.module_.state_dict()
    model.partial_fit(X, NUMBERS)
    after = model.module_.state_dict()
    assert not np.array_equal(before["0.weight"], after["0.weight"])


class Interrupted(nn.Module):
    """Is the user who presses Ctrl-C in a training step."""

    def __init__(self, after: int) -> None:
        self.calls, self.after = 0, after

    def forward(self, x: Any) -> Any:
        self.calls += self.training
        if self.training and self.calls > self.after:
            raise KeyboardInterrupt
        return x, None

    def backward(self, grad_output: Any, saved: Any, *, input_grad: bool = True) -> Any:
        return grad_output


@pytest.mark.parametrize("stops_early", [False, True])
@pytest.mark.parametrize("after", [0, 7])
def test_interrupts_keep_what_was_learned(after: int, stops_early: bool, xb_device: Device) -> None:
    network = nn.Sequential(make_network(2), Interrupted(after))
    model = NeuralClassifier(network, batch_size=27, random_state=0, early_stopping=stops_early)
    with pytest.warns(UserWarning, match=r"Training interrupted by user\."):
        model.fit(X, LABELS)
    per_epoch = 2 if stops_early else 3
    assert model.n_iter_ == len(model.loss_curve_) == after // per_epoch
    assert model.predict(X).shape == (60,)
    if stops_early:
        assert len(model.validation_scores_) == model.n_iter_


# --- refusals and warnings ----------------------------------------------------------------

RARE = np.where(np.arange(60) == 4, "rare", "often")
BAD: dict[str, tuple[dict[str, Any], Any, Any]] = {
    "one member": ({}, X, RARE),
    "few to validate": ({}, X[:9], np.arange(9) % 3),
    "nothing to validate": ({"validation_fraction": 0.0}, X, LABELS),
    "all to validate": ({"validation_fraction": 1.0}, X, LABELS),
    "no bool": ({"early_stopping": "yes"}, X, LABELS),
    "fewer than classes": ({"validation_fraction": 0.01}, X, LABELS),
}


@pytest.mark.parametrize(("options", "x", "y"), BAD.values(), ids=BAD)
def test_refusals_are_scikit_learns(options: dict[str, Any], x: Any, y: Any) -> None:
    messages = []
    for make in (NeuralClassifier, peers.MLPClassifier):
        with pytest.raises(ValueError, match=r".") as caught:
            make(**{"early_stopping": True, "random_state": 0, **options}).fit(x, y)
        messages.append(re.sub("(Neural|MLP)", "", str(caught.value)))
    # The strata of scikit-learn are bools of a column, and say so.
    assert messages[0].split(".")[0] == messages[1].split(".")[0]


@pytest.mark.parametrize("name", MODELS)
def test_partial_fit_does_not_stop_early(name: str) -> None:
    make, y, *_ = MODELS[name]
    options = {"classes": ["no", "yes"]} if name == "classes" else {}
    with pytest.raises(ValueError, match="partial_fit does not support early_stopping=True"):
        make(device="cpu", **EARLY).partial_fit(X, y, **options)


def test_warnings_are_scikit_learns() -> None:
    for options in ({"max_iter": 2}, {"max_iter": 2, "batch_size": 55, "early_stopping": True}):
        seen = []
        for make in (NeuralClassifier, peers.MLPClassifier):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                make(random_state=0, **options).fit(X, LABELS)
            seen.append([(w.category, str(w.message)) for w in caught])
        assert seen[0] == seen[1]
        assert len(seen[0]) == (2 if "batch_size" in options else 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        NeuralClassifier(max_iter=1).partial_fit(X, LABELS, classes=["no", "yes"])


def test_a_class_may_be_missing_in_the_training_part(xb_device: Device) -> None:
    """Of more than two classes none is looked after, as in scikit-learn's MLPClassifier."""
    y = np.where(np.arange(60) == 4, "rare", LABELS)
    seed = next(
        seed for seed in range(100)
        if "rare" not in train_test_split(y, random_state=seed, test_size=0.1)[0]
    )  # fmt: skip
    model = NeuralClassifier(make_network(3), early_stopping=True, random_state=seed).fit(X, y)
    assert model.classes_.tolist() == ["no", "rare", "yes"]
    assert model.predict_proba(X).shape == (60, 3)
    assert model.best_validation_score_ < 1


# --- inputs, outputs, transfers -----------------------------------------------------------


@pytest.mark.parametrize("form", [scipy.sparse.csr_array, scipy.sparse.csc_matrix])
@pytest.mark.parametrize("name", MODELS)
def test_sparse_inputs(name: str, form: Any, xb_device: Device) -> None:
    make, y, outputs, _ = MODELS[name]
    dense = np.where(np.abs(X) > 0.5, X, 0)
    fits = []
    for inputs in (dense, form(dense)):
        model = make(make_network(outputs), batch_size=16, n_iter_no_change=2, **EARLY)
        model.fit(inputs, y, WEIGHT)
        fits.append((model.loss_curve_, model.validation_scores_, model.predict(inputs).tolist()))
    assert fits[0] == fits[1]


@fleeting
def test_logarithms_of_probabilities(xb_device: Device) -> None:
    model = NeuralClassifier(max_iter=20, learning_rate_init=0.1, random_state=0).fit(X, LABELS)
    logarithms, probabilities = model.predict_log_proba(X), model.predict_proba(X)
    np.testing.assert_allclose(np.exp(logarithms), probabilities, rtol=1e-5)
    far = model.predict_log_proba(X * 1e4)
    assert (model.predict_proba(X * 1e4) == 0).any()
    assert np.isfinite(far).all()


@fleeting
@pytest.mark.parametrize("xb_device", ["fake", "fake:1"], indirect=True)
@pytest.mark.parametrize("name", MODELS)
def test_what_judges_moves_once_per_fit(name: str, xb_device: Device) -> None:
    make, y, outputs, _ = MODELS[name]
    network = make_network(outputs)
    counts = []
    for batch_size in (18, 6):
        with xb.transfer_log() as log:
            make(network, max_iter=3, batch_size=batch_size, **EARLY).fit(X, y)
        counts.append((log.uploads, log.downloads, log.synchronizations))
    assert counts[0] == counts[1]  # none of them in a step
    assert counts[0][0] == 3 + 3  # two kinds of inputs, targets, and an order an epoch
    with xb.transfer_log() as log:
        make(network, max_iter=3, batch_size=18, random_state=0).fit(X, y)
    assert counts[0][1] - log.downloads == 3  # the predictions that are scored
