"""What layers and losses refuse: the layer, what was expected, what came, what to do."""

import re
from typing import Any

import numpy as np
import pytest

import xbackprop as xb
from xbackprop import nn
from xbackprop.backend.device import Device

F = np.float32


def on_device(*arrays: Any) -> list[Any]:
    return [
        xb.asarray(a, dtype=np.asarray(a).dtype) if type(a) is np.ndarray else a for a in arrays
    ]


def zeros(*shape: int, dtype: Any = F) -> np.ndarray:
    return np.zeros(shape, dtype)


# The layer, its inputs, the exception, what the message must hold; on every device.
REFUSED = [
    # shapes
    (lambda: nn.Linear(3, 2), [zeros(4, 5)], ValueError,
     "Linear expects x of shape (..., 3); got (4, 5). Its last axis must match in_features."),
    (lambda: nn.Linear(784, 2), [zeros(32, 28, 28)], ValueError,
     "Linear expects x of shape (..., 784); got (32, 28, 28). Add Flatten before it."),
    (lambda: nn.Linear(3, 2), [zeros()], ValueError, "Linear expects x of shape (..., 3); got ()"),
    (nn.Flatten, [zeros(3)], ValueError,
     "Flatten joins axes 1 to -1; got x of shape (3,). Give x a batch axis or choose other axes."),
    (lambda: nn.Flatten(2, 1), [zeros(3, 2, 2)], ValueError, "Flatten joins axes 2 to 1; got x of"),
    (lambda: nn.Residual(nn.Linear(3, 2)), [zeros(4, 3)], ValueError,
     "Residual adds x of shape (4, 3) and f(x) of shape (4, 2). Make the inner module keep"),
    (nn.MSELoss, [zeros(4, 1), zeros(4)], ValueError,
     "MSELoss expects output and target of one shape; got output (4, 1) and target (4,). Reshape"),
    (nn.HalfSquaredError, [zeros(4, 1), zeros(4)], ValueError, "HalfSquaredError expects"),
    (nn.BCEWithLogitsLoss, [zeros(4, 1), zeros(4)], ValueError, "BCEWithLogitsLoss exp"),
    (nn.BCELoss, [zeros(4, 1), zeros(4)], ValueError, "BCELoss expects output and"),
    (nn.CrossEntropyLoss, [zeros(4, 3), zeros(3, dtype=int)], ValueError,
     "CrossEntropyLoss: logits of shape (4, 3) expect a target of shape (4,); got (3,)"),
    (nn.CrossEntropyLoss, [zeros(4, 3, 2, 2), zeros(4, dtype=int)], ValueError,
     "expect a target of shape (4, 2, 2); got (4,)"),
    (nn.CrossEntropyLoss, [zeros(), zeros(dtype=int)], ValueError, "expects logits of"),
    # dtypes
    (lambda: nn.Linear(3, 2), [zeros(4, 3, dtype=np.float64)], TypeError,
     "Linear expects x of dtype float32; got float64. Call x.astype('float32'), or build the"),
    (lambda: nn.Linear(3, 2), [zeros(4, 3, dtype=np.int64)], TypeError, "float32; got int64. Call"),
    (nn.ReLU, [zeros(3, dtype=np.int64)], TypeError, "ReLU expects x of a float dtype; got"),
    (nn.Tanh, [zeros(3, dtype=bool)], TypeError, "Tanh expects x of a float dtype; got bool"),
    (nn.Dropout, [zeros(3, dtype=np.int32)], TypeError, "Dropout expects x of a float"),
    (nn.MSELoss, [zeros(3), zeros(3, dtype=np.float64)], TypeError,
     "MSELoss expects target of dtype float32; got float64. Call target.astype('float32')"),
    (nn.BCEWithLogitsLoss, [zeros(3), zeros(3, dtype=np.int64)], TypeError,
     "BCEWithLogitsLoss expects target of dtype float32; got int64. Call target.astype"),
    (nn.CrossEntropyLoss, [zeros(4, 3), zeros(4)], TypeError,
     "CrossEntropyLoss expects integer class indices as target; got float32"),
    (nn.TokenCrossEntropyLoss, [zeros(2, 4, 3), zeros(2, 3, dtype=int)], ValueError,
     "TokenCrossEntropyLoss: logits of shape (2, 4, 3) expect a target of shape (2, 4)"),
    (nn.TokenCrossEntropyLoss, [zeros(2, 3, 4), zeros(2, 4, dtype=int)], ValueError,
     "logits of shape (2, 3, 4) expect a target of shape (2, 3); got (2, 4)"),
    (nn.TokenCrossEntropyLoss, [zeros(), zeros(dtype=int)], ValueError, "expects logits of"),
    (nn.TokenCrossEntropyLoss, [zeros(2, 4, 3), zeros(2, 4, 3)], NotImplementedError,
     "TokenCrossEntropyLoss: probabilities as targets. Give class indices"),
    (nn.TokenCrossEntropyLoss, [zeros(2, 4, 3), zeros(2, 4)], TypeError,
     "TokenCrossEntropyLoss expects integer class indices as target; got float32"),
    (nn.TokenCrossEntropyLoss, [zeros(2, 4, 3, dtype=int), zeros(2, 4, dtype=int)], TypeError,
     "TokenCrossEntropyLoss expects logits of a float dtype; got int64"),
    (lambda: nn.TokenCrossEntropyLoss([1.0, 2.0]), [zeros(2, 2, 3), zeros(2, 2, dtype=int)],
     ValueError, "TokenCrossEntropyLoss expects weight of shape (3,), one per class; got (2,)"),
    (lambda: nn.CrossEntropyLoss([1, 2, 3]), [zeros(4, 3, dtype=np.float64), zeros(4, dtype=int)],
     TypeError, "CrossEntropyLoss expects weight of dtype float64; got"),
    # indices
    (lambda: nn.Embedding(3, 2), [zeros(4)], TypeError,
     "Embedding expects x of an integer dtype; got float32"),
    (lambda: nn.Embedding(3, 2), [zeros(4, dtype=bool)], TypeError, "integer dtype; got bool"),
    (lambda: nn.Embedding(0, 2), [zeros(4, dtype=int)], IndexError, "Embedding has no rows; got x"),
    (lambda: nn.EmbeddingBag(3, 2), [zeros(4, 2)], TypeError,
     "EmbeddingBag expects x of an integer dtype; got float32"),
    (lambda: nn.EmbeddingBag(3, 2), [zeros(4, dtype=int)], ValueError,
     "EmbeddingBag expects offsets with x of shape (4,): where each bag begins. Give x the shape "),
    *((lambda: nn.EmbeddingBag(3, 2), [zeros(*shape, dtype=int)], ValueError,
       f"EmbeddingBag expects x of shape (bags, length), or (n,) with offsets; got {shape}")
      for shape in ((), (2, 3, 4))),
    (lambda: nn.EmbeddingBag(3, 2), [zeros(4, 2, dtype=int), zeros(1, dtype=int)], ValueError,
     "EmbeddingBag: x of shape (4, 2) has a bag in each row and takes no offsets. Leave them out"),
    (lambda: nn.EmbeddingBag(3, 2), [zeros(4, dtype=int), zeros(1)], TypeError,
     "EmbeddingBag expects offsets of an integer dtype; got float32"),
    (lambda: nn.EmbeddingBag(3, 2), [zeros(4, dtype=int), zeros(1, 1, dtype=int)], ValueError,
     "EmbeddingBag expects offsets of shape (bags,); got (1, 1)"),
    (lambda: nn.EmbeddingBag(3, 2, include_last_offset=True),
     [zeros(0, dtype=int), zeros(0, dtype=int)], ValueError,
     "EmbeddingBag expects offsets of shape (bags + 1,); got (0,)"),
    *((lambda last=last: nn.EmbeddingBag(3, 2, include_last_offset=last),
       [zeros(4, dtype=int), zeros(int(last), dtype=int)], ValueError,
       f"EmbeddingBag: offsets of shape ({int(last)},) make no bag for 4 indices")
      for last in (False, True)),
    *((lambda mode=mode: nn.EmbeddingBag(3, 2, mode=mode),
       [zeros(4, 2, dtype=int), None, zeros(4, 2)], NotImplementedError,
       f"EmbeddingBag: per_sample_weights with mode='{mode}'; PyTorch has them with mode='sum' onl")
      for mode in ("mean", "max")),
    (lambda: nn.EmbeddingBag(3, 2, mode="sum"), [zeros(4, 2, dtype=int), None, zeros(8)],
     ValueError, "EmbeddingBag expects per_sample_weights of the shape of x, (4, 2); got (8,)"),
    (lambda: nn.EmbeddingBag(3, 2, mode="sum"),
     [zeros(4, 2, dtype=int), None, zeros(4, 2, dtype=np.float64)], TypeError,
     "EmbeddingBag expects per_sample_weights of dtype float32; got float64. Call per_sample_weig"),
    # no arrays
    *((make, [[1.0, 2.0, 3.0]] * count, TypeError, "to be an array; got list. Call xbackprop.asa")
      for make, count in [
          (lambda: nn.Linear(3, 2), 1), (lambda: nn.Embedding(3, 2), 1),
          (nn.ReLU, 1), (nn.Sigmoid, 1), (nn.Tanh, 1),
          (nn.Flatten, 1), (lambda: nn.Dropout(0.5), 1), (lambda: nn.Residual(nn.Tanh()), 1),
          (nn.MSELoss, 2), (nn.HalfSquaredError, 2), (nn.CrossEntropyLoss, 2), (nn.BCELoss, 2),
          (nn.BCEWithLogitsLoss, 2)]),
    (nn.MSELoss, [zeros(3), [0.0, 0.0, 0.0]], TypeError, "target to be an array; got list"),
    (lambda: nn.Linear(3, 2), [None], TypeError, "Linear expects x to be an array; got NoneType"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("make", "inputs", "error", "message"),
    REFUSED,
    ids=[f"{number}-{message[:20]}" for number, (*_, message) in enumerate(REFUSED)],
)
def test_refused_inputs(
    make: Any, inputs: list[Any], error: Any, message: str, xb_device: Device
) -> None:
    layer, given = make(), on_device(*inputs)
    for call in (layer.forward, layer):
        with pytest.raises(error, match=re.escape(message)):
            call(*given)


@pytest.mark.parametrize("xb_device", ["fake", "fake:1"], indirect=True)
def test_mixed_devices_name_layer_argument_both_devices_and_the_call(xb_device: Device) -> None:
    host, there = zeros(4, 3), xb.asarray(zeros(4, 3))
    labels = zeros(4, dtype=np.int64)
    name = str(xb_device)
    advice = rf"Call xbackprop\.to_device\(x, '{name}'\)\."
    with pytest.raises(ValueError, match=rf"^Linear: x is on cpu, .* are on {name}\. {advice}"):
        nn.Linear(3, 2)(host)
    with pytest.raises(ValueError, match=rf"^Dropout: x is on cpu, .* on {name}"):
        nn.Dropout(0.5)(host)
    with pytest.raises(ValueError, match=rf"^Linear \(Sequential\.1\): x is on cpu, .* {name}"):
        nn.Sequential(nn.Tanh(), nn.Linear(3, 2))(host)
    for loss in (nn.MSELoss(), nn.HalfSquaredError(), nn.BCELoss(), nn.BCEWithLogitsLoss()):
        with pytest.raises(ValueError, match=rf"target is on cpu, .* {name}.*to_device\(target"):
            loss(there, host)
        with pytest.raises(ValueError, match=rf"target is on {name}, .* on cpu"):
            loss(host, there)
    with pytest.raises(ValueError, match=rf"target is on cpu, .* on {name}"):
        nn.CrossEntropyLoss()(there, labels)
    weighted = nn.CrossEntropyLoss([1.0, 2.0, 3.0]).to("cpu")
    with pytest.raises(ValueError, match=rf"weight is on cpu, .* on {name}"):
        weighted(there, xb.asarray(labels))
    other = "fake:1" if name == "fake:0" else "fake:0"
    with pytest.raises(ValueError, match=rf"x is on {other}, .* on {name}"):
        nn.Linear(3, 2)(xb.to_device(host, other))


# --- labels -------------------------------------------------------------------------------


@pytest.mark.parametrize(("label", "advice"), [(3, "Give the network 4 outputs"), (-1, "labels")])
def test_labels_out_of_range_are_seen_on_the_host(label: int, advice: str) -> None:
    target = np.array([[0, 1], [2, label]])
    logits = zeros(2, 3, 2)
    message = rf"label {label} at index \(1, 1\) is out of range; expected 0 to 2\. .*{advice}"
    with pytest.raises(ValueError, match=f"^CrossEntropyLoss: {message}"):
        nn.CrossEntropyLoss()(logits, target)
    assert np.isfinite(nn.CrossEntropyLoss(ignore_index=label)(logits, target))


def test_labels_out_of_range_on_a_device_make_the_loss_nan(xb_device: Device) -> None:
    """Looking would be a download; CuPy would wrap the index and train on another class."""
    if xb_device.kind == "cpu":
        pytest.skip("seen on the host, see above")
    logits = xb.asarray(zeros(2, 3))
    for label in (3, -1, -3):
        target = xb.asarray([0, label])
        for reduction in ("mean", "sum"):
            loss, saved = nn.CrossEntropyLoss(reduction=reduction).forward(logits, target)
            assert np.isnan(xb.to_host(loss))
            grad = nn.CrossEntropyLoss(reduction=reduction).backward(1.0, saved)
            assert np.isnan(xb.to_host(grad)).any()


def test_probabilities_out_of_range_are_seen_on_the_host() -> None:
    for wrong in (-0.5, 1.5):
        with pytest.raises(
            ValueError, match=r"BCELoss expects probabilities from 0 to 1; .*Sigmoid"
        ):
            nn.BCELoss()(np.array([0.5, wrong], F), zeros(2))


# --- constructors -------------------------------------------------------------------------

CONSTRUCTORS = [
    (lambda: nn.Linear(-1, 2), ValueError, "Linear expects in_features >= 0; got -1"),
    (lambda: nn.Linear(1, -2), ValueError, "Linear expects out_features >= 0; got -2"),
    (lambda: nn.Dropout(1.5), ValueError, "Dropout expects p between 0 and 1; got 1.5"),
    (lambda: nn.Dropout(float("nan")), ValueError, "Dropout expects p between 0 and 1; got nan"),
    (lambda: nn.Dropout(0.5, inplace=True), NotImplementedError, "Dropout(inplace=True)"),
    (lambda: nn.ReLU(inplace=True), NotImplementedError, "ReLU(inplace=True)"),
    (lambda: nn.MSELoss("average"), ValueError, "mean, sum, none; got 'average'"),
    (lambda: nn.CrossEntropyLoss(label_smoothing=2), ValueError, "from 0 to 1; got 2"),
    (lambda: nn.Sequential(nn.ReLU), TypeError, "argument 0 is type; call it to make a layer"),
    (lambda: nn.Sequential(nn.ReLU(), max), TypeError, "argument 1 is builtin_function"),
]


@pytest.mark.parametrize(("make", "error", "message"), CONSTRUCTORS)
def test_refused_arguments(make: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        make()


# --- gradients ----------------------------------------------------------------------------


def test_a_number_is_a_gradient_of_a_loss_and_keeps_the_dtype(xb_device: Device) -> None:
    """1.0 as in the design's loop, and the loss's own 0-d kind."""
    x, y = xb.asarray(zeros(4, 3) + F(0.5)), xb.asarray(zeros(4, 3))
    labels = xb.asarray([0, 1, 2, 0])
    losses = (nn.MSELoss(), nn.HalfSquaredError(), nn.BCELoss(), nn.BCEWithLogitsLoss())
    for loss, target in (*((loss, y) for loss in losses), (nn.CrossEntropyLoss(), labels)):
        value, saved = loss.forward(x, target)
        grad = xb.to_host(loss.backward(1.0, saved, keep=True))
        assert grad.dtype == F
        again = loss.backward(xb.asarray(np.ones((), F)), saved)
        np.testing.assert_array_equal(xb.to_host(again), grad, strict=True)
        assert value.shape == ()


def test_linear_without_inputs_gives_its_bias(xb_device: Device) -> None:
    layer = nn.Linear(0, 2, rng=0)
    layer.bias.data = xb.asarray([1.0, 2.0])
    output, saved = layer.forward(xb.asarray(zeros(3, 0)))
    assert xb.to_host(output).tolist() == [[1, 2]] * 3
    assert layer.backward(output, saved).shape == (3, 0)
    assert xb.to_host(layer.bias.grad).tolist() == [3, 6]
