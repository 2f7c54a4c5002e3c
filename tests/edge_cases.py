"""What `test_edges.py` feeds to layers: rows, and arrays where float32 overflows and underflows.

A row is a name, how to make the layer here and in PyTorch, and what it takes of an array of
samples: itself, or itself and targets, as losses do. The first axis of the output is that of the
samples, so losses come with reduction="none".
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from layer_cases.attention import attention

from xbackprop import nn
from xbackprop.module import Module

INF = float("inf")
EDGES = [0.0] + [sign * v for v in (1e-45, 1e-38, 88, 89, 104, 1e4, 3e38) for sign in (1, -1)]


def one_input(x: np.ndarray) -> tuple[np.ndarray, ...]:
    return (x,)


@dataclass(frozen=True)
class EdgeRow:
    name: str
    make: Callable[[], Module]
    torch: Callable[[Any], Any]  # takes the module `torch`
    inputs: Callable[[np.ndarray], tuple[np.ndarray, ...]] = one_input


@dataclass(frozen=True)
class PyTorchDiffers:
    """Where PyTorch's pattern is not followed: in which places, what comes there, and why."""

    row: str
    part: str  # "output" or "gradient"
    where: Callable[[np.ndarray], np.ndarray]  # takes the samples, gives a mask of the part
    ours: str
    theirs: str
    reason: str


def edge_samples() -> np.ndarray:
    """Every edge: alone among ordinary numbers, four times, beside -inf; and nothing but -inf."""
    samples = [[-INF] * 4, [3e38, -3e38, 0.0, 1.0]]
    for v in EDGES:
        samples += [[v] * 4, [v, 0.0, 1.0, -1.0], [1.0, v, -INF, 0.5], [-INF, v, v, v]]
    return np.array(samples, np.float32)


def random_batches(rng: np.random.Generator, magnitude: float, count: int = 64) -> np.ndarray:
    """Batches of 16 samples of 16: half of them of neighbours, which share their trouble."""
    centers = np.sort(magnitude * rng.normal(size=count * 16)).reshape(count, 16, 1)
    near = centers * (1 + 0.02 * rng.normal(size=(count, 16, 16)))
    apart = magnitude * rng.normal(size=(count, 16, 16))
    return np.concatenate([near, apart]).astype(np.float32)


def same(name: str, *arguments: Any, **options: Any) -> EdgeRow:
    """A layer of the same name and arguments in both libraries."""
    shown = ", ".join([*map(repr, arguments), *(f"{k}={v}" for k, v in options.items())])
    return EdgeRow(
        f"{name}({shown})",
        lambda: getattr(nn, name)(*arguments, **options),
        lambda torch: getattr(torch.nn, name)(*arguments, **options),
    )


ACTIVATIONS = [
    *map(
        same,
        "ReLU ReLU6 Hardtanh LeakyReLU PReLU ELU CELU SELU Sigmoid LogSigmoid Hardsigmoid "
        "Tanh Softsign Softplus GELU SiLU Mish Hardswish GLU Hardshrink Softshrink "
        "Tanhshrink".split(),
    ),
    EdgeRow("RReLU()", lambda: nn.RReLU(rng=0), lambda torch: torch.nn.RReLU()),
    same("Threshold", 0.1, 20),
    same("LeakyReLU", -2),
    same("ELU", 0.5),
    same("CELU", 0.3),
    same("Softplus", 2.5, threshold=5),
    same("Softplus", threshold=200),
    same("GELU", "tanh"),
    same("Hardshrink", 0),
    same("Softshrink", 0),
    same("Softmax", -1),
    same("Softmin", -1),
    same("LogSoftmax", -1),
    EdgeRow(
        "Softmax2d()",
        nn.Softmax2d,
        lambda torch: torch.nn.Softmax2d(),
        lambda x: (x[:, :, None, None],),
    ),
]


def in_fours(x: np.ndarray) -> tuple[np.ndarray, ...]:
    """Samples of four numbers, of which a normalization can say how many there are."""
    return (x.reshape(-1, 4),)


NORMALIZATION = [
    replace(row, inputs=in_fours)
    for row in (
        same("LayerNorm", 4),
        same("LayerNorm", 4, elementwise_affine=False),
        same("RMSNorm", 4),
        same("GroupNorm", 2, 4),
    )
]

PADDING = [
    EdgeRow(
        f"{name}{arguments}",
        lambda name=name, arguments=arguments: getattr(nn, name)(*arguments),
        lambda torch, name=name, arguments=arguments: getattr(torch.nn, name)(*arguments),
        lambda x: (x[:, None],),
    )
    for name, arguments in (
        ("ConstantPad1d", (2, 0.5)),
        ("ReflectionPad1d", (3,)),
        ("ReplicationPad1d", (3,)),
        ("CircularPad1d", (3,)),
    )
]

