"""Inputs at the ends of float32 for every loss, and where PyTorch is not followed, and why."""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from layer_cases.losses.ctc import torch_ctc
from layer_cases.losses.likelihood import torch_kl_div

from xbackprop import nn

F = np.float32
INF = np.inf
MAGNITUDES = [1e-45, 1e-38, 88.0, 89.0, 104.0, 1e4, 3e38]
FINITE = [0.0, *MAGNITUDES, *(-value for value in MAGNITUDES)]
EDGES = [*FINITE, -INF]
ORDINARY = [0.3, -1.7, 2.4]  # so that 99 % of the cases are not all extremes
LOGARITHMS = [value for value in EDGES if value <= 0] + [-0.7]
PROBABILITIES = [0.0, 1e-45, 1e-38, 1e-7, 0.3, 0.5, 1 - 6e-8, 1.0]
Inputs = list[np.ndarray]


@dataclass(frozen=True)
class Edge:
    """A loss with `reduction="none"`, PyTorch's, and inputs that meet each other in all ways.

    `exceptions` says where PyTorch is not followed, and `reason` why: by position (0 the loss,
    1 the gradient of the first input, ...) a function of the inputs that returns a mask. `FLOAT64`
    instead of one stands for: where PyTorch's float32 overflows on the way to a result that its own
    float64 has, as ours does.
    """

    name: str
    ours: Callable[[], nn.Module]
    torch: Callable[[Any], Any]
    inputs: Inputs
    reason: str = ""
    exceptions: Mapping[int, Callable[..., Any]] = field(default_factory=dict)


def FLOAT64(*inputs: np.ndarray) -> bool:
    raise NotImplementedError("stands for a comparison of results")


def grid(*values: list[float]) -> Inputs:
    """Every value of the first list with every one of the others, flat."""
    return [np.array(column, F) for column in zip(*itertools.product(*values), strict=True)]


def rows(width: int = 3) -> np.ndarray:
    """Rows of scores: an extreme alone, beside its negative, beside -inf, all equal, all -inf."""
    made: list[list[float]] = []
    for value in [*EDGES, *ORDINARY]:
        made += [[value] * width, [value] + [0.0] * (width - 1)]
        made += [[0.5, -value if np.isfinite(value) else 1.0] + [value] * (width - 2)]
        made += [[value, -INF] + [1.0] * (width - 2)]
    return np.array(made, F)


def of_classes(scores: np.ndarray) -> Inputs:
    """Every row with every class as its target."""
    count, classes = scores.shape
    return [np.repeat(scores, classes, axis=0), np.tile(np.arange(classes), count)]


def soft_targets(scores: np.ndarray) -> Inputs:
    targets = np.array([[1, 0, 0], [0.2, 0.3, 0.5], [1 / 3] * 3], F)
    return [np.repeat(scores, 3, axis=0), np.tile(targets, (len(scores), 1))]


def label_lists(scores: np.ndarray) -> Inputs:
    targets = np.array([[0, -1, 2], [1, 2, -1], [-1, 0, 0], [0, 1, 2]])
    return [np.repeat(scores, 4, axis=0), np.tile(targets, (len(scores), 1))]


def vectors() -> Inputs:
    """Rows of extremes against ordinary ones, and against themselves."""
    scores = rows()
    other = np.tile(np.array([[0.3, -1.7, 2.4]], F), (len(scores), 1))
    return [np.concatenate([scores, other, scores]), np.concatenate([other, scores, scores])]


def with_labels(inputs: Inputs, labels: list[int]) -> Inputs:
    """Every row under every label."""
    count = len(labels)
    return [*(np.repeat(x, count, axis=0) for x in inputs), np.tile(labels, len(inputs[0]))]


def sequences() -> Inputs:
    """Three steps of three classes: extremes one by one in each place."""
    base = np.log(np.array([[0.5, 0.3, 0.2]] * 3, F))
    samples = []
    for value in LOGARITHMS:
        for t, k in itertools.product(range(3), range(3)):
            sample = base.copy()
            sample[t, k] = value
            samples.append(sample)
        samples.append(np.full((3, 3), value, F))
    log_probs = np.stack(samples, axis=1)
    batch = log_probs.shape[1]
    targets = np.resize(np.array([[1, 2], [1, 1], [2, 1]]), (batch, 2))
    lengths = np.resize([2, 2, 1, 0], batch)
    return [log_probs, targets, np.full(batch, 3), lengths]


def options(**more: Any) -> dict[str, Any]:
    return {"reduction": "none", **more}


