"""`sample_weight` of NeuralClassifier and NeuralRegressor: a weight of 2 is the sample twice."""

from typing import Any

import numpy as np
import pytest

import xbackprop as xb
from xbackprop.backend.device import Device

pytest.importorskip("sklearn", minversion="1.9")

from sklearn import neural_network as peers

from xbackprop.sklearn import NeuralClassifier, NeuralRegressor
from xbackprop.sklearn.weighted import WeightedLoss

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
nn = xb.nn
RNG = np.random.default_rng(5)
X = RNG.normal(size=(40, 6))
LABELS = np.array(["a", "b", "c"])[np.digitize(X[:, 0], [-0.4, 0.4])]
NUMBERS = np.stack([X[:, 0] * X[:, 1], X[:, 2]], axis=1)
TIMES = RNG.integers(0, 4, size=40)
MODELS = {"classes": (NeuralClassifier, LABELS), "numbers": (NeuralRegressor, NUMBERS)}

# --- the loss -----------------------------------------------------------------------------

LABELED: dict[str, tuple[nn.Module, str]] = {
    "cross-entropy": (nn.CrossEntropyLoss(), "classes"),
    "of a sum": (nn.CrossEntropyLoss(reduction="sum"), "classes"),
    "smoothed": (nn.CrossEntropyLoss(label_smoothing=0.2), "classes"),
    "class weights": (nn.CrossEntropyLoss(weight=np.array([0.5, 2.0, 3.0])), "classes"),
    "ignored": (nn.CrossEntropyLoss(ignore_index=1), "classes"),
    "likelihood": (nn.NLLLoss(weight=np.array([0.5, 2.0, 3.0]), ignore_index=1), "classes"),
    "margin": (nn.MultiMarginLoss(weight=np.array([0.5, 2.0, 3.0])), "classes"),
    "squared": (nn.MSELoss(), "numbers"),
    "sum of squares": (nn.MSELoss(reduction="sum"), "numbers"),
    "divergence": (nn.KLDivLoss(reduction="batchmean"), "numbers"),
    "binary": (nn.BCEWithLogitsLoss(pos_weight=np.array([1.0, 2.0, 0.5])), "numbers"),
    "Dice": (nn.DiceLoss(), "numbers"),
}


def place(device: Device, *arrays: np.ndarray) -> Any:
    return [xb.to_device(array, device) for array in arrays]


def targets_of(kind: str) -> np.ndarray:
    rng = np.random.default_rng(2)
    return np.array([2, 0, 1, 1, 0]) if kind == "classes" else rng.uniform(0.1, 0.9, size=(5, 3))


@pytest.mark.parametrize(("loss", "kind"), LABELED.values(), ids=LABELED)
def test_a_weight_is_a_number_of_repetitions(loss: nn.Module, kind: str, xb_device: Device) -> None:
    loss = loss.to(xb_device, np.float64)
    target, times = targets_of(kind), np.array([2.0, 0.0, 1.0, 3.0, 1.0])
    output = np.random.default_rng(1).uniform(0.1, 0.9, size=(5, 3))
    rows = np.repeat([0, 2, 3, 4], [2, 1, 3, 1])
    mine, target_there, samples = place(xb_device, output, target, np.arange(5))
    weighted = WeightedLoss(loss, target_there, times, np.float64)
    repeated = place(xb_device, output[rows], target[rows])
    value, saved = weighted.forward(mine, samples)
    expected, saved_expected = loss.forward(*repeated)
    np.testing.assert_allclose(xb.to_host(value), xb.to_host(expected), rtol=1e-12)
    grad = xb.to_host(weighted.backward(0.5, saved))
    grad_expected = np.zeros((5, 3))
    np.add.at(grad_expected, rows, xb.to_host(loss.backward(0.5, saved_expected)))
    np.testing.assert_allclose(grad, grad_expected, rtol=1e-12, atol=1e-14)


