"""A batch and an epoch of a perceptron as one op each: the numbers of their references, of layers
and optimizer, and only where they are meant to serve."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from perceptron_calls import OUTPUTS, batch, epoch

import xbackprop as xb
from xbackprop.dispatch import Op
from xbackprop.kernels.loops import HAS_NUMBA, loops
from xbackprop.nn.perceptron import canonical_gradients
from xbackprop.nn.perceptron_epoch import perceptron_epoch

pytest.importorskip("scipy")
pytestmark = pytest.mark.skipif(not HAS_NUMBA, reason="numba is not installed (extra fast)")

DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])
UNITS = pytest.mark.parametrize("units", [(5, 3), (4, 7, 2), (3, 8, 1, 6, 4)], ids=str)
CLOSE = {np.float32: 2e-5, np.float64: 1e-12}


@pytest.fixture(autouse=True)
def on_cpu() -> Iterator[None]:
    with xb.use_device("cpu"):
        xb.nn.ReLU()(np.ones(3))  # so that dispatch has loaded the kernels
        yield


def arrays(value: Any) -> Iterator[np.ndarray]:
    if isinstance(value, tuple):
        for part in value:
            yield from arrays(part)
    elif isinstance(value, (np.ndarray, np.floating, float)):
        yield np.asarray(value)


def compare(op: Op, make: Any, tolerance: float) -> np.ndarray:
    """Run a call by its kernel and its reference; return what the kernel does."""
    mine, theirs = make(), make()
    kernel = op.kernel_on_cpu(*mine)
    assert kernel is not None
    with np.errstate(all="ignore"):
        received, expected = kernel(*mine), op.reference(*theirs)
    for one, other in zip(arrays((received, mine)), arrays((expected, theirs)), strict=True):
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)
    return received


@DTYPES
@UNITS
@pytest.mark.parametrize("is_weighted", [False, True], ids=["", "weighted"])
@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("activation", ["identity", "relu", "tanh", "sigmoid"])
def test_a_batch(
    activation: str, output: str, is_weighted: bool, units: tuple[int, ...], dtype: Any
) -> None:
    def make() -> Any:
        return batch(units, activation, output, dtype, is_weighted=is_weighted)

    loss = compare(canonical_gradients, make, CLOSE[dtype])
    assert loss.dtype == dtype


@DTYPES
@UNITS
@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("activation", ["identity", "relu"])
def test_an_epoch(activation: str, output: str, units: tuple[int, ...], dtype: Any) -> None:
    compare(perceptron_epoch, lambda: epoch(units, activation, output, dtype), CLOSE[dtype])


@pytest.mark.parametrize("batch_size", [1, 23, 1000])
@pytest.mark.parametrize("alpha", [0.0, 2.0])
def test_batches_of_any_size(batch_size: int, alpha: float) -> None:
    def make() -> Any:
        return epoch(
            (4, 7, 2), "relu", "softmax", np.float64, batch_size=batch_size, alpha=alpha
        )  # fmt: skip

    compare(perceptron_epoch, make, 1e-12)


@pytest.mark.parametrize(
    "change", [lambda x: np.repeat(x, 2, axis=1)[:, ::2], np.asfortranarray, lambda x: x[::-1]]
)
def test_inputs_of_any_strides(change: Any) -> None:
    def make() -> Any:
        x, *others = epoch((4, 7, 3), "relu", "softmax", np.float64)
        return (change(x), *others)

    compare(perceptron_epoch, make, 1e-12)


@DTYPES
@pytest.mark.parametrize("size", [30.0, 1e4])
@pytest.mark.parametrize("output", ["softmax", "logistic"])
@pytest.mark.parametrize(("op", "make"), [(canonical_gradients, batch), (perceptron_epoch, epoch)])
def test_probabilities_of_one_and_none(
    op: Op, make: Any, output: str, size: float, dtype: Any
) -> None:
    def sure() -> Any:
        x, *others = make((4, 7, 3), "relu", output, dtype)
        return (dtype(size) * x, *others)

    assert np.isfinite(compare(op, sure, 10 * CLOSE[dtype]))


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("activation", ["identity", "relu"])
@pytest.mark.parametrize(("op", "make"), [(canonical_gradients, batch), (perceptron_epoch, epoch)])
def test_numbers_that_are_none(
    op: Op, make: Any, activation: str, output: str, value: float
) -> None:
    def spoiled() -> Any:
        x, *others = make((4, 7, 3), activation, output, np.float64)
        x[3, 1] = value
        return (x, *others)

    compare(op, spoiled, 1e-12)


@DTYPES
def test_exponentials(dtype: Any) -> None:
    exact = np.concatenate([-np.logspace(-20, 2.84, 4001), -np.linspace(0, 700, 4001), [0.0]])
    x = (exact if dtype is np.float64 else exact * 0.12).astype(dtype)[None]
    expected, received = np.exp(x), x.copy()
    loops("columns").exponentials(received)
    assert np.abs(received / expected - 1).max() < 2.5 * np.finfo(dtype).eps
    far = np.array([[-1e3, -1e30, -np.inf, np.nan]], dtype)
    loops("columns").exponentials(far)
    np.testing.assert_array_equal(far, [[0, 0, 0, np.nan]])


def changed(arguments: tuple[Any, ...], place: int, value: Any) -> tuple[Any, ...]:
    return (*arguments[:place], value, *arguments[place + 1 :])


def test_a_batch_is_left_to_the_layers() -> None:
    units = (4, 7, 3)
    served = batch(units, "relu", "softmax")
    assert canonical_gradients.kernel_on_cpu(*served) is not None
    x, target = served[:2]
    refused = {
        "a loss without a loop": changed(served, 9, "exp"),
        "numbers for classes": changed(served, 1, target.astype(np.float32)),
        "other precisions": changed(served, 0, x.astype(np.float64)),
        "every other column": changed(served, 0, np.repeat(x, 2, axis=1)[:, ::2]),
        "too few outputs": changed(served, 1, target[:, :2].copy()),
        "weights by columns": changed(served, 4, tuple(map(np.asfortranarray, served[4]))),
        "gradients in halves": changed(served, 6, tuple(g.astype(np.float16) for g in served[6])),
        "an activated output": changed(served, 8, ("relu", "relu")),
        "fewer weights": changed(served, 2, np.ones(10, np.float32)),
        "no samples": batch(units, "relu", "softmax", samples=0),
    }
    for why, arguments in refused.items():
        assert canonical_gradients.kernel_on_cpu(*arguments) is None, why
    with xb.use_references():
        assert canonical_gradients.kernel_on_cpu(*served) is None


def test_an_epoch_is_left_to_its_batches() -> None:
    units = (4, 7, 3)
    served = epoch(units, "relu", "softmax")
    assert perceptron_epoch.kernel_on_cpu(*served) is not None
    large = epoch((400, 500, 3), "relu", "softmax")
    assert perceptron_epoch.kernel_on_cpu(*large) is not None
    x, target, order = served[:3]
    refused = {
        "what does not vectorize": changed(served, 5, "tanh"),
        "a loss without a loop": changed(served, 6, "exp"),
        "numbers for classes": changed(served, 1, target.astype(np.float32)),
        "other precisions": changed(served, 0, x.astype(np.float64)),
        "inputs of halves": changed(served, 0, x.astype(np.float16)),
        "a short order": changed(served, 2, order.astype(np.int32)),
        "no samples": changed(served, 2, order[:0]),
        "means in other precisions": changed(
            served, 7, (*served[7][:3], served[7][3].astype(np.float64))
        ),
        "more features": changed(served, 4, (5, 7, 3)),
        "fewer outputs": changed(served, 1, target[:, :2].copy()),
        "fewer targets": changed(served, 1, target[:-1]),
        "fewer weights": changed(served, 7, tuple(state[:-1] for state in served[7])),
        "more biases": changed(served, 8, tuple(np.append(s, s[:1]) for s in served[8])),
        "large batches": changed(large, 3, 23),
        "many samples": changed(large, 2, np.zeros(10_000, np.int64)),
    }  # fmt: skip
    for why, arguments in refused.items():
        assert perceptron_epoch.kernel_on_cpu(*arguments) is None, why


def test_samples_that_are_not_there() -> None:
    """From the end they count, as everywhere; beyond it there are none."""

    def make(place: int) -> Any:
        arguments = epoch((4, 7, 3), "relu", "softmax", np.float64)
        arguments[2][5] = place
        return arguments

    compare(perceptron_epoch, lambda: make(-2), 1e-12)
    for place in (24, -25):
        with pytest.raises(IndexError):
            perceptron_epoch(*make(place))


# --- in the estimators ----------------------------------------------------------------------


class Counter:
    """Counts the calls of an op's kernel."""

    def __init__(self, op: Op, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls = 0
        found = op.kernel_on_cpu

        def kernel_on_cpu(*args: Any) -> Any:
            kernel = found(*args)
            return None if kernel is None else lambda *given: self.count(kernel(*given))

        monkeypatch.setattr(op, "kernel_on_cpu", kernel_on_cpu)

    def count(self, result: Any) -> Any:
        self.calls += 1
        return result


def samples(labels: str) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((90, 4))
    y = {"two": x[:, 0] > 0, "three": (x[:, 0] > 0).astype(int) + (x[:, 1] > 0.5),
         "number": x[:, 0] * 2 - x[:, 1]}[labels]  # fmt: skip
    return x, y


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("labels", ["two", "three", "number"])
@pytest.mark.parametrize(
    ("options", "epochs", "batches"),
    [
        ({}, 6, 0),
        ({"shuffle": False}, 6, 0),
        ({"early_stopping": True}, 6, 0),
        ({"hidden_layer_sizes": ()}, 6, 0),
        ({"activation": "tanh"}, 0, 18),
        ({"solver": "sgd"}, 0, 18),
    ],
    ids=str,
)
def test_estimators_train_alike(
    options: dict[str, Any],
    epochs: int,
    batches: int,
    labels: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whichever way it goes: and from one to the other and back, in the middle of a training."""
    sklearn = pytest.importorskip("xbackprop.sklearn")
    x, y = samples(labels)
    kind = sklearn.MLPRegressor if labels == "number" else sklearn.MLPClassifier
    options = {"hidden_layer_sizes": (6,), "batch_size": 32, "max_iter": 6, **options}

    def trained(*ways: bool) -> list[np.ndarray]:
        model = kind(random_state=0, **options).fit(x, y)
        if not options.get("early_stopping"):
            for is_by_layers in ways:
                if is_by_layers:
                    with xb.use_references():
                        model.partial_fit(x, y)
                else:
                    model.partial_fit(x, y)
        return [*model.coefs_, *model.intercepts_, np.array(model.loss_curve_)]

    with xb.use_references():
        expected = trained(True, True, True)
    counters = Counter(perceptron_epoch, monkeypatch), Counter(canonical_gradients, monkeypatch)
    received = trained(False, True, False)
    more = 0 if options.get("early_stopping") else 2
    assert counters[0].calls == (epochs + more if epochs else 0)
    assert counters[1].calls == (batches + 3 * more if batches else 0)
    for one, other in zip(received, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("given", ["weights", "sparse", "watched"])
def test_epochs_are_left_alone(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weighted samples, and rows made dense one batch at a time, go batch by batch."""
    sparse = pytest.importorskip("scipy.sparse")
    sklearn = pytest.importorskip("xbackprop.sklearn")
    x, y = samples("three")
    counters = Counter(perceptron_epoch, monkeypatch), Counter(canonical_gradients, monkeypatch)
    model = sklearn.MLPClassifier((6,), max_iter=3, random_state=0)
    if given == "weights":
        model.fit(x, y, np.linspace(0.5, 1.5, len(y)))
    elif given == "sparse":
        model.fit(sparse.csr_matrix(x), y)
    else:
        with xb.observe(Watcher()):
            model.fit(x, y)
    assert counters[0].calls == 0
    assert counters[1].calls == (0 if given == "watched" else 3)


class Watcher:
    def before(self, call: Any) -> None:
        pass

    def after(self, call: Any, result: Any) -> None:
        pass
