"""The trainer does what the loop in README does, takes what people have, and stops at a NaN."""

import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from needs_torch import import_torch

import xbackprop as xb
from xbackprop.backend.device import Device
from xbackprop.training import EpochMetrics, Evaluation, NonFiniteError

nn = xb.nn
on_fake = pytest.mark.parametrize("xb_device", ["fake"], indirect=True)


def make_model(dtype: Any = np.float32) -> nn.Module:
    return nn.Sequential(
        nn.Linear(4, 8, dtype=dtype), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3, dtype=dtype),
        rng=0,
    )  # fmt: skip


def make_trainer(model: nn.Module | None = None, **options: Any) -> xb.Trainer:
    model = make_model() if model is None else model
    optimizer = xb.optim.Adam(model.parameters(), lr=0.01)
    return xb.Trainer(model, nn.CrossEntropyLoss(), optimizer, **options)


def classes(samples: int = 50, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, size=samples)
    return rng.normal(size=(samples, 4)) + y[:, None], y


def weights(trainer: xb.Trainer) -> dict[str, bytes]:
    found = {**trainer.model.state_dict(), **trainer.model.extra_state()}
    return {name: array.tobytes() for name, array in found.items()}


def by_hand(X: np.ndarray, y: np.ndarray, order: list[np.ndarray]) -> dict[str, bytes]:
    """README's loop over the given batches of rows."""
    trainer = make_trainer()
    model, loss_fn, optimizer = trainer.model, trainer.loss_fn, trainer.optimizer
    for rows in order:
        output, saved = model.forward(xb.asarray(X[rows]))
        _, loss_saved = loss_fn.forward(output, xb.asarray(y[rows]))
        optimizer.zero_grad()
        model.backward(loss_fn.backward(1.0, loss_saved), saved)
        optimizer.step()
    return weights(trainer)


# --- fit ----------------------------------------------------------------------------------


def test_digits_are_learned(xb_device: Device) -> None:
    digits = xb.data.load_digits()
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10), rng=0)
    trainer = xb.Trainer(model, nn.CrossEntropyLoss(), xb.optim.Adam(model.parameters(), lr=0.01))
    test = digits.x_test, digits.y_test
    history = trainer.fit(digits.x_train, digits.y_train, epochs=5, rng=0, test=test)
    assert history == trainer.history
    assert [row.epoch for row in history] == [1, 2, 3, 4, 5]
    assert [row.step for row in history] == [23, 46, 69, 92, 115]
    losses = [row.train_loss for row in history]
    assert losses == sorted(losses, reverse=True)
    assert history[-1].train_accuracy > 0.95
    assert history[-1].test_accuracy > 0.92
    assert trainer.evaluate(*test) == Evaluation(history[-1].test_loss, history[-1].test_accuracy)
    predicted = trainer.predict(digits.x_test).argmax(axis=1)
    assert (predicted == digits.y_test).mean() == history[-1].test_accuracy
    assert all(row.lr == 0.01 and row.seconds > 0 for row in history)


def test_fit_is_the_loop_by_hand(xb_device: Device) -> None:
    X, y = classes()
    trainer = make_trainer()
    trainer.fit(X, y, epochs=2, batch_size=16, rng=7)
    rng = np.random.default_rng(7)
    order = [
        rows
        for permutation in (rng.permutation(50), rng.permutation(50))
        for rows in np.split(permutation, [16, 32, 48])
    ]
    assert weights(trainer) == by_hand(X, y, order)


def test_same_seeds_give_the_same_bits(xb_device: Device) -> None:
    X, y = classes()
    results = []
    for seed in (3, 3, 4):
        trainer = make_trainer()
        rows = trainer.fit(X, y, epochs=2, rng=seed)
        results.append((weights(trainer), [row.train_loss for row in rows]))
    assert results[0] == results[1]
    assert results[0] != results[2]