def test_the_given_loss_is_left_alone() -> None:
    loss = nn.MSELoss()
    NeuralRegressor(loss=loss, max_iter=2, device="cpu").fit(X, NUMBERS, TIMES)
    assert loss.reduction == "mean"


# --- fits ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_repeated_and_left_out_samples(name: str, xb_device: Device) -> None:
    make, y = MODELS[name]
    outputs = 3 if name == "classes" else 2
    module = nn.Sequential(nn.Linear(6, 8, rng=0), nn.Tanh(), nn.Linear(8, outputs, rng=1))
    options = {"module": module.to(dtype=np.float64), "max_iter": 12, "learning_rate_init": 0.05}
    weighted = make(**options).fit(X, y, TIMES)
    repeated = make(**options).fit(X.repeat(TIMES, axis=0), y.repeat(TIMES, axis=0))
    np.testing.assert_allclose(weighted.loss_curve_, repeated.loss_curve_, rtol=1e-9)
    for key, values in repeated.module_.state_dict().items():
        np.testing.assert_allclose(weighted.module_.state_dict()[key], values, rtol=1e-7, atol=1e-9)
    left_out = make(**options).fit(X, y, np.minimum(TIMES, 1))
    kept = make(**options).fit(X[TIMES > 0], y[TIMES > 0])
    np.testing.assert_allclose(left_out.loss_curve_, kept.loss_curve_, rtol=1e-9)
    assert left_out.loss_curve_ != weighted.loss_curve_


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("scale", [1.0, 1e300])
def test_equal_weights_are_none(name: str, scale: float, xb_device: Device) -> None:
    make, y = MODELS[name]
    options = {"max_iter": 4, "random_state": 0, "batch_size": 16}
    plain = make(**options).fit(X, y)
    weighted = make(**options).fit(X, y, np.full(40, scale))
    np.testing.assert_allclose(weighted.loss_curve_, plain.loss_curve_, rtol=1e-5)


@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
def test_numbers_are_scikit_learns(weighted: bool, xb_device: Device) -> None:
    """Of a linear map: its loss is half the square, and an epoch's counts batches by samples."""
    options: dict[str, Any] = {"max_iter": 10, "batch_size": 15, "shuffle": False, "tol": 0.0}
    weight = TIMES + 0.5 if weighted else None
    start = peers.MLPRegressor(hidden_layer_sizes=(), max_iter=1, random_state=0)
    peer = peers.MLPRegressor(
        hidden_layer_sizes=(), alpha=0, solver="sgd", momentum=0, learning_rate_init=0.1,
        random_state=0, **options,
    )  # fmt: skip
    start.set_params(learning_rate_init=1e-300).fit(X, NUMBERS[:, 0])
    peer.fit(X, NUMBERS[:, 0], weight)
    module = nn.Linear(6, 1, dtype=np.float64)
    module.load_state_dict({"weight": start.coefs_[0].T, "bias": start.intercepts_[0]})
    ours = NeuralRegressor(module, optimizer=xb.optim.SGD, learning_rate_init=0.05, **options)
    ours.fit(X, NUMBERS[:, 0], weight)
    np.testing.assert_allclose(ours.loss_curve_, 2 * np.array(peer.loss_curve_), rtol=1e-12)
    np.testing.assert_allclose(ours.predict(X), peer.predict(X), rtol=1e-12)
    for name in ("n_iter_", "t_", "best_validation_score_", "validation_scores_"):
        assert getattr(ours, name) == getattr(peer, name)
    assert ours.best_loss_ == pytest.approx(2 * peer.best_loss_, rel=1e-12)


def test_weights_go_with_their_samples(xb_device: Device) -> None:
    """In every order, and by partial_fit; a sum has no mean that batches of zeros would lack."""
    weights = np.where(LABELS == "a", 1.0, 0.0)
    options: dict[str, Any] = {"max_iter": 60, "learning_rate_init": 0.1, "random_state": 0}
    for reduction, batch_size in (("sum", 7), ("mean", 40)):
        loss = nn.CrossEntropyLoss(reduction=reduction)
        model = NeuralClassifier(loss=loss, batch_size=batch_size, **options)
        model.fit(X, LABELS, weights)
        assert (model.predict(X) == "a").all()
        assert model.score(X, LABELS, weights) > 0.99 > model.score(X, LABELS)
    for _ in range(60):
        model.partial_fit(X, LABELS, np.where(LABELS == "b", 1.0, 0.0))
    assert (model.predict(X) == "b").all()


