"""Losses beyond the table: alignments one by one, values out of range on a device, corners."""

import inspect
import itertools
from typing import Any

import numpy as np
import pytest
from layer_cases.losses.ctc import log_softmax
from needs_torch import import_torch

import xbackprop as xb
from xbackprop import nn
from xbackprop.backend.device import Device
from xbackprop.testing.structures import backward_of_all_inputs

F = np.float32
LOSSES = [
    name
    for name, loss in nn.catalogue().items()
    if issubclass(loss, nn.Loss) and loss is not nn.Loss
]


def floats(*shape: int, value: float = 0.5) -> np.ndarray:
    return np.full(shape, value, F)


# --- connectionist temporal classification -------------------------------------------------


def collapse(path: tuple[int, ...], blank: int) -> list[int]:
    """Merge what is repeated, then drop the blanks."""
    return [label for label, _ in itertools.groupby(path) if label != blank]


def sum_over_alignments(
    log_probs: np.ndarray, labels: list[int], blank: int
) -> tuple[float, np.ndarray]:
    """The loss by its definition, and minus the share of the paths through each entry."""
    time, classes = log_probs.shape
    total, through = 0.0, np.zeros_like(log_probs)
    for path in itertools.product(range(classes), repeat=time):
        if collapse(path, blank) == labels:
            probability = np.exp(log_probs[np.arange(time), path].sum())
            total += probability
            through[np.arange(time), path] += probability
    with np.errstate(all="ignore"):
        return -np.log(total), -through / total


@pytest.mark.parametrize("blank", [0, 2])
@pytest.mark.parametrize("labels", [[], [0], [1], [1, 1], [0, 1], [1, 0, 1], [1, 1, 0], [1, 1, 1]])
@pytest.mark.parametrize("time", [1, 3, 5])
def test_ctc_is_the_sum_over_all_alignments(
    time: int, labels: list[int], blank: int, xb_device: Device
) -> None:
    labels = [label + (blank == 0) for label in labels]
    log_probs = log_softmax(np.random.default_rng(time).normal(size=(time, 3)))
    expected, expected_grad = sum_over_alignments(log_probs, labels, blank)
    loss = nn.CTCLoss(blank, "sum")
    inputs = [xb.asarray(x, dtype=x.dtype) for x in (
        log_probs, np.array(labels, np.int64), np.array(time), np.array(len(labels)))]  # fmt: skip
    output, saved = loss.forward(*inputs)
    grad = xb.to_host(loss.backward(1.0, saved))
    np.testing.assert_allclose(xb.to_host(output), expected, rtol=1e-12)
    if np.isfinite(expected):
        np.testing.assert_allclose(grad, expected_grad, atol=1e-12)
    else:
        assert np.isnan(grad).all()


def test_ctc_of_lengths_given_as_tuples_and_lists_is_that_of_arrays() -> None:
    log_probs = log_softmax(np.random.default_rng(0).normal(size=(5, 2, 4)))
    padded = np.array([[1, 2], [3, 0]])
    expected = nn.CTCLoss()(log_probs, padded, np.array([5, 4]), np.array([2, 1]))
    for lengths in (((5, 4), (2, 1)), ([5, 4], [2, 1])):
        for targets in (padded, np.array([1, 2, 3])):
            assert nn.CTCLoss()(log_probs, targets, *lengths) == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("xb_device", ["fake"], indirect=True)
def test_ctc_on_a_device_wants_lengths_there(xb_device: Device) -> None:
    log_probs, targets = xb.asarray(floats(5, 2, 4)), xb.asarray(np.array([[1, 2], [3, 0]]))
    with pytest.raises(TypeError, match=r"input_lengths to be an array; got tuple\. Call"):
        nn.CTCLoss()(log_probs, targets, (5, 5), (2, 1))


WRONG_SEQUENCES = {
    "label": ([[1, 4], [3, 1]], [5, 5], [2, 2]),
    "negative label": ([[1, -1], [3, 1]], [5, 5], [2, 2]),
    "blank label": ([[1, 0], [3, 1]], [5, 5], [2, 2]),
    "input length": ([[1, 2], [3, 1]], [6, 5], [2, 2]),
    "negative input length": ([[1, 2], [3, 1]], [-1, 5], [2, 2]),
    "target length": ([[1, 2], [3, 1]], [5, 5], [3, 2]),
    "negative target length": ([[1, 2], [3, 1]], [5, 5], [-1, 2]),
}