POOLING = [
    EdgeRow(
        f"{name}{arguments}",
        lambda name=name, arguments=arguments: getattr(nn, name)(*arguments),
        lambda torch, name=name, arguments=arguments: getattr(torch.nn, name)(*arguments),
        lambda x, name=name: (x.reshape(len(x), 1, *(1,) * (int(name[-2]) - 1), -1),),
    )
    for name, arguments in (
        *((f"{kind}Pool1d", (2, 1, 1)) for kind in ("Max", "Avg")),
        *((f"{kind}Pool2d", (2, 1, 1)) for kind in ("Max", "Avg")),
        *((f"{kind}Pool3d", ((1, 1, 2), 1, (0, 0, 1))) for kind in ("Max", "Avg")),
        ("AvgPool1d", (3, 2, 1, True, False)),
        ("AdaptiveAvgPool1d", (3,)),
        ("AdaptiveMaxPool1d", (3,)),
        ("LPPool1d", (2, 2)),
        ("LPPool1d", (1, 2, 1)),
    )
]

NORMALIZATION += [
    EdgeRow(
        f"LocalResponseNorm({size}, {alpha})",
        lambda size=size, alpha=alpha: nn.LocalResponseNorm(size, alpha),
        lambda torch, size=size, alpha=alpha: torch.nn.LocalResponseNorm(size, alpha),
        lambda x: (x[:, :, None],),
    )
    for size, alpha in ((3, 1e-4), (2, 1))
]

POOLING += [
    EdgeRow(
        "FractionalMaxPool2d((1, 2), (1, 3))",  # steps of one: no random number changes them
        lambda: nn.FractionalMaxPool2d((1, 2), (1, 3), rng=0),
        lambda torch: torch.nn.FractionalMaxPool2d((1, 2), (1, 3)),
        lambda x: (x.reshape(-1, 1, 1, 4),),
    )
]


def as_image(x: np.ndarray) -> tuple[np.ndarray, ...]:
    """Four numbers a sample as the rows and columns of one channel."""
    return (x.reshape(-1, 1, 2, 2),)


def in_channels(x: np.ndarray) -> tuple[np.ndarray, ...]:
    """Four numbers a sample as channels of one pixel."""
    return (x.reshape(-1, 4, 1, 1),)


WEIGHT, BIAS = [[[[0.25, -0.5], [0.125, 0.375]]]], [0.5]


def our_convolution() -> Module:
    layer = nn.Conv2d(1, 1, 2, padding=1)
    layer.load_state_dict({"weight": np.array(WEIGHT, np.float32), "bias": np.array(BIAS)})
    return layer


def their_convolution(torch: Any) -> Any:
    layer = torch.nn.Conv2d(1, 1, 2, padding=1)
    layer.load_state_dict({"weight": torch.tensor(WEIGHT), "bias": torch.tensor(BIAS)})
    return layer


IMAGES = [
    EdgeRow("Conv2d(1, 1, 2, padding=1)", our_convolution, their_convolution, as_image),
    replace(same("BatchNorm2d", 4), inputs=in_channels),
    replace(same("InstanceNorm2d", 1), inputs=as_image),
    replace(same("InstanceNorm2d", 1, affine=True, track_running_stats=True), inputs=as_image),
]

UPSAMPLING = [
    EdgeRow(
        f"Upsample({mode}, {align})",
        lambda mode=mode, align=align, factor=factor: nn.Upsample(None, factor, mode, align),
        lambda torch, mode=mode, align=align, factor=factor: torch.nn.Upsample(
            None, factor, mode, align
        ),
        lambda x, factor=factor: (x[:, None] if factor == 1.5 else x[:, None, None],),
    )
    for mode, align, factor in (
        ("nearest", None, 1.5),
        ("nearest-exact", None, 1.5),
        ("area", None, 1.5),
        ("linear", False, 1.5),
        ("linear", True, 1.5),
        ("bilinear", True, (2, 1.5)),
        ("bicubic", False, (2, 1.5)),
        ("bicubic", True, (2, 0.5)),
    )
]


