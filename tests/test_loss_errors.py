"""What losses refuse, as PyTorch does; a refused call leaves the loss as it was."""

import pickle
import re
import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from layer_cases.losses.drawing import REDUCTIONS
from needs_torch import import_torch

import xbackprop as xb
from xbackprop import nn
from xbackprop.backend.device import Device

F = np.float32
LOSSES = [
    name
    for name, loss in nn.catalogue().items()
    if issubclass(loss, nn.Loss) and loss is not nn.Loss
]


def floats(*shape: int, dtype: Any = F, value: float = 0.5) -> np.ndarray:
    return np.full(shape, value, dtype)


def integers(*values: Any) -> np.ndarray:
    return np.array(values, np.int64)


@dataclass(frozen=True)
class Refusal:
    """`host_only`: looking at values would be a download on a device."""

    name: str
    options: dict[str, Any]
    inputs: list[Any]
    error: type[Exception]
    message: str
    host_only: bool = False
    ours: str = field(default="", kw_only=True)  # why we refuse what PyTorch accepts

    @property
    def id(self) -> str:
        return re.sub(r"\W+", "-", f"{self.name}-{self.message[:50]}")


BROADCASTS = "PyTorch broadcasts, most often by mistake"
PAIRS = [
    "MSELoss", "L1Loss", "SmoothL1Loss", "HuberLoss", "KLDivLoss", "BCELoss", "BCEWithLogitsLoss",
    "MultiLabelSoftMarginLoss", "PoissonNLLLoss", "SoftMarginLoss", "HingeEmbeddingLoss",
]  # fmt: skip
OF_FLOATS = ["MSELoss", "L1Loss", "SmoothL1Loss", "HuberLoss", "KLDivLoss", "BCELoss",
             "BCEWithLogitsLoss"]  # fmt: skip
REFUSED_BY_PYTORCH = ("BCELoss", "BCEWithLogitsLoss", "MultiLabelMarginLoss")