def test_manual_seed_decides_when_no_rng_is_given(xb_device: Device) -> None:
    X, y = classes()
    results = []
    for seed in (3, 3, 4):
        xb.manual_seed(seed)
        model = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.1))
        trainer = make_trainer(model)
        trainer.fit(X, y, epochs=2)
        results.append(weights(trainer))
    assert results[0] == results[1]
    assert results[0] != results[2]


def test_cpu_and_stand_in_give_the_same_bits() -> None:
    X, y = classes()
    results = []
    for place in ("cpu", "fake"):
        with xb.use_device(place):
            trainer = make_trainer()
            rows = trainer.fit(X, y, epochs=3, rng=0, test=classes(20, seed=1))
            results.append((weights(trainer), [row.train_accuracy for row in rows]))
    assert results[0] == results[1]


@on_fake
def test_fit_uploads_its_batches_and_reads_little(xb_device: Device) -> None:
    X, y = classes(60)
    trainer = make_trainer()
    trainer.fit(X, y, epochs=1, batch_size=10, rng=0)
    with xb.transfer_log() as log:
        trainer.fit(X, y, epochs=1, batch_size=10, rng=0)
    assert log.uploads == 2 * 6
    assert log.bytes_uploaded == 60 * (4 * 4 + 8)
    assert log.downloads <= 5  # once an epoch: loss, counts, and whether all was finite
    assert log.bytes_downloaded <= 5 * 8


def as_numpy(x: np.ndarray, y: np.ndarray) -> tuple[Any, Any]:
    return x, y


def as_lists(x: np.ndarray, y: np.ndarray) -> tuple[Any, Any]:
    return x.tolist(), y.tolist()