def as_queries(x: np.ndarray) -> tuple[np.ndarray, ...]:
    """Each sample one query of three keys, small numbers, in which sums are exact.

    With an axis of heads and values as long as keys, for which PyTorch does as is done here: it
    saves no probabilities.
    """
    shape = (len(x), 1, 3, x.shape[-1])
    keys = np.resize([0.5, 1, -1, 2, 1, 0, 0.5, 0.25, -1, 2, 0.5], shape).astype(x.dtype)
    values = np.resize([1, -0.5, 0.25, 2, 3, 1, 0], shape).astype(x.dtype)
    return x[:, None, None], keys, values


def where_scores(
    test: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> Callable[[np.ndarray], np.ndarray]:
    """Samples of which a score passes a test: before and after it is scaled by 1/2."""

    def where(x: np.ndarray) -> np.ndarray:
        queries, keys, values = as_queries(x)
        keys = keys.swapaxes(-1, -2)
        with np.errstate(all="ignore"):
            found = test(queries @ keys, queries / 2 @ keys).any(axis=-1, keepdims=True)
        return np.broadcast_to(found, (len(x), 1, 1, values.shape[-1]))

    return where


ATTENTION = [
    EdgeRow(
        "ScaledDotProductAttention()",
        nn.ScaledDotProductAttention,
        attention(),
        as_queries,
    )
]

EDGE_ROWS = [*ACTIVATIONS, *NORMALIZATION, *PADDING, *POOLING, *UPSAMPLING, *IMAGES, *ATTENTION]

SIGMOID_AT_MINUS_89 = (
    "PyTorch's sigmoid is 0 where exp(89) overflows, and 0 times -inf is NaN; ours is 2e-39"
)


def squares_overflow(size: int) -> Callable[[np.ndarray], np.ndarray]:
    """Finite groups of so many numbers with one whose square is no float32."""

    def where(x: np.ndarray) -> np.ndarray:
        groups = x.reshape(-1, size)
        found = np.isfinite(groups).all(axis=1) & (abs(groups) == np.float32(3e38)).any(axis=1)
        return np.repeat(found, size).reshape(x.shape)

    return where


def sums_overflow(x: np.ndarray) -> np.ndarray:
    """Samples of four of which the mean or the variance is no float32 on the way, as images."""
    return squares_overflow(4)(x).reshape(-1, 1, 2, 2)


DIFFERENCES = [
    *(
        PyTorchDiffers(
            row, part, squares_overflow(2 if row.startswith("Group") else 4),
            ours="finite", theirs="nan",
            reason="PyTorch's squares are float32 and overflow; ours are float64, and right",
        )
        for row, parts in {
            "LayerNorm(4)": ("output", "gradient"),
            "LayerNorm(4, elementwise_affine=False)": ("output", "gradient"),
            "RMSNorm(4)": ("gradient",),
            "GroupNorm(2, 4)": ("output", "gradient"),
        }.items()
        for part in parts
    ),
    *(
        PyTorchDiffers(
            row, part, sums_overflow, ours="finite", theirs=theirs,
            reason="PyTorch's sums are float32 and overflow; ours are float64, and right",
        )
        for row in ("InstanceNorm2d(1)", "InstanceNorm2d(1, affine=True, track_running_stats=True)")
        for part, theirs in (("output", "-inf"), ("output", "inf"), ("gradient", "nan"))
    ),
    PyTorchDiffers(
        "ScaledDotProductAttention()", "output", where_scores(lambda _, scaled: np.isnan(scaled)),
        ours="nan", theirs="finite",
        reason="PyTorch's kernel for four axes passes over a NaN among the scores",
    ),
    *(
        PyTorchDiffers(
            "ScaledDotProductAttention()", part,
            where_scores(lambda raw, scaled: np.isinf(raw) & np.isfinite(scaled)),
            ours="finite", theirs="nan", reason="that kernel scales scores, which have overflown",
        )
        for part in ("output", "gradient")
    ),
    PyTorchDiffers(
        "GELU()", "output", lambda x: x == np.float32(3e38), ours="finite", theirs="inf",
        reason="oneDNN multiplies x by 1 + erf(...) = 2 before it halves; PyTorch's own kernel, "
        "which runs on single numbers, in float64 and without oneDNN, gives 3e38 as well",
    ),
    PyTorchDiffers(
        "GLU()", "output", lambda x: (x[:, :2] == -INF) & (x[:, 2:] == -89),
        ours="-inf", theirs="nan", reason=SIGMOID_AT_MINUS_89,
    ),
    PyTorchDiffers(
        "GLU()", "gradient", lambda x: np.tile((x[:, :2] == -INF) & (x[:, 2:] == -89), 2),
        ours="-inf", theirs="nan", reason=SIGMOID_AT_MINUS_89,
    ),
]  # fmt: skip