CALLS = [
    # shapes
    *(
        Refusal(name, {}, [floats(4, 1), floats(4)], ValueError,
                f"{name} expects output and target of one shape; got output (4, 1) and target (4,)",
                ours="" if name in REFUSED_BY_PYTORCH else BROADCASTS)
        for name in PAIRS
    ),
    Refusal("NLLLoss", {}, [floats(4, 3), integers(0, 1, 2)], ValueError,
            "NLLLoss: logits of shape (4, 3) expect a target of shape (4,); got (3,)"),
    Refusal("NLLLoss", {}, [floats(), np.array(0)], ValueError, "NLLLoss expects logits of shape"),
    Refusal("NLLLoss", {"weight": [1.0, 2.0]}, [floats(2, 3), integers(0, 1)], ValueError,
            "NLLLoss expects weight of shape (3,), one per class; got (2,)"),
    Refusal("CrossEntropyLoss", {"weight": [1.0]}, [floats(2, 3), integers(0, 1)], ValueError,
            "CrossEntropyLoss expects weight of shape (3,), one per class; got (1,)"),
    Refusal("CrossEntropyLoss", {"weight": [1.0, 2.0]}, [floats(2, 3), floats(2, 3)], ValueError,
            "CrossEntropyLoss expects weight of shape (3,), one per class; got (2,)"),
    Refusal("CrossEntropyLoss", {"ignore_index": 1}, [floats(2, 3), floats(2, 3)], ValueError,
            "ignore_index=1 names a class index, and the target holds probabilities"),
    Refusal("CrossEntropyLoss", {}, [floats(2, 3), np.zeros((2, 3), int)], ValueError,
            "expect a target of shape (2,); got (2, 3)"),
    Refusal("CrossEntropyLoss", {}, [floats(2, 3), floats(2)], TypeError,
            "expects integer class indices as target; got float32"),
    Refusal("BCELoss", {"weight": [1.0, 2.0]}, [floats(2, 3), floats(2, 3)], ValueError,
            "BCELoss: weight of shape (2,) does not broadcast to the output's shape (2, 3)"),
    Refusal("BCEWithLogitsLoss", {"pos_weight": [1.0, 2.0]}, [floats(2, 3), floats(2, 3)],
            ValueError, "BCEWithLogitsLoss: pos_weight of shape (2,) does not broadcast"),
    Refusal("BCEWithLogitsLoss", {"weight": np.ones((4, 2, 3), F)}, [floats(2, 3), floats(2, 3)],
            ValueError, "weight of shape (4, 2, 3) does not broadcast", ours=BROADCASTS),
    Refusal("MultiLabelSoftMarginLoss", {"weight": [1.0, 2.0]}, [floats(2, 3), floats(2, 3)],
            ValueError, "weight of shape (2,) does not broadcast"),
    Refusal("MultiLabelSoftMarginLoss", {}, [floats(), floats()], ValueError, "(..., classes)"),
    Refusal("GaussianNLLLoss", {}, [floats(4, 3), floats(4, 3), floats(3)], ValueError,
            "GaussianNLLLoss expects var of the output's shape (4, 3), without its last axis"),
    Refusal("GaussianNLLLoss", {}, [floats(4, 3, 2), floats(4, 3, 2), floats(1, 1, 2)], ValueError,
            "one axis of length 1; got (1, 1, 2)"),
    Refusal("GaussianNLLLoss", {}, [floats(4, 1), floats(4), floats(4, 1)], ValueError,
            "GaussianNLLLoss expects output and target of one shape", ours=BROADCASTS),
    Refusal("GaussianNLLLoss", {}, [floats(2), floats(2), floats(2, value=-1)], ValueError,
            "GaussianNLLLoss expects variances that are not negative; got -1", True),
    Refusal("GaussianNLLLoss", {}, [floats(2), floats(2), -1.0], ValueError,
            "GaussianNLLLoss expects variances that are not negative; got -1"),
    Refusal("MarginRankingLoss", {}, [floats(4, 1), floats(4), floats(4)], ValueError,
            "MarginRankingLoss expects inputs with the same number of axes that broadcast; got "
            "input1 (4, 1), input2 (4,), target (4,)"),
    Refusal("MarginRankingLoss", {}, [floats(4), floats(3), floats(4)], ValueError, "input2 (3,)"),
    Refusal("CosineEmbeddingLoss", {}, [floats(4, 3), floats(4, 2), integers(1, 1, 1, 1)],
            ValueError, "CosineEmbeddingLoss expects inputs with the same number of axes"),
    Refusal("CosineEmbeddingLoss", {}, [floats(2, 3, 2), floats(2, 3, 2), integers(1, 1)],
            ValueError, "(batch, n) and target of shape (batch,), or (n,) and (); got (2, 3, 2)"),
    Refusal("CosineEmbeddingLoss", {}, [floats(3), floats(3), integers(1)], ValueError,
            "(3,), (3,) and (1,)"),
    Refusal("CosineEmbeddingLoss", {}, [floats(2, 3), floats(2, 3), np.array(1)], ValueError,
            "(2, 3), (2, 3) and ()"),
    Refusal("CosineEmbeddingLoss", {}, [floats(2, 3), floats(2, 3), integers(1)], ValueError,
            "(2, 3), (2, 3) and (1,)", ours=BROADCASTS),
    Refusal("MultiMarginLoss", {}, [floats(2, 3, 2), np.zeros((2, 2), int)], ValueError,
            "MultiMarginLoss expects output of shape (batch, classes) or (classes,)"),
    Refusal("MultiMarginLoss", {}, [floats(2, 3), integers(1)], ValueError, "target of shape (2,)"),
    Refusal("MultiMarginLoss", {"weight": [1.0, 2.0]}, [floats(2, 3), integers(0, 1)], ValueError,
            "MultiMarginLoss expects weight of shape (3,)"),
    Refusal("MultiMarginLoss", {}, [floats(2, 3), floats(2)], TypeError, "integer class indices"),
    Refusal("MultiLabelMarginLoss", {}, [floats(2, 3), np.zeros((2, 2), int)], ValueError,
            "MultiLabelMarginLoss expects output and target of one shape, (batch, classes)"),
    Refusal("MultiLabelMarginLoss", {}, [floats(2, 3, 2), np.zeros((2, 3, 2), int)], ValueError,
            "MultiLabelMarginLoss expects output and target of one shape, (batch, classes)"),
    Refusal("MultiLabelMarginLoss", {}, [floats(2, 3), floats(2, 3)], TypeError,
            "MultiLabelMarginLoss expects integer class indices as target; got float32"),
    *(
        Refusal(name, {}, [floats(4, 3), floats(3), floats(4, 3)], ValueError,
                f"{name} expects inputs with the same number of axes that broadcast; got anchor "
                "(4, 3), positive (3,), negative (4, 3)")
        for name in ("TripletMarginLoss", "TripletMarginWithDistanceLoss")
    ),
    Refusal("TripletMarginLoss", {}, [floats(4, 3), floats(4, 3), floats(4, 2)], ValueError,
            "negative (4, 2)"),
    Refusal("DiceLoss", {}, [floats(), floats()], ValueError, "DiceLoss expects output of shape"),
    # values
    Refusal("BCELoss", {}, [floats(2, value=1.5), floats(2)], ValueError,
            "BCELoss expects probabilities from 0 to 1; got 1.5 to 1.5. Put Sigmoid", True),
    Refusal("BCELoss", {}, [floats(2, value=np.nan), floats(2)], ValueError,
            "BCELoss expects probabilities from 0 to 1; got nan", True),
    Refusal("BCELoss", {}, [floats(2), floats(2, value=-0.5)], ValueError,
            "BCELoss expects target from 0 to 1; got -0.5 to -0.5", True),
    *(
        Refusal(name, {}, [floats(2, 3), integers(0, label)], ValueError,
                f"{name}: label {label} at index (1) is out of range; expected 0 to 2", True)
        for name in ("NLLLoss", "CrossEntropyLoss", "MultiMarginLoss") for label in (3, -1)
    ),
    Refusal("MultiMarginLoss", {}, [floats(2, 3), integers(0, -100)], ValueError,
            "label -100 at index (1) is out of range", True),
    *(
        Refusal("MultiLabelMarginLoss", {}, [floats(1, 3), integers([0, -1, label])], ValueError,
                "MultiLabelMarginLoss expects class indices from 0 to 2, or -1 for the end", True)
        for label in (3, -2)
    ),
    # dtypes
    *(
        Refusal(name, {}, [floats(3), floats(3, dtype=np.float64)], TypeError,
                f"{name} expects target of dtype float32; got float64. Call target.astype(",
                ours="PyTorch promotes to float64")
        for name in PAIRS
    ),
    *(
        Refusal(name, {}, [floats(3), integers(0, 1, 0)], TypeError,
                f"{name} expects target of dtype float32; got int64", ours="" if name == "BCELoss"
                else "PyTorch promotes, or fails in backward")
        for name in OF_FLOATS
    ),
    *(
        Refusal(name, {}, [integers(0, 1, 0), integers(0, 1, 0)], TypeError,
                f"{name} expects output of a float dtype; got int64",
                ours="PyTorch computes, and has no gradient")
        for name in PAIRS
    ),
    Refusal("NLLLoss", {}, [integers([0, 1]), integers(0)], TypeError, "of a float dtype"),
    Refusal("NLLLoss", {}, [floats(2, 3), floats(2)], TypeError,
            "NLLLoss expects integer class indices as target; got float32"),
    Refusal("CrossEntropyLoss", {}, [integers([0, 1]), integers(0)], TypeError, "float dtype"),
    Refusal("CrossEntropyLoss", {}, [floats(2, 3), floats(2, 3, dtype=np.float64)], TypeError,
            "CrossEntropyLoss expects target of dtype float32; got float64",
            ours="PyTorch promotes to float64"),
    Refusal("TripletMarginLoss", {}, [floats(2, 3), floats(2, 3, dtype=np.float64), floats(2, 3)],
            TypeError, "expects positive of dtype float32; got float64",
            ours="PyTorch promotes to float64"),
    Refusal("SoftMarginLoss", {}, [floats(2), np.ones(2, bool)], TypeError,
            "SoftMarginLoss expects target of dtype float32; got bool",
            ours="PyTorch computes with it"),
]  # fmt: skip