@pytest.mark.parametrize("zero_infinity", [False, True])
@pytest.mark.parametrize("what", WRONG_SEQUENCES)
def test_ctc_of_wrong_sequences_on_a_device_is_nan(
    what: str, zero_infinity: bool, xb_device: Device
) -> None:
    """The first sample's, not the second's; on the host they are refused."""
    if xb_device.kind == "cpu":
        pytest.skip("refused on the host, see test_loss_errors.py")
    labels, *lengths = (np.array(x) for x in WRONG_SEQUENCES[what])
    log_probs = log_softmax(np.random.default_rng(0).normal(size=(5, 2, 4)))
    right = nn.CTCLoss(reduction="none")(
        *(xb.asarray(x, dtype=x.dtype) for x in (log_probs, labels[[1, 1]], lengths[0] * 0 + 5,
                                                 lengths[1] * 0 + 2)))  # fmt: skip
    loss = nn.CTCLoss(reduction="none", zero_infinity=zero_infinity)
    received = loss(*(xb.asarray(x, dtype=x.dtype) for x in (log_probs, labels, *lengths)))
    assert np.isnan(xb.to_host(received)[0])
    np.testing.assert_array_equal(xb.to_host(received)[1], xb.to_host(right)[1])


def test_ctc_of_concatenated_labels_of_a_wrong_sum_on_a_device_is_nan(xb_device: Device) -> None:
    if xb_device.kind == "cpu":
        pytest.skip("refused on the host, see test_loss_errors.py")
    log_probs = log_softmax(np.random.default_rng(0).normal(size=(5, 2, 4)))
    for targets in ([1, 2], [1, 2, 3, 1]):
        arrays = (log_probs, np.array(targets), np.array([5, 5]), np.array([2, 1]))
        received = nn.CTCLoss(reduction="none")(*(xb.asarray(x, dtype=x.dtype) for x in arrays))
        assert np.isnan(xb.to_host(received)).all()


def test_ctc_of_a_concatenated_target_longer_than_the_input_is_infinite(xb_device: Device) -> None:
    """Its row of labels is cut to the time steps, which must not make it possible."""
    log_probs = log_softmax(np.random.default_rng(0).normal(size=(2, 2, 4)))
    arrays = (log_probs, np.array([1, 2, 3, 3]), np.array([2, 2]), np.array([3, 1]))
    inputs = [xb.asarray(x, dtype=x.dtype) for x in arrays]
    received = xb.to_host(nn.CTCLoss(reduction="none")(*inputs))
    assert received[0] == np.inf
    assert received[1] == pytest.approx(sum_over_alignments(log_probs[:, 1], [3], 0)[0])


# --- values out of range on a device --------------------------------------------------------


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("name", ["NLLLoss", "CrossEntropyLoss", "MultiMarginLoss"])
def test_labels_out_of_range_on_a_device_make_loss_and_gradient_nan(
    name: str, reduction: str, xb_device: Device
) -> None:
    if xb_device.kind == "cpu":
        pytest.skip("refused on the host, see test_loss_errors.py")
    for label in (3, -1, -3):
        loss = getattr(nn, name)(reduction=reduction)
        output, saved = loss.forward(xb.asarray(floats(2, 3)), xb.asarray(np.array([0, label])))
        grad = xb.to_host(loss.backward(xb.get_array_module(output).ones_like(output), saved))
        assert np.isnan(np.atleast_1d(xb.to_host(output))[-1])
        assert np.isnan(grad[1]).any()


@pytest.mark.parametrize("label", [4, -2])
def test_label_lists_out_of_range_on_a_device_make_the_loss_nan(
    label: int, xb_device: Device
) -> None:
    if xb_device.kind == "cpu":
        pytest.skip("refused on the host, see test_loss_errors.py")
    target = xb.asarray(np.array([[0, 1, -1, 0], [2, -1, label, 0]]))
    loss = nn.MultiLabelMarginLoss("none")
    output, saved = loss.forward(xb.asarray(floats(2, 4)), target)
    assert np.isnan(xb.to_host(output)).tolist() == [False, True]
    grad = xb.to_host(loss.backward(xb.asarray(floats(2)), saved))
    assert np.isnan(grad).all(axis=1).tolist() == [False, True]


def test_negative_variances_on_a_device_make_the_loss_nan(xb_device: Device) -> None:
    if xb_device.kind == "cpu":
        pytest.skip("refused on the host, see test_loss_errors.py")
    inputs = [xb.asarray(floats(2)), xb.asarray(floats(2)), xb.asarray(np.array([1.0, -1.0], F))]
    loss = nn.GaussianNLLLoss(reduction="none")
    output, saved = loss.forward(*inputs)
    grads = loss.backward(xb.asarray(floats(2)), saved, all_inputs=True)
    for array in (output, *grads):
        assert np.isnan(xb.to_host(array)).tolist() == [False, True]


# --- reductions -----------------------------------------------------------------------------