class WithDLPack:
    """What only speaks DLPack."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self.array.__dlpack_device__()


def as_dlpack(x: np.ndarray, y: np.ndarray) -> tuple[Any, Any]:
    return WithDLPack(x), WithDLPack(y)


def as_tensors(x: np.ndarray, y: np.ndarray) -> tuple[Any, Any]:
    torch = import_torch()
    return torch.from_numpy(x), torch.from_numpy(y)


def on_device(x: np.ndarray, y: np.ndarray) -> tuple[Any, Any]:
    return xb.asarray(x), xb.asarray(y)


def in_other_types(x: np.ndarray, y: np.ndarray) -> tuple[Any, Any]:
    return np.asfortranarray(x.astype(">f8")), y.astype(np.uint8)


@pytest.mark.parametrize(
    "form",
    [
        as_numpy,
        as_lists,
        as_dlpack,
        pytest.param(as_tensors, marks=pytest.mark.torch_parity),
        on_device,
        in_other_types,
    ],
)
@pytest.mark.parametrize("kind", [tuple, list])
def test_iterables_of_pairs(
    form: Callable[..., tuple[Any, Any]], kind: Callable[..., Any], xb_device: Device
) -> None:
    X, y = classes(48)
    order = list(np.arange(48).reshape(3, 16))
    pairs = [kind(form(X[rows], y[rows])) for rows in order]
    trainer = make_trainer()
    seen: list[tuple[int, int]] = []
    trainer.fit(pairs, epochs=2, on_batch=lambda done, total: seen.append((done, total)))
    assert weights(trainer) == by_hand(X, y, order * 2)
    assert seen == [(1, 3), (2, 3), (3, 3)] * 2


class Loader:
    """Batches drawn anew for each epoch; tells no length, as an endless source may do."""

    def __init__(self, X: np.ndarray, y: np.ndarray) -> None:
        self.X, self.y = X, y

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        yield self.X[:20], self.y[:20]
        yield self.X[20:], self.y[20:]

    def __len__(self) -> int:
        raise TypeError("this loader has no length")


def test_iterable_without_length(xb_device: Device) -> None:
    trainer = make_trainer()
    seen: list[tuple[int, int]] = []
    trainer.fit(Loader(*classes()), epochs=2, on_batch=lambda *counts: seen.append(counts))
    assert seen == [(1, 0), (2, 0)] * 2


@pytest.mark.torch_parity
def test_pytorch_data_loader() -> None:
    torch = import_torch()
    X, y = classes(32)
    data = torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(y))
    loader = torch.utils.data.DataLoader(data, batch_size=16)
    trainer = make_trainer()
    trainer.fit(loader, epochs=2)
    assert weights(trainer) == by_hand(X, y, list(np.arange(32).reshape(2, 16)) * 2)


def test_generator_is_used_up_after_one_epoch(xb_device: Device) -> None:
    X, y = classes()
    trainer = make_trainer()
    with pytest.raises(
        ValueError, match=r"epoch 2: the data gave no samples.* a generator is used"
    ):
        trainer.fit(((X, y) for _ in range(3)), epochs=2)
    assert (trainer.epochs, trainer.steps, len(trainer.history)) == (1, 3, 1)


def test_fit_without_targets_is_refused(xb_device: Device) -> None:
    X, _ = classes()
    for data in (X, xb.asarray(X), WithDLPack(X)):
        with pytest.raises(TypeError, match=r"expects an iterable of \(x, y\) batches.*Call fit"):
            make_trainer().fit(data)


EMPTY = [(np.zeros((0, 4)), np.zeros(0, dtype=int)), ([], [])]


@pytest.mark.parametrize(("X", "y"), EMPTY)
def test_empty_data_is_refused(X: Any, y: Any, xb_device: Device) -> None:
    trainer = make_trainer()
    before = weights(trainer)
    with pytest.raises(ValueError, match="is empty"):
        trainer.fit(X, y)
    with pytest.raises(ValueError, match="is empty"):
        trainer.evaluate(X, y)
    with pytest.raises(ValueError, match="is empty"):
        trainer.predict(X)
    with pytest.raises(ValueError, match="gave no samples"):
        trainer.fit([])
    assert weights(trainer) == before
    assert trainer.epochs == 0


def test_callbacks_scheduler_and_metrics(xb_device: Device) -> None:
    X, y = classes()
    trainer = make_trainer()
    trainer.scheduler = xb.optim.StepLR(trainer.optimizer, 1, 0.5)
    batches: list[tuple[int, int]] = []
    epochs: list[EpochMetrics] = []
    rows = trainer.fit(
        X, y, epochs=3, batch_size=20, rng=0,
        on_batch=lambda done, total: batches.append((done, total)), on_epoch=epochs.append,
    )  # fmt: skip
    assert batches == [(1, 3), (2, 3), (3, 3)] * 3
    assert rows == epochs
    assert [row.lr for row in rows] == [0.01, 0.005, 0.0025]
    assert rows[0].test_loss is None
    assert rows[0].test_accuracy is None
    assert rows[1].as_dict()["epoch"] == 2
    more = trainer.fit(X, y, epochs=1, rng=0)
    assert (more[0].epoch, len(trainer.history)) == (4, 4)


def test_request_stop_ends_after_the_step(xb_device: Device) -> None:
    X, y = classes()
    trainer = make_trainer()

    def on_batch(done: int, total: int) -> None:
        if trainer.steps == 4:
            trainer.request_stop()

    rows = trainer.fit(X, y, epochs=5, batch_size=20, rng=0, on_batch=on_batch)
    assert (len(rows), trainer.steps, trainer.epochs) == (1, 4, 1)  # the second is unfinished
    trainer.fit(X, y, epochs=2, batch_size=20, rng=0)  # asked for once, not for ever
    assert (trainer.steps, trainer.epochs) == (10, 3)


def test_error_of_a_callback_comes_through(xb_device: Device) -> None:
    def on_batch(done: int, total: int) -> None:
        raise KeyboardInterrupt

    trainer = make_trainer()
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(*classes(), on_batch=on_batch)
    assert trainer.steps == 1


def test_float64_model_casts_its_data(xb_device: Device) -> None:
    X, y = classes()
    model = make_model(np.float64)
    trainer = make_trainer(model)
    trainer.fit(X.astype(np.float32), y, rng=0)
    trainer.step(X.astype(np.float16), y)
    trainer.step(X.tolist(), y.tolist())
    assert trainer.predict(X).dtype == np.float64
    assert {a.dtype for a in model.state_dict().values()} == {np.dtype(np.float64)}


def test_several_inputs(xb_device: Device) -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            self.first, self.second = nn.Linear(4, 3, rng=0), nn.Linear(2, 3, rng=1)

        def forward(self, x: Any, z: Any) -> Any:
            (a, saved_a), (b, saved_b) = self.first.forward(x), self.second.forward(z)
            return a + b, (saved_a, saved_b)

        def backward(self, grad_output: Any, saved: Any, *, input_grad: bool = True) -> Any:
            return (
                self.first.backward(grad_output, saved[0], input_grad=input_grad),
                self.second.backward(grad_output, saved[1], input_grad=input_grad),
            )

    X, y = classes()
    inputs = X, X[:, :2].astype(np.float32)
    trainer = make_trainer(Sum())
    before = weights(trainer)
    trainer.fit(inputs, y, rng=0)
    trainer.fit([(tuple(part[:5] for part in inputs), y[:5])])
    assert weights(trainer) != before
    assert trainer.predict(inputs, batch_size=16).shape == (50, 3)
    assert trainer.evaluate(inputs, y, batch_size=7).accuracy > 0.2


def test_samples_of_one_axis(xb_device: Device) -> None:
    layer = nn.Linear(2, 1, dtype=np.float64, rng=0)
    trainer = xb.Trainer(layer, nn.HalfSquaredError(), xb.optim.SGD(layer.parameters(), lr=0.1))
    loss = trainer.step([1.0, 2.0], [1.0])
    assert loss.shape == ()
    assert trainer.fit([([1.0, 2.0], [1.0])])[0].train_loss < float(xb.to_host(loss))
    labels = make_trainer(nn.Linear(2, 3, rng=0))
    assert labels.step([1.0, 2.0], 2).shape == ()
    assert labels.step([1.0, 2.0], np.int64(2)).shape == ()


# --- predict and evaluate -----------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 7, 50, 1000])
def test_predict_and_evaluate_are_the_loops_by_hand(batch_size: int, xb_device: Device) -> None:
    X, y = classes()
    trainer = make_trainer()
    trainer.model[2].eval()  # a mode of its own, to be given back
    modes = [module.training for module in trainer.model.modules()]
    predicted = trainer.predict(X, batch_size=batch_size)
    result = trainer.evaluate(X, y, batch_size=batch_size)
    assert [module.training for module in trainer.model.modules()] == modes
    model = make_model().eval()
    output = model(xb.asarray(X))
    assert type(predicted) is np.ndarray
    np.testing.assert_allclose(predicted, xb.to_host(output), rtol=1e-5, atol=1e-6)
    loss = nn.CrossEntropyLoss()(output, xb.asarray(y))
    assert result.loss == pytest.approx(float(xb.to_host(loss)), rel=1e-5)
    assert result.accuracy == (xb.to_host(output).argmax(axis=1) == y).mean()


def test_modes_are_restored_after_an_error(xb_device: Device) -> None:
    trainer = make_trainer()
    with pytest.raises(ValueError, match="expects x of shape"):
        trainer.predict(np.zeros((3, 5)))
    with pytest.raises(ValueError, match="expects x of shape"):
        trainer.evaluate(np.zeros((3, 5)), [0, 1, 2])
    assert all(module.training for module in trainer.model.modules())


CLASS_WEIGHT = [0.2, 3.0, 1.0]
CLASS_LOSSES = {
    "mean": {},
    "class weights": {"weight": CLASS_WEIGHT},
    "ignored labels": {"ignore_index": 1},
    "labels of -100": {},
    "both": {"weight": CLASS_WEIGHT, "ignore_index": 2, "label_smoothing": 0.1},
}


@pytest.mark.parametrize("batch_size", [1, 7, 64])
@pytest.mark.parametrize("name", CLASS_LOSSES)
def test_evaluation_does_not_depend_on_batches(
    name: str, batch_size: int, xb_device: Device
) -> None:
    X, y = classes()
    if name == "labels of -100":
        y[::4] = -100
    loss_fn = nn.CrossEntropyLoss(**CLASS_LOSSES[name])
    model = make_model()
    trainer = xb.Trainer(model, loss_fn, xb.optim.SGD(model.parameters()))
    result = trainer.evaluate(X, y, batch_size=batch_size)
    output = make_model().eval()(xb.asarray(X))
    expected = float(xb.to_host(loss_fn(output, xb.asarray(y))))
    assert result.loss == pytest.approx(expected, rel=1e-5)
    counted = y != loss_fn.ignore_index
    right = xb.to_host(output).argmax(axis=1) == y
    assert result.accuracy == right[counted].mean()


def test_evaluation_of_a_sum(xb_device: Device) -> None:
    X, y = classes()
    model = make_model()
    loss_fn = nn.CrossEntropyLoss(reduction="sum")
    trainer = xb.Trainer(model, loss_fn, xb.optim.SGD(model.parameters()))
    total = loss_fn(make_model().eval()(xb.asarray(X)), xb.asarray(y))
    assert trainer.evaluate(X, y, batch_size=7).loss == pytest.approx(
        float(xb.to_host(total)) / 50, rel=1e-5
    )


def test_accuracy_by_loss(xb_device: Device) -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(30, 2)), rng.integers(0, 2, size=(30, 1)).astype(float)
    for loss_fn, layers in (
        (nn.BCEWithLogitsLoss(), [nn.Linear(2, 1)]),
        (nn.BCELoss(), [nn.Linear(2, 1), nn.Sigmoid()]),
    ):
        model = nn.Sequential(*layers, rng=0)
        trainer = xb.Trainer(model, loss_fn, xb.optim.SGD(model.parameters(), lr=0.1))
        logits = trainer.predict(X) - (0.5 if len(layers) == 2 else 0.0)
        assert trainer.evaluate(X, y, batch_size=8).accuracy == ((logits > 0) == (y > 0.5)).mean()
    for regression in (nn.MSELoss(), nn.HalfSquaredError()):
        model = nn.Sequential(nn.Linear(2, 1), rng=0)
        trainer = xb.Trainer(model, regression, xb.optim.SGD(model.parameters(), lr=0.1))
        assert trainer.evaluate(X, y).accuracy is None
        row = trainer.fit(X, y, rng=0, test=(X, y))[0]
        assert (row.train_accuracy, row.test_accuracy) == (None, None)


def test_accuracy_counted_by_the_caller(xb_device: Device) -> None:
    """A sample counts when all its answers are right."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(30, 2)), rng.integers(0, 2, size=(30, 2)).astype(float)
    model = nn.Sequential(nn.Linear(2, 2), rng=0)
    trainer = xb.Trainer(
        model,
        nn.BCEWithLogitsLoss(),
        xb.optim.SGD(model.parameters()),
        count_correct=lambda output, target: ((output > 0) == (target > 0.5)).all(axis=1).sum(),
    )
    right = ((trainer.predict(X) > 0) == (y > 0.5)).all(axis=1)
    assert trainer.evaluate(X, y, batch_size=8).accuracy == right.mean()