LOG_PROBS = np.log(np.full((5, 2, 4), 0.25, F))
PADDED = integers([1, 2], [3, 0])


def ctc(
    log_probs: Any = LOG_PROBS, targets: Any = PADDED, inputs: Any = (5, 5), labels: Any = (2, 1)
) -> list[Any]:
    return [
        log_probs,
        targets,
        *(integers(*x) if type(x) is tuple else x for x in (inputs, labels)),
    ]


CALLS += [
    Refusal("CTCLoss", {}, ctc(LOG_PROBS[0, 0]), ValueError, "CTCLoss expects log_probs of shape"),
    Refusal("CTCLoss", {}, ctc(LOG_PROBS[:0]), ValueError, "not empty; got (0, 2, 4)"),
    Refusal("CTCLoss", {}, ctc(LOG_PROBS[:, :0], PADDED[:0], (), ()), ValueError, "not empty"),
    Refusal("CTCLoss", {"blank": 4}, ctc(), ValueError, "expects blank from 0 to 3; got 4"),
    Refusal("CTCLoss", {"blank": -1}, ctc(), ValueError, "expects blank from 0 to 3; got -1"),
    Refusal("CTCLoss", {}, ctc(inputs=(5,)), ValueError,
            "CTCLoss expects input_lengths of shape (2,), one per sample; got (1,)"),
    Refusal("CTCLoss", {}, ctc(labels=(2, 1, 1)), ValueError, "target_lengths of shape (2,)"),
    Refusal("CTCLoss", {}, ctc(inputs=floats(2)), TypeError, "input_lengths of an integer dtype"),
    Refusal("CTCLoss", {}, ctc(targets=PADDED[:1]), ValueError,
            "CTCLoss expects targets of shape (2, longest), or all labels in one row; got (1, 2)"),
    Refusal("CTCLoss", {}, ctc(targets=PADDED[np.newaxis]), ValueError, "got (1, 2, 2)"),
    Refusal("CTCLoss", {}, ctc(targets=floats(2, 2)), TypeError,
            "CTCLoss expects integer labels as targets; got float32", ours="PyTorch rounds them"),
    Refusal("CTCLoss", {}, ctc(LOG_PROBS.astype(int)), TypeError, "log_probs of a float dtype"),
    Refusal("CTCLoss", {}, ctc(inputs=(6, 5)), ValueError,
            "CTCLoss expects input_lengths from 0 to 5; got 5 to 6", True),
    Refusal("CTCLoss", {}, ctc(inputs=(-1, 5)), ValueError, "input_lengths from 0 to 5", True),
    Refusal("CTCLoss", {}, ctc(labels=(3, 1)), ValueError,
            "CTCLoss expects target_lengths from 0 to 2; got 1 to 3", True),
    Refusal("CTCLoss", {}, ctc(labels=(-1, 1)), ValueError, "target_lengths from 0 to 2", True),
    Refusal("CTCLoss", {}, ctc(targets=integers(1, 2, 3, 1)), ValueError,
            "CTCLoss expects 3 labels in targets, the sum of target_lengths; got 4", True),
    Refusal("CTCLoss", {}, ctc(targets=integers(1, 2)), ValueError, "3 labels in targets", True),
    Refusal("CTCLoss", {}, ctc(targets=integers([1, 4], [3, 0])), ValueError,
            "CTCLoss expects labels from 0 to 3; got 1 to 4", True, ours="PyTorch reads elsewhere"),
    Refusal("CTCLoss", {}, ctc(labels=(2, 2)), ValueError,
            "CTCLoss: blank=0 stands among the labels", True, ours="undefined in PyTorch's manual"),
]  # fmt: skip