def plain(name: str, inputs: Inputs, label: str = "", **more: Any) -> Edge:
    """A loss of one name and the same options on both sides."""
    told = {key: more.pop(key) for key in ("reason", "exceptions") if key in more}
    return Edge(
        f"{name}{label and ' '}{label}",
        lambda: getattr(nn, name)(**options(**more)),
        lambda t: getattr(t.nn, name)(**options(**more)),
        inputs,
        **told,
    )


OUTPUTS = [*EDGES, *ORDINARY]
CASES = [
    *(
        plain(name, grid(OUTPUTS, OUTPUTS), label, **more)
        for name, label, more in (
            ("MSELoss", "", {}),
            ("L1Loss", "", {}),
            ("SmoothL1Loss", "", {}),
            ("SmoothL1Loss", "beta 0", {"beta": 0.0}),
            ("SmoothL1Loss", "beta 1e-4", {"beta": 1e-4}),
            ("HuberLoss", "", {}),
            ("HuberLoss", "delta 1e4", {"delta": 1e4}),
        )
    ),
    plain("CrossEntropyLoss", of_classes(rows())),
    plain("CrossEntropyLoss", of_classes(rows()), "label smoothing", label_smoothing=0.1),
    plain("CrossEntropyLoss", of_classes(rows()), "ignored", ignore_index=1),
    plain("CrossEntropyLoss", soft_targets(rows()), "probabilities"),
    plain("CrossEntropyLoss", soft_targets(rows()), "smoothed probabilities", label_smoothing=0.1),
    plain("NLLLoss", of_classes(rows())),
    plain("NLLLoss", of_classes(rows()), "ignored", ignore_index=1),
    Edge(
        "KLDivLoss",
        lambda: nn.KLDivLoss("none"),
        lambda t: torch_kl_div(t, reduction="none"),
        grid(LOGARITHMS, PROBABILITIES),
        "d(y log y)/dy goes to -inf at 0; PyTorch divides 0 by 0",
        {2: lambda output, target: target == 0},
    ),
    Edge(
        "KLDivLoss log_target",
        lambda: nn.KLDivLoss("none", log_target=True),
        lambda t: torch_kl_div(t, reduction="none", log_target=True),
        grid(LOGARITHMS, LOGARITHMS),
    ),
    plain(
        "BCELoss",
        grid(PROBABILITIES, PROBABILITIES),
        reason="the loss stops its logarithms at -100, and so does the derivative for the target; "
        "PyTorch's does not",
        exceptions={2: lambda output, target: (output < 4e-44) | (output == 1)},
    ),
    plain("BCEWithLogitsLoss", grid(OUTPUTS, PROBABILITIES)),
    plain("MultiLabelSoftMarginLoss", [x[:, np.newaxis] for x in grid(OUTPUTS, PROBABILITIES)]),
    plain("PoissonNLLLoss", grid(OUTPUTS, [0.0, 1e-45, 0.5, 1.0, 2.0, 1e4, 3e38])),
    plain(
        "PoissonNLLLoss",
        grid(OUTPUTS, [0.0, 0.5, 1.0, 2.0, 1e4, 3e38]),
        "full",
        full=True,
        reason="Stirling's term does not count up to 1; PyTorch multiplies its log(0) by 0",
        exceptions={2: lambda output, target: target == 0},
    ),
    plain(
        "PoissonNLLLoss",
        grid([v for v in FINITE if v >= 0] + [0.3, 2.4], [0.0, 0.5, 2.0, 1e4]),
        "rates",
        log_input=False,
    ),
    plain(
        "GaussianNLLLoss",
        grid(OUTPUTS, [0.0, 0.3, -88.0, 3e38], [0.0, 1e-45, 1e-38, 0.5, 88.0, 1e4, 3e38]),
        reason="PyTorch doubles the difference before it divides by the variance",
        exceptions={1: FLOAT64, 2: FLOAT64},
    ),
    plain(
        "SoftMarginLoss",
        with_labels([np.array(OUTPUTS, F)], [1, -1]),
        reason="PyTorch takes exp(-y x) as it is",
        exceptions={
            0: lambda output, target: -target * output > 88,
            1: lambda output, target: -target * output > 88,
        },
    ),
    plain("HingeEmbeddingLoss", with_labels([np.array(OUTPUTS, F)], [1, -1, 0])),
    plain("MarginRankingLoss", with_labels(grid(OUTPUTS, OUTPUTS), [1, -1]), margin=0.5),
    plain("CosineEmbeddingLoss", with_labels(vectors(), [1, -1])),
    plain("MultiMarginLoss", of_classes(rows())),
    plain("MultiMarginLoss", of_classes(rows()), "p 2", p=2),
    plain("MultiLabelMarginLoss", label_lists(rows())),
    *(
        plain("TripletMarginLoss", [*vectors(), vectors()[0][::-1].copy()], f"p {p}", p=p)
        for p in (2.0, 1.0, INF)
    ),
    plain(
        "TripletMarginLoss",
        [*vectors(), vectors()[0][::-1].copy()],
        "p 3",
        p=3.0,
        reason="PyTorch multiplies powers that overflow by the 0 of a margin that is kept",
        exceptions={1: FLOAT64, 2: FLOAT64, 3: FLOAT64},
    ),
    Edge(
        "CTCLoss",
        lambda: nn.CTCLoss(reduction="none"),
        lambda t: torch_ctc(t, reduction="none"),
        sequences(),
        "PyTorch subtracts a log-probability which it added twice: NaN for -inf, and shares above "
        "1 for -3e38",
        {1: lambda log_probs, *_: (log_probs < -1e38).any((0, 2))[:, np.newaxis]},
    ),
]