def test_training_loss_is_the_mean_over_unequal_batches(xb_device: Device) -> None:
    X, y = classes(10)
    model = nn.Sequential(nn.Linear(4, 3), rng=0)
    trainer = xb.Trainer(model, nn.CrossEntropyLoss(), xb.optim.SGD(model.parameters(), lr=0.0))
    row = trainer.fit(X, y, batch_size=8, rng=0)[0]
    whole = trainer.evaluate(X, y)
    assert row.train_loss == pytest.approx(whole.loss, rel=1e-6)
    assert row.train_accuracy == whole.accuracy


# --- labels and shapes --------------------------------------------------------------------


CALLS: dict[str, Callable[[xb.Trainer, Any, Any], Any]] = {
    "fit": lambda trainer, X, y: trainer.fit(X, y),
    "fit on lists": lambda trainer, X, y: trainer.fit(X.tolist(), y.tolist()),
    "fit on pairs": lambda trainer, X, y: trainer.fit([(X, y)]),
    "fit on DLPack": lambda trainer, X, y: trainer.fit([as_dlpack(X, y)]),
    "fit with a test set": lambda trainer, X, y: trainer.fit(*classes(), test=(X, y)),
    "evaluate": lambda trainer, X, y: trainer.evaluate(X, y),
    "step": lambda trainer, X, y: trainer.step(X, y),
    "step on lists": lambda trainer, X, y: trainer.step(X.tolist(), y.tolist()),
}