def test_batchmean_is_the_sum_over_the_batch(xb_device: Device) -> None:
    output, target = xb.asarray(floats(4, 3, value=-1.0)), xb.asarray(floats(4, 3))
    total = float(xb.to_host(nn.KLDivLoss("sum")(output, target)))
    assert float(xb.to_host(nn.KLDivLoss("batchmean")(output, target))) == total / 4
    one = float(xb.to_host(nn.KLDivLoss("batchmean")(output[0, 0], target[0, 0])))
    assert one == pytest.approx(total / 12)


def test_the_mean_of_ctc_is_that_of_losses_per_label(xb_device: Device) -> None:
    log_probs = log_softmax(np.random.default_rng(0).normal(size=(5, 3, 4)))
    lengths = np.array([2, 1, 0])
    arrays = (log_probs, np.array([[1, 2], [3, 1], [1, 1]]), np.array([5, 4, 3]), lengths)
    inputs = [xb.asarray(x, dtype=x.dtype) for x in arrays]
    each = xb.to_host(nn.CTCLoss(reduction="none")(*inputs))
    mean = float(xb.to_host(nn.CTCLoss()(*inputs)))
    assert mean == pytest.approx((each / np.maximum(lengths, 1)).mean())


# --- corners --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["NLLLoss", "CrossEntropyLoss"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_ignored_samples_cost_nothing_whatever_their_scores(
    name: str, smoothing: float, xb_device: Device
) -> None:
    """-inf times a weight of 0 would be NaN; the ignored label is one of the classes."""
    if name == "NLLLoss" and smoothing:
        pytest.skip("NLLLoss has no label smoothing")
    options = {"label_smoothing": smoothing} if smoothing else {}
    scores = xb.asarray(np.array([[0.5, 1.0, 0.2], [1.0, -np.inf, 0.3]], F))
    loss = getattr(nn, name)(ignore_index=1, **options)
    alone = loss(scores[:1], xb.asarray(np.array([0])))
    both = loss(scores, xb.asarray(np.array([0, 1])))
    assert float(xb.to_host(both)) == float(xb.to_host(alone))


def test_cross_entropy_keeps_its_digits_at_large_logits(xb_device: Device) -> None:
    """log(2), which x - logsumexp(x) rounds to a multiple of 0.001 at 1e4, and to 0 at 3e38."""
    for scale in (1e4, 3e38):
        logits = xb.asarray(floats(1, 2, value=scale))
        for target in (np.array([0]), np.array([[0.3, 0.7]], F)):
            loss = nn.CrossEntropyLoss()(logits, xb.asarray(target, dtype=target.dtype))
            assert float(xb.to_host(loss)) == pytest.approx(np.log(2), rel=1e-6)


def test_probabilities_of_one_class_are_that_class(xb_device: Device) -> None:
    logits = np.random.default_rng(0).normal(size=(4, 3)).astype(F)
    labels = np.array([2, 0, 1, 2])
    results = []
    for target in (labels, np.eye(3, dtype=F)[labels]):
        loss = nn.CrossEntropyLoss(label_smoothing=0.2)
        output, saved = loss.forward(xb.asarray(logits), xb.asarray(target, dtype=target.dtype))
        results.append([xb.to_host(output), xb.to_host(loss.backward(1.0, saved))])
    for received, expected in zip(*results, strict=True):
        np.testing.assert_allclose(received, expected, atol=1e-6)


def test_focal_loss_of_certain_answers_has_no_infinite_slope(xb_device: Device) -> None:
    """(1 - p_t)^(gamma - 1) is infinite where p_t is 1, for gamma below 1."""
    logits, target = np.array([200.0, -200.0, 200.0], F), np.array([1.0, 0.0, 0.0], F)
    for gamma in (0.0, 0.5, 1.0, 2.0):
        loss = nn.FocalLoss(gamma=gamma, reduction="none")
        output, saved = loss.forward(xb.asarray(logits), xb.asarray(target))
        grads = loss.backward(xb.asarray(floats(3, value=1.0)), saved, all_inputs=True)
        assert xb.to_host(output).tolist() == [0, 0, 150]
        assert xb.to_host(grads[0]).tolist() == [0, 0, 0.75]
        assert np.isfinite(xb.to_host(grads[1])).all()


def test_dice_loss_of_two_empty_regions_is_zero(xb_device: Device) -> None:
    nothing = xb.asarray(floats(2, 3, value=0.0))
    assert float(xb.to_host(nn.DiceLoss()(nothing, nothing))) == 0