CONSTRUCTORS = [
    *(
        Refusal(name, {"reduction": wrong}, [], ValueError, f"{name} expects reduction to be one")
        for name in LOSSES for wrong in ("average", None)
    ),
    Refusal("MSELoss", {"reduction": "batchmean"}, [], ValueError, "mean, sum, none; got 'batchm"),
    Refusal("SmoothL1Loss", {"beta": -1.0}, [], ValueError, "expects beta not to be negative"),
    Refusal("SmoothL1Loss", {"beta": None}, [], TypeError, "expects beta to be a number; got None"),
    Refusal("HuberLoss", {"delta": 0.0}, [], ValueError, "expects delta to be greater than 0"),
    Refusal("HuberLoss", {"delta": -1}, [], ValueError, "expects delta to be greater than 0"),
    Refusal("HuberLoss", {"delta": "1"}, [], TypeError, "expects delta to be a number; got '1'"),
    Refusal("HuberLoss", {"delta": float("nan")}, [], ValueError, "got nan", ours="NaN"),
    Refusal("CrossEntropyLoss", {"label_smoothing": 1.5}, [], ValueError, "from 0 to 1; got 1.5"),
    Refusal("CrossEntropyLoss", {"label_smoothing": -0.1}, [], ValueError, "from 0 to 1; got -0.",
            ours="PyTorch computes with it"),
    Refusal("CrossEntropyLoss", {"ignore_index": None}, [], TypeError, "ignore_index to be an int"),
    Refusal("CrossEntropyLoss", {"ignore_index": True}, [], TypeError, "to be an integer; got True",
            ours="where size_average stands in PyTorch's order"),
    Refusal("NLLLoss", {"ignore_index": 1.5}, [], TypeError, "ignore_index to be an integer"),
    Refusal("PoissonNLLLoss", {"eps": True}, [], TypeError, "expects eps to be a number; got True",
            ours="where size_average stands in PyTorch's order"),
    Refusal("GaussianNLLLoss", {"eps": 0.0}, [], ValueError, "expects eps to be greater than 0",
            ours="PyTorch's manual asks for it"),
    Refusal("HingeEmbeddingLoss", {"margin": None}, [], TypeError, "margin to be a number"),
    Refusal("MarginRankingLoss", {"margin": "1"}, [], TypeError, "margin to be a number"),
    Refusal("CosineEmbeddingLoss", {"margin": None}, [], TypeError, "margin to be a number"),
    Refusal("MultiMarginLoss", {"p": 3}, [], ValueError, "expects p to be 1 or 2; got 3"),
    Refusal("MultiMarginLoss", {"margin": None}, [], TypeError, "margin to be a number"),
    Refusal("TripletMarginLoss", {"margin": 0.0}, [], ValueError, "margin to be greater than 0"),
    Refusal("TripletMarginLoss", {"margin": -1}, [], ValueError, "margin to be greater than 0"),
    Refusal("TripletMarginLoss", {"p": -1.0}, [], NotImplementedError, "TripletMarginLoss(p=-1.0)",
            ours="norms of a negative p are not there"),
    Refusal("TripletMarginWithDistanceLoss", {"margin": 0.0}, [], ValueError, "greater than 0"),
    Refusal("TripletMarginWithDistanceLoss", {"distance_function": max}, [], NotImplementedError,
            "TripletMarginWithDistanceLoss(distance_function=max): it has no backward",
            ours="a function has no backward"),
    Refusal("TripletMarginWithDistanceLoss", {"distance_function": xb.Module()}, [],
            NotImplementedError, "(distance_function=Module): it has no backward", ours="as above"),
    Refusal("CTCLoss", {"blank": 0.5}, [], TypeError, "expects blank to be an integer; got 0.5"),
    Refusal("FocalLoss", {"alpha": 1.5}, [], ValueError, "expects alpha from 0 to 1"),
    Refusal("FocalLoss", {"gamma": -1}, [], ValueError, "expects gamma not to be negative"),
    Refusal("DiceLoss", {"smooth": -1}, [], ValueError, "expects smooth not to be negative"),
]  # fmt: skip