@pytest.mark.parametrize("label", [3, -1, 1000])
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_labels_out_of_range_are_seen_before_anything_moves(
    call: Callable[[xb.Trainer, Any, Any], Any], label: int, xb_device: Device
) -> None:
    X, y = classes()
    y[17] = label
    trainer = make_trainer()
    before = weights(trainer)
    message = rf"CrossEntropyLoss: label {label} at index \(17\).*expected 0 to 2"
    with xb.transfer_log() as log, pytest.raises(ValueError, match=message):
        call(trainer, X, y)
    assert log.uploads == 0
    assert weights(trainer) == before


def test_ignored_label_is_in_range(xb_device: Device) -> None:
    X, y = classes()
    y[3] = -100
    trainer = make_trainer()
    trainer.fit(X, y, rng=0)
    assert trainer.steps == 1


class HeadFirst(nn.Module):
    """The layer named last is not the one that answers."""

    def __init__(self) -> None:
        self.head, self.body = nn.Linear(2, 3, rng=0), nn.Linear(4, 2, rng=1)

    def forward(self, x: Any) -> Any:
        hidden, saved_body = self.body.forward(x)
        output, saved_head = self.head.forward(hidden)
        return output, (saved_body, saved_head)

    def backward(self, grad_output: Any, saved: Any, *, input_grad: bool = True) -> Any:
        hidden = self.head.backward(grad_output, saved[1])
        return self.body.backward(hidden, saved[0], input_grad=input_grad)


