"""Cross-entropy of tokens beside that of their rows, and what a trainer makes of it."""

import re
from typing import Any

import numpy as np
import pytest

import xbackprop as xb
from xbackprop.backend.device import Device

nn = xb.nn
WEIGHT = [0.5, 2.0, 1.0]
OPTIONS: list[dict[str, Any]] = [
    {},
    {"weight": WEIGHT},
    {"ignore_index": 1},
    {"label_smoothing": 0.1},
    {"weight": WEIGHT, "ignore_index": 1, "label_smoothing": 0.1},
]


def drawn(*shape: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits and labels, label 1 and others among them."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, size=shape)
    labels.reshape(-1)[:3] = [1, 0, 2]
    return rng.normal(size=(*shape, 3)).astype(np.float32), labels


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("shape", [(6,), (2, 3), (2, 3, 2)])
def test_it_is_cross_entropy_of_the_rows(
    shape: tuple[int, ...], options: dict[str, Any], reduction: str, xb_device: Device
) -> None:
    logits, labels = (xb.asarray(array, dtype=array.dtype) for array in drawn(*shape))
    tokens = nn.TokenCrossEntropyLoss(**options, reduction=reduction)
    rows = nn.CrossEntropyLoss(**options, reduction=reduction)
    loss, saved = tokens.forward(logits, labels)
    expected, rows_saved = rows.forward(logits.reshape(-1, 3), labels.reshape(-1))
    assert loss.shape == (shape if reduction == "none" else ())
    np.testing.assert_array_equal(xb.to_host(loss).ravel(), xb.to_host(expected).ravel())
    slope = xb.get_array_module(loss).ones_like(loss) * 0.3
    slope = slope * (1 + loss) if reduction == "none" else slope
    grad = tokens.backward(slope, saved)
    assert grad.shape == logits.shape
    rows_slope = slope.reshape(-1) if reduction == "none" else slope
    expected = rows.backward(rows_slope, rows_saved)
    np.testing.assert_array_equal(xb.to_host(grad).reshape(-1, 3), xb.to_host(expected))


def test_a_gradient_of_another_shape_is_refused(xb_device: Device) -> None:
    logits, labels = (xb.asarray(array, dtype=array.dtype) for array in drawn(2, 3))
    loss = nn.TokenCrossEntropyLoss(reduction="none")
    output, saved = loss.forward(logits, labels)
    expected = re.escape("grad_output of the losses' shape (2, 3); got (3, 2)")
    with pytest.raises(ValueError, match=expected):
        loss.backward(output.T, saved)


@pytest.mark.parametrize("label", [3, -1])
def test_labels_out_of_range(label: int, xb_device: Device) -> None:
    """Refused on the host, with their place; on a device the loss is NaN."""
    logits, labels = drawn(2, 3)
    labels[1, 2] = label
    there = xb.asarray(logits), xb.asarray(labels)
    if xb_device.kind != "cpu":
        assert np.isnan(float(xb.to_host(nn.TokenCrossEntropyLoss()(*there))))
        return
    message = rf"TokenCrossEntropyLoss: label {label} at index \(1, 2\) is out of range"
    with pytest.raises(ValueError, match=message):
        nn.TokenCrossEntropyLoss()(*there)
    assert np.isfinite(nn.TokenCrossEntropyLoss(ignore_index=label)(*there))


def test_it_is_remade_of_its_config(xb_device: Device) -> None:
    loss = nn.TokenCrossEntropyLoss(WEIGHT, 1, "sum", 0.1)
    copy = nn.from_config(loss.config())
    assert type(copy) is nn.TokenCrossEntropyLoss
    assert copy.config() == loss.config()


# --- in a trainer -------------------------------------------------------------------------


def make_trainer(weight: Any = None, reduction: str = "mean", **options: Any) -> xb.Trainer:
    model = nn.Sequential(nn.Embedding(3, 4), nn.Linear(4, 3), rng=0)
    optimizer = xb.optim.SGD(model.parameters(), lr=0.3)
    loss = nn.TokenCrossEntropyLoss(weight, reduction=reduction)
    return xb.Trainer(model, loss, optimizer, **options)


def sentences(count: int = 11) -> tuple[np.ndarray, np.ndarray]:
    """Token ids; targets of which some are ignored, more of them in the first batches."""
    rng = np.random.default_rng(1)
    x, y = rng.integers(0, 3, size=(2, count, 5))
    y[: count // 2, 1:4] = -100
    return x, y


def test_accuracy_is_the_share_of_right_tokens(xb_device: Device) -> None:
    x, y = sentences()
    trainer = make_trainer()
    scores = trainer.predict(x)
    assert scores.shape == (11, 5, 3)
    right = (scores.argmax(axis=-1) == y)[y != -100]
    for batch_size in (11, 4):
        assert trainer.evaluate(x, y, batch_size=batch_size).accuracy == right.mean()


def test_accuracy_where_windows_are_as_long_as_classes_are_many(xb_device: Device) -> None:
    """Then classes along axis 1 would give scores of the same shape."""
    x, y = (array[:, :3] for array in sentences())
    trainer = make_trainer()
    right = (trainer.predict(x).argmax(axis=-1) == y)[y != -100]
    assert trainer.evaluate(x, y).accuracy == right.mean()


@pytest.mark.parametrize("weight", [None, WEIGHT])
def test_evaluation_does_not_depend_on_batches(weight: Any, xb_device: Device) -> None:
    x, y = sentences()
    whole, parts = (make_trainer(weight).evaluate(x, y, batch_size=n) for n in (11, 3))
    assert parts.loss == pytest.approx(whole.loss, rel=1e-6)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("weight", [None, WEIGHT])
def test_accumulated_batches_are_one_batch(weight: Any, reduction: str, xb_device: Device) -> None:
    x, y = sentences()
    one = make_trainer(weight, reduction)
    one.step(x, y)
    group = make_trainer(weight, reduction, accumulation_steps=3)
    for part in (slice(0, 2), slice(2, 6), slice(6, 11)):
        group.step(x[part], y[part])
    assert (one.steps, group.steps) == (1, 1)
    other = group.model.state_dict()
    for key, values in one.model.state_dict().items():
        np.testing.assert_allclose(other[key], values, rtol=1e-5, atol=1e-7)


def test_labels_are_checked_before_anything_moves(xb_device: Device) -> None:
    x, y = sentences()
    y[3, 4] = 3
    for call in (make_trainer().fit, make_trainer().evaluate, make_trainer().step):
        with xb.transfer_log() as log, pytest.raises(ValueError, match=r"label 3 at index \(3, 4"):
            call(x, y)
        assert log.uploads == 0


def test_a_bigram_model_learns_the_next_token(xb_device: Device) -> None:
    x, y = xb.data.token_windows(np.arange(400) % 3, 5)
    trainer = make_trainer()
    history = trainer.fit(x, y, epochs=8, batch_size=8, rng=0)
    assert history[-1].train_accuracy == 1


def test_steps_download_nothing_and_wait_for_nothing(xb_device: Device) -> None:
    trainer = make_trainer(WEIGHT)
    x, y = sentences()
    trainer.step(x, y)
    if xb_device.kind == "cpu":
        return
    with xb.transfer_log() as log:
        for _ in range(3):
            trainer.step(x, y)
    assert (log.uploads, log.downloads, log.synchronizations) == (6, 0, 0)