def on_device(value: Any) -> Any:
    return xb.asarray(value, dtype=value.dtype) if type(value) is np.ndarray else value


@pytest.mark.parametrize("refusal", CALLS, ids=lambda refusal: refusal.id)
def test_refused_calls_change_nothing(refusal: Refusal, xb_device: Device) -> None:
    if refusal.host_only and xb_device.kind != "cpu":
        pytest.skip("looking would be a download; see test_losses.py")
    loss = getattr(nn, refusal.name)(**refusal.options)
    inputs = [on_device(value) for value in refusal.inputs]
    before = pickle.dumps(loss)
    for call in (loss.forward, loss):
        with pytest.raises(refusal.error, match=re.escape(refusal.message)):
            call(*inputs)
        assert pickle.dumps(loss) == before


@pytest.mark.parametrize("refusal", CONSTRUCTORS, ids=lambda refusal: refusal.id)
def test_refused_constructors(refusal: Refusal) -> None:
    with pytest.raises(refusal.error, match=re.escape(refusal.message)):
        getattr(nn, refusal.name)(**refusal.options)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("deprecated", ["size_average", "reduce"])
def test_deprecated_arguments_are_named(name: str, deprecated: str) -> None:
    for value in (True, None):
        message = re.escape(f"{name}({deprecated}={value}): deprecated in PyTorch; give reduction=")
        with pytest.raises(NotImplementedError, match=message):
            getattr(nn, name)(**{deprecated: value})


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_lists_are_no_arrays(name: str, reduction: str) -> None:
    loss = getattr(nn, name)(reduction=reduction)
    count = {"CTCLoss": 4}.get(name, 3 if "Triplet" in name or "Gauss" in name else 2)
    count = 3 if name in ("MarginRankingLoss", "CosineEmbeddingLoss") else count
    with pytest.raises(TypeError, match=f"^{name} expects .* to be an array; got list. Call "):
        loss(*[[0.5, 0.5]] * count)