LAST_LAYERS: dict[str, Callable[[], nn.Module]] = {
    "activation": lambda: nn.Sequential(nn.Linear(4, 3), nn.Sigmoid(), nn.Dropout(0.1), rng=0),
    "nested": lambda: nn.Sequential(nn.Linear(4, 3), nn.Sequential(nn.Tanh(), nn.Linear(3, 3))),
    "residual": lambda: nn.Sequential(nn.Linear(4, 3), nn.Residual(nn.Linear(3, 3))),
    "recomputed": lambda: nn.Recompute(nn.Sequential(nn.Linear(4, 3), nn.Identity())),
}


@pytest.mark.parametrize("name", LAST_LAYERS)
def test_classes_are_counted_by_the_last_layer(name: str, xb_device: Device) -> None:
    X, y = classes()
    trainer = make_trainer(LAST_LAYERS[name]())
    trainer.step(X, y)  # label 2 is there
    with xb.transfer_log() as log, pytest.raises(ValueError, match=r"label 3 .* expected 0 to 2"):
        trainer.step(X, y + 1)
    assert log.uploads == 0


def test_valid_labels_are_not_refused_for_a_layer_inside(xb_device: Device) -> None:
    X, y = classes()
    trainer = make_trainer(HeadFirst())  # a layer of two features stands last
    trainer.fit(X, y, rng=0)
    assert trainer.steps == 1


