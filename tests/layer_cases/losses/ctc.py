"""Rows of connectionist temporal classification."""

from collections.abc import Callable
from typing import Any

import numpy as np

from layer_cases.case import Case, Rng, torch_function
from layer_cases.losses.drawing import reduced
from xbackprop import nn

TIME, CLASSES = 6, 4


def log_softmax(x: np.ndarray) -> np.ndarray:
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def sequences(
    *, padded: bool = True, fitting: bool = True, dtype: Any = np.int64
) -> Callable[[Rng], tuple[np.ndarray, ...]]:
    """Four samples: a label twice in a row, no label, a short input, and perhaps one too short."""

    def draw(rng: Rng) -> tuple[np.ndarray, ...]:
        log_probs = log_softmax(rng.normal(size=(TIME, 4, CLASSES)))
        labels = np.array([[1, 1, 2], [3, 3, 3], [2, 1, 3], [1, 1, 3]])
        target_lengths = np.array([3, 0, 2, 3])
        input_lengths = np.array([TIME, TIME, 3, TIME if fitting else 3])
        if not padded:
            labels = np.concatenate(
                [row[:length] for row, length in zip(labels, target_lengths, strict=True)]
            )
        return log_probs, labels.astype(dtype), input_lengths, target_lengths

    return draw


def one_sequence(rng: Rng) -> tuple[np.ndarray, ...]:
    log_probs = log_softmax(rng.normal(size=(TIME, CLASSES)))
    return log_probs, np.array([2, 1]), np.array(5), np.array(2)


def torch_ctc(torch: Any, **options: Any) -> Any:
    """PyTorch's loss, with the derivative of that loss.

    PyTorch's gradient is that of logits under a softmax which made `log_probs`: it holds their
    probabilities on top of the derivative. A term of value 0 takes them off again.
    """

    def function(module: Any, log_probs: Any, targets: Any, *lengths: Any) -> Any:
        loss = module(log_probs, targets, *lengths)
        is_batch = log_probs.ndim == 3
        x = log_probs if is_batch else log_probs[:, None]
        input_lengths, target_lengths = (value.reshape(-1) for value in lengths)
        runs = torch.arange(len(x))[:, None] < input_lengths
        each = torch.nn.CTCLoss(module.blank, "none")(x, targets, *lengths).detach()
        extra = (x.exp() * (runs & torch.isfinite(each))[..., None]).sum((0, 2))
        extra = extra - extra.detach()
        if module.reduction == "mean":
            extra = (extra / target_lengths.clamp(min=1)).mean()
        elif module.reduction == "sum" or not is_batch:
            extra = extra.sum()
        return loss - extra

    return torch_function(torch, function, torch.nn.CTCLoss(**options))


CTC = [
    *reduced("CTCLoss", nn.CTCLoss, sequences(), torch_ctc, has_batch=False),
    *reduced(
        "CTCLoss",
        nn.CTCLoss,
        sequences(padded=False),
        torch_ctc,
        suffix="of concatenated labels",
        has_batch=False,
    ),
    *reduced(
        "CTCLoss",
        lambda **o: nn.CTCLoss(zero_infinity=True, **o),
        sequences(fitting=False),
        lambda t, **o: torch_ctc(t, zero_infinity=True, **o),
        suffix="zero_infinity, one input too short",
        has_batch=False,
    ),
    Case(
        "CTCLoss blank 3, int32",
        lambda: nn.CTCLoss(3),
        lambda rng: (
            log_softmax(rng.normal(size=(TIME, 2, CLASSES))),
            np.array([[1, 2, 0], [0, 0, 3]], np.int32),
            np.array([6, 5], np.int32),
            np.array([3, 2], np.int32),
        ),
        lambda t: torch_ctc(t, blank=3),
        has_batch=False,
    ),
    *reduced(
        "CTCLoss",
        nn.CTCLoss,
        one_sequence,
        torch_ctc,
        suffix="of one sequence",
        has_batch=False,
    ),
    Case(
        "CTCLoss of what no softmax made",
        nn.CTCLoss,
        lambda rng: (rng.normal(size=(TIME, 4, CLASSES)), *sequences()(rng)[1:]),
        torch_ctc,
        has_batch=False,
    ),
    Case(
        "CTCLoss of no labels",
        nn.CTCLoss,
        lambda rng: (
            log_softmax(rng.normal(size=(3, 2, CLASSES))),
            np.zeros(0, np.int64),
            np.array([3, 2]),
            np.array([0, 0]),
        ),
        torch_ctc,
        has_batch=False,
    ),
]