def test_soft_margin_does_not_overflow(xb_device: Device) -> None:
    """PyTorch's is inf here, and its gradient NaN."""
    loss = nn.SoftMarginLoss("sum")
    output, saved = loss.forward(xb.asarray(np.array([1e4], F)), xb.asarray(np.array([-1.0], F)))
    assert float(xb.to_host(output)) == 1e4
    assert xb.to_host(loss.backward(1.0, saved)).tolist() == [1.0]


# --- beside PyTorch -------------------------------------------------------------------------


@pytest.mark.torch_parity
@pytest.mark.parametrize("name", LOSSES)
def test_constructors_are_pytorchs_without_the_deprecated_arguments(name: str) -> None:
    torch = import_torch()
    if not hasattr(torch.nn, name):
        pytest.skip(f"PyTorch has no {name}")
    assert arguments(getattr(nn, name)) == {
        key: value
        for key, value in arguments(getattr(torch.nn, name)).items()
        if key not in ("size_average", "reduce")
    }


def arguments(cls: type) -> dict[str, Any]:
    """Names in order, with kind and default."""
    parameters = inspect.signature(cls).parameters.values()
    return {
        parameter.name: (parameter.kind, parameter.default)
        for parameter in sorted(parameters, key=lambda parameter: parameter.kind)
    }


EMPTY = {
    "NLLLoss": [floats(0, 3), np.zeros(0, np.int64)],
    "CrossEntropyLoss": [floats(0, 3), np.zeros(0, np.int64)],
    "CrossEntropyLoss of probabilities": [floats(0, 3), floats(0, 3)],
    "MultiLabelSoftMarginLoss": [floats(0, 3), floats(0, 3)],
    "GaussianNLLLoss": [floats(0, 3)] * 3,
    "MarginRankingLoss": [floats(0, 3)] * 3,
    "CosineEmbeddingLoss": [floats(0, 3), floats(0, 3), floats(0)],
    "TripletMarginLoss": [floats(0, 3)] * 3,
    "TripletMarginWithDistanceLoss": [floats(0, 3)] * 3,
    **{name: [floats(0, 3), floats(0, 3)] for name in (
        "MSELoss", "L1Loss", "SmoothL1Loss", "HuberLoss", "KLDivLoss", "BCELoss",
        "BCEWithLogitsLoss", "PoissonNLLLoss", "SoftMarginLoss", "HingeEmbeddingLoss")},
}  # fmt: skip


@pytest.mark.torch_parity
@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides")
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("name", EMPTY)
def test_losses_of_nothing(name: str, reduction: str) -> None:
    torch = import_torch()
    inputs, cls = EMPTY[name], name.split()[0]
    loss = getattr(nn, cls)(reduction=reduction)
    output, saved = loss.forward(*inputs)
    theirs = getattr(torch.nn, cls)(reduction=reduction)(*(torch.tensor(x) for x in inputs))
    np.testing.assert_array_equal(output, theirs.numpy())
    assert np.isnan(output) if reduction == "mean" else output == 0
    for grad, x in zip(backward_of_all_inputs(loss, 1.0, saved, len(inputs)), inputs, strict=True):
        assert grad is None or grad.shape == x.shape


@pytest.mark.parametrize("name", ["MultiMarginLoss", "MultiLabelMarginLoss"])
def test_margins_of_nothing(name: str) -> None:
    """PyTorch's mean of nothing is whatever was in memory."""
    shape = (0, 3) if "Label" in name else (0,)
    for reduction, expected in (("mean", np.nan), ("sum", 0.0)):
        output = getattr(nn, name)(reduction=reduction)(floats(0, 3), np.zeros(shape, np.int64))
        np.testing.assert_array_equal(output, F(expected))


@pytest.mark.torch_parity
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_ctc_after_log_softmax_gives_the_logits_pytorchs_gradient(reduction: str) -> None:
    """Both gradients of `log_probs`, the derivative and PyTorch's, become one under softmax."""
    torch = import_torch()
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(6, 3, 4))
    targets = np.array([[1, 1, 2], [3, 2, 1], [2, 2, 2]])
    lengths = np.array([6, 5, 4]), np.array([3, 1, 2])
    tensor = torch.tensor(logits, requires_grad=True)
    arrays = [torch.tensor(x) for x in (targets, *lengths)]
    torch.nn.CTCLoss(reduction=reduction)(tensor.log_softmax(-1), *arrays).backward()
    loss = nn.CTCLoss(reduction=reduction)
    log_probs = log_softmax(logits)
    _, saved = loss.forward(log_probs, targets, *lengths)
    grad = loss.backward(1.0, saved)
    grad = grad - np.exp(log_probs) * grad.sum(-1, keepdims=True)  # backward of log_softmax
    np.testing.assert_allclose(grad, tensor.grad.numpy(), atol=1e-12)