@on_fake
def test_labels_that_only_the_device_sees_stop_the_run(xb_device: Device) -> None:
    X, y = classes()
    trainer = make_trainer()
    before = trainer.model.state_dict()
    with pytest.raises(NonFiniteError, match=r"step 1 .* check the data and the labels"):
        trainer.fit([(xb.asarray(X), xb.asarray(y + 1))])
    for name, values in trainer.model.state_dict().items():
        assert values.tobytes() == before[name].tobytes()


WRONG_SHAPES = [
    (nn.MSELoss, np.zeros(50), r"MSELoss .*\(50, 3\) and target \(50,\)"),
    (nn.HalfSquaredError, np.zeros((50, 1)), r"HalfSquaredError .*\(50, 3\).*\(50, 1\)"),
    (nn.BCEWithLogitsLoss, np.zeros((50, 2)), r"BCEWithLogitsLoss .*target \(50, 2\)"),
    (nn.CrossEntropyLoss, np.zeros((50, 1), dtype=int), r"CrossEntropyLoss.*expect.*\(50,\); got"),
]


@pytest.mark.parametrize(("loss", "y", "message"), WRONG_SHAPES)
def test_wrong_shape_of_y_names_the_loss(
    loss: Callable[[], nn.Module], y: np.ndarray, message: str, xb_device: Device
) -> None:
    X, _ = classes()
    model = make_model()
    trainer = xb.Trainer(model, loss(), xb.optim.SGD(model.parameters()))
    before = weights(trainer)
    for call in (lambda: trainer.fit(X, y), lambda: trainer.evaluate(X, y)):
        with pytest.raises(ValueError, match=message):
            call()
    assert weights(trainer) == before  # the dropout counter too


def test_arguments_that_make_no_sense() -> None:
    model = make_model()
    optimizer = xb.optim.SGD(model.parameters())
    with pytest.raises(ValueError, match="check_every >= 1; got 0"):
        xb.Trainer(model, nn.MSELoss(), optimizer, check_every=0)
    with pytest.raises(ValueError, match=r"MSELoss with reduction='none'. Use reduction='mean'"):
        xb.Trainer(model, nn.MSELoss("none"), optimizer)


# --- non-finite ---------------------------------------------------------------------------


@pytest.mark.parametrize("check_every", [1, 3, None])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_run_stops_at_a_bad_batch(bad: float, check_every: int | None, xb_device: Device) -> None:
    X, y = classes(60)
    pairs = [(X[i : i + 10], y[i : i + 10]) for i in range(0, 60, 10)]
    trainer = make_trainer(check_every=check_every)
    trainer.fit(pairs)
    kept = make_trainer()
    kept.fit([*pairs, *pairs[:3]])
    spoiled = pairs[3][0].copy()
    spoiled[2, 1] = bad
    # Loss and gradients are NaN in the tenth step; good batches follow.
    with pytest.raises(NonFiniteError, match=r"at step 10 \(epoch 2\); the weights from before"):
        trainer.fit([*pairs[:3], (spoiled, pairs[3][1]), *pairs[4:]])
    for name, values in kept.model.state_dict().items():
        assert values.tobytes() == trainer.model.state_dict()[name].tobytes(), name
    assert repr(kept.optimizer.state_dict()) == repr(trainer.optimizer.state_dict())
    every = check_every or (1 if xb_device.kind == "cpu" else 100)
    noticed = {1: 10, 3: 12, 100: 12}[every]
    assert trainer.steps == noticed
    assert (trainer.epochs, len(trainer.history)) == (1, 1)
    assert np.isfinite(trainer.fit(pairs)[0].train_loss)  # and goes on when asked to


def test_step_tells_of_a_bad_batch(xb_device: Device) -> None:
    X, y = classes()
    trainer = make_trainer(check_every=2)
    trainer.step(X, y)
    trainer.step(X, y)
    trainer.step(X * np.nan, y)
    with pytest.raises(NonFiniteError, match="at step 3 "):
        trainer.step(X, y)