@pytest.mark.parametrize("xb_device", ["fake", "fake:1"], indirect=True)
@pytest.mark.parametrize("name", MODELS)
def test_weights_move_once_per_fit(name: str, xb_device: Device) -> None:
    make, y = MODELS[name]
    module = nn.Linear(6, 3 if name == "classes" else 2)
    counts = []
    for batch_size in (10, 2):
        with xb.transfer_log() as log:
            make(module, max_iter=3, batch_size=batch_size).fit(X, y, TIMES + 1.0)
        counts.append((log.uploads, log.downloads, log.synchronizations))
    assert counts[0] == counts[1]  # none of them in a step
    assert counts[0][0] == 3 + 3  # inputs, targets, weights, and an order an epoch


# --- refusals -----------------------------------------------------------------------------


class OnlyMeans(nn.Module):
    """A user's loss that gives its mean, whatever is asked."""

    def forward(self, output: Any, target: Any) -> Any:
        return ((output - target) ** 2).mean(), output - target

    def backward(self, grad_output: Any, saved: Any, *, input_grad: bool = True) -> Any:
        return saved * (2.0 / saved.size * grad_output)


class Pretender(OnlyMeans):
    reduction = "mean"


@pytest.mark.parametrize(
    ("loss", "why"),
    [(OnlyMeans(), "no attribute 'reduction'"), (Pretender(), r"shape \(\) for 40 samples"),
     (nn.HalfSquaredError(), "no attribute 'reduction'")],
)  # fmt: skip
def test_losses_without_numbers_per_sample(loss: nn.Module, why: str, xb_device: Device) -> None:
    model = NeuralRegressor(loss=loss, max_iter=2)
    model.fit(X, NUMBERS)
    name = type(loss).__name__
    with pytest.raises(NotImplementedError, match=f"sample_weight with the loss {name}: .*{why}"):
        model.fit(X, NUMBERS, TIMES)


def test_other_refusals(xb_device: Device) -> None:
    in_order: dict[str, Any] = {"shuffle": False, "batch_size": 20, "max_iter": 2}
    half = np.repeat([1.0, 0.0], 20)
    for make, y in MODELS.values():
        with pytest.raises(ZeroDivisionError, match="Weights sum to zero, can't be normalized"):
            make(**in_order).fit(X, y, half)
        with pytest.raises(ValueError, match="at least one non-zero"):
            make().fit(X, y, np.zeros(40))
        with pytest.raises(ValueError, match=r"inconsistent|shape"):
            make().fit(X, y, half[:5])
        with pytest.raises(ValueError, match="NaN"):
            make().fit(X, y, half * np.nan)
    NeuralRegressor(loss=nn.MSELoss(reduction="sum"), **in_order).fit(X, NUMBERS, half)
    with pytest.raises(ValueError, match=r"loss MSELoss to have a reduction .* got 'none'"):
        NeuralRegressor(loss=nn.MSELoss(reduction="none")).fit(X, NUMBERS, half)


def test_class_weights_are_moved_and_cast(xb_device: Device) -> None:
    """Of the loss: what its user gives lies on the host, in whatever float."""
    with xb.use_device("cpu"):
        loss = nn.CrossEntropyLoss(weight=np.array([1.0, 5.0, 1.0], dtype=np.float32))
    fits = []
    for weight in (None, np.ones(40)):
        module = nn.Linear(6, 3, rng=0, dtype=np.float64)
        fits.append(NeuralClassifier(module, loss=loss, max_iter=3).fit(X, LABELS, weight))
    np.testing.assert_allclose(fits[0].loss_curve_, fits[1].loss_curve_, rtol=1e-12)