@pytest.mark.torch_parity
@pytest.mark.parametrize(
    "refusal",
    [row for row in [*CALLS, *CONSTRUCTORS] if not row.ours],
    ids=lambda refusal: refusal.id,
)
def test_pytorch_refuses_the_same(refusal: Refusal) -> None:
    """Other rows say why. Many options are looked at in PyTorch's forward only, so it is called."""
    torch = import_torch()
    if not hasattr(torch.nn, refusal.name):
        pytest.skip(f"PyTorch has no {refusal.name}")
    inputs = [
        torch.tensor(x, requires_grad=x.dtype.kind == "f") if type(x) is np.ndarray else x
        for x in refusal.inputs or ordinary_inputs(refusal.name)
    ]

    def call() -> None:
        options = {
            name: torch.tensor(np.asarray(value)) if "weight" in name else value
            for name, value in refusal.options.items()
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            output = getattr(torch.nn, refusal.name)(**options)(*inputs)
            output.sum().backward()

    with pytest.raises((RuntimeError, TypeError, ValueError, IndexError, KeyError)):
        call()


def ordinary_inputs(name: str) -> list[Any]:
    """What the loss accepts, in PyTorch's tensors."""
    pair = [floats(2, 3), floats(2, 3)]
    return {
        "CrossEntropyLoss": [floats(2, 3), integers(0, 1)],
        "NLLLoss": [floats(2, 3), integers(0, 1)],
        "MultiMarginLoss": [floats(2, 3), integers(0, 1)],
        "MultiLabelMarginLoss": [floats(2, 3), integers([0, -1, 0], [1, 2, -1])],
        "GaussianNLLLoss": [*pair, floats(2, 3)],
        "MarginRankingLoss": [*pair, floats(2, 3)],
        "CosineEmbeddingLoss": [*pair, integers(1, -1)],
        "TripletMarginLoss": [*pair, floats(2, 3)],
        "TripletMarginWithDistanceLoss": [*pair, floats(2, 3)],
        "CTCLoss": ctc(),
    }.get(name, pair)