def test_update_that_overflows_gives_no_warning(xb_device: Device) -> None:
    layer = nn.Linear(1, 1, rng=0)
    trainer = xb.Trainer(layer, nn.MSELoss(), xb.optim.SGD(layer.parameters(), lr=1e30))
    with pytest.raises(NonFiniteError):
        trainer.fit([([[1e15]], [[1.0]])] * 3)


# --- value_and_grad, memory, devices ------------------------------------------------------


def test_value_and_grad_is_forward_and_backward(xb_device: Device) -> None:
    X, y = classes()
    x, target = xb.asarray(X), xb.asarray(y)
    model, same = make_model(), make_model()
    loss_fn = nn.CrossEntropyLoss()
    output, saved = same.forward(x)
    loss, loss_saved = loss_fn.forward(output, target)
    same.backward(loss_fn.backward(1.0, loss_saved), saved)
    received_loss, received_output = xb.value_and_grad(model, loss_fn)(x, target)
    assert xb.to_host(received_loss).tobytes() == xb.to_host(loss).tobytes()
    assert xb.to_host(received_output).tobytes() == xb.to_host(output).tobytes()
    for one, other in zip(model.parameters(), same.parameters(), strict=True):
        assert xb.to_host(one.grad).tobytes() == xb.to_host(other.grad).tobytes()
    assert model.extra_state()["2.random_state"][2] == 1
    xb.value_and_grad(model.eval(), loss_fn)(x, target)
    once = xb.value_and_grad(make_model().eval(), loss_fn)
    once(x, target)
    for one, other in zip(model.parameters(), same.parameters(), strict=True):
        assert not np.array_equal(xb.to_host(one.grad), xb.to_host(other.grad))  # added


def test_steps_keep_no_activations(xb_device: Device) -> None:
    alive: list[weakref.ref[Any]] = []

    class Watch(nn.Module):
        def forward(self, x: Any) -> Any:
            output = x + 0
            alive.append(weakref.ref(output))
            return output, ()

        def backward(self, grad_output: Any, saved: Any, *, input_grad: bool = True) -> Any:
            return grad_output

    model = nn.Sequential(nn.Linear(4, 8), Watch(), nn.Tanh(), nn.Linear(8, 3), Watch(), rng=0)
    trainer = make_trainer(model)
    X, y = classes()
    gc.collect()
    gc.disable()  # what only a cycle keeps alive would pass otherwise
    try:
        trainer.step(X, y)
        assert [reference() is None for reference in alive] == [True, True]
        seen_between: list[int] = []
        trainer.fit(
            X, y, batch_size=10, rng=0,
            on_batch=lambda *_: seen_between.append(sum(r() is not None for r in alive)),
        )  # fmt: skip
        assert seen_between == [0] * 5
        trainer.evaluate(X, y)
        assert all(reference() is None for reference in alive)
    finally:
        gc.enable()


def test_trainer_moves_model_loss_and_optimizer() -> None:
    X, y = classes()
    results = []
    for places in (["cpu"] * 3, ["cpu", "fake", "fake:1"]):
        with xb.use_device("cpu"):
            model = make_model()
            loss_fn = nn.CrossEntropyLoss(CLASS_WEIGHT)
            trainer = xb.Trainer(model, loss_fn, xb.optim.Adam(model.parameters()))
        for place in places:
            assert trainer.to(place) is trainer
            trainer.fit(X, y, batch_size=10, rng=0)
            assert str(model.device) in (place, f"{place}:0")
        results.append(weights(trainer))
    assert results[0] == results[1]


def test_data_goes_where_the_model_is() -> None:
    X, y = classes()
    with xb.use_device("fake"):
        trainer = make_trainer()
    with xb.use_device("cpu"):
        trainer.fit(X, y, rng=0)
        trainer.step(X, y)
        assert trainer.predict(X).shape == (50, 3)
        assert trainer.evaluate(X, y).accuracy is not None
        with pytest.raises(ValueError, match="x is on fake:1, the layer's arrays are on fake:0"):
            trainer.step(xb.asarray(X, device="fake:1"), y)