def at_kinks(name: str, inputs: Inputs, label: str = "", **more: Any) -> Edge:
    return plain(name, [np.asarray(x, F if np.asarray(x).dtype.kind == "f" else None)
                        for x in inputs], label, **more)  # fmt: skip


# Where a derivative jumps, to the bit: PyTorch's choice of side. (0.5 and its like are exact.)
KINKS = [
    at_kinks("L1Loss", [[0.0, -0.0, 1.0], [0.0, 0.0, 1.0]]),
    at_kinks("SmoothL1Loss", [[0.5, -0.5, 0.0], [0.0, 0.0, 0.0]], beta=0.5),
    at_kinks("HuberLoss", [[0.5, -0.5, 0.0], [0.0, 0.0, 0.0]], delta=0.5),
    at_kinks("HingeEmbeddingLoss", [[0.5, 0.5, 0.5, 0.0], [-1, 1, 0, -1]], margin=0.5),
    at_kinks("MarginRankingLoss", [[1.0, 1.0, 0.5], [1.0, 1.0, 1.0], [1.0, -1.0, -1.0]]),
    at_kinks("MarginRankingLoss", [[1.5, 1.0], [1.0, 1.5], [1, -1]], "margin 0.5", margin=0.5),
    at_kinks("CosineEmbeddingLoss", [[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]], [-1, -1]]),
    at_kinks("MultiMarginLoss", [[[1.0, 0.0, 0.5], [0.0, 0.0, 1.0]], [0, 2]]),
    at_kinks("MultiMarginLoss", [[[1.0, 0.0, 0.5], [0.0, 0.0, 1.0]], [0, 2]], "p 2", p=2),
    at_kinks(
        "MultiLabelMarginLoss", [[[1.0, 0.0, 2.0], [0.0, 1.0, 0.5]], [[0, 2, -1], [1, -1, 0]]]
    ),
    at_kinks("PoissonNLLLoss", [[0.5, 0.5], [1.0, 1.5]], full=True),
    # the hinge at 0, and the three distances equal
    at_kinks("TripletMarginLoss", [[[0.0, 0.0]], [[1.0, 0.0]], [[0.0, 2.0]]], eps=0.0),
    at_kinks(
        "TripletMarginLoss", [[[0.0, 0.0]], [[2.0, 0.0]], [[1.0, 0.0]]], "swap", eps=0.0, swap=True
    ),
    at_kinks("TripletMarginLoss", [[[1.0, 0.0]], [[1.0, 0.0]], [[1.0, 0.0]]], "equal", eps=0.0),
    at_kinks(
        "TripletMarginLoss", [[[2.0, 2.0]], [[1.0, 3.0]], [[1.0, 1.0]]], "p inf", eps=0.0, p=INF
    ),
    at_kinks("TripletMarginLoss", [[[2.0, 2.0]], [[2.0, 3.0]], [[1.0, 2.0]]], "p 1", eps=0.0, p=1),
    at_kinks("TripletMarginLoss", [[[2.0, 2.0]], [[2.0, 3.0]], [[1.0, 2.0]]], "p 3", eps=0.0, p=3),
    at_kinks("TripletMarginLoss", [[[2.0, 2.0]], [[2.0, 3.0]], [[1.0, 3.0]]], "p 0", eps=0.0, p=0),
]
