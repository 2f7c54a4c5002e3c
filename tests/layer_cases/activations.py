"""Rows of activations."""

from collections.abc import Callable

import numpy as np

from layer_cases.case import Case, Rng, normal
from xbackprop import nn


def off(*kinks: float, shape: tuple[int, ...] = (4, 3)) -> Callable[[Rng], np.ndarray]:
    """Draw around all kinks, at least 0.2 away from each."""

    def draw(rng: Rng) -> np.ndarray:
        x = rng.uniform(min(kinks) - 2.0, max(kinks) + 2.0, size=shape)
        for kink in kinks:
            side = np.where(x >= kink, 1.0, -1.0)
            x = np.where(abs(x - kink) < 0.2, kink + 0.3 * side, x)
        return x

    return draw


RECTIFIERS = [
    Case("ReLU", nn.ReLU, off(0), lambda t: t.nn.ReLU()),
    Case("ReLU of images", nn.ReLU, off(0, shape=(2, 3, 2, 2)), lambda t: t.nn.ReLU()),
    Case("ReLU with many elements", nn.ReLU, off(0, shape=(40, 10)), lambda t: t.nn.ReLU()),
    Case("ReLU6", nn.ReLU6, off(0, 6), lambda t: t.nn.ReLU6()),
    Case("Hardtanh", nn.Hardtanh, off(-1, 1), lambda t: t.nn.Hardtanh()),
    Case(
        "Hardtanh with bounds",
        lambda: nn.Hardtanh(-2, 0.5),
        off(-2, 0.5),
        lambda t: t.nn.Hardtanh(-2, 0.5),
    ),
    Case("Threshold", lambda: nn.Threshold(0.5, 2.0), off(0.5), lambda t: t.nn.Threshold(0.5, 2.0)),
    Case(
        "Threshold below zero",
        lambda: nn.Threshold(-1, 20),
        off(-1),
        lambda t: t.nn.Threshold(-1, 20),
    ),
]

LEAKY = [
    Case("LeakyReLU", nn.LeakyReLU, off(0), lambda t: t.nn.LeakyReLU()),
    Case("LeakyReLU 0.3", lambda: nn.LeakyReLU(0.3), off(0), lambda t: t.nn.LeakyReLU(0.3)),
    Case("LeakyReLU -0.5", lambda: nn.LeakyReLU(-0.5), off(0), lambda t: t.nn.LeakyReLU(-0.5)),
    Case("PReLU", nn.PReLU, off(0), lambda t: t.nn.PReLU()),
    Case("PReLU init", lambda: nn.PReLU(init=-0.4), off(0), lambda t: t.nn.PReLU(init=-0.4)),
    Case(
        "PReLU of channels",
        lambda: nn.PReLU(3),
        off(0),
        lambda t: t.nn.PReLU(3),
        is_plain=False,
    ),
    Case(
        "PReLU of channels of images",
        lambda: nn.PReLU(3, 0.1),
        off(0, shape=(2, 3, 2, 4)),
        lambda t: t.nn.PReLU(3, 0.1),
        is_plain=False,
    ),
    Case(
        "PReLU of one 1-D sample",
        nn.PReLU,
        off(0, shape=(5,)),
        lambda t: t.nn.PReLU(),
        has_batch=False,
    ),
    Case(
        "PReLU of a number",
        nn.PReLU,
        lambda rng: np.asarray(-rng.uniform(0.5, 1.0)),
        lambda t: t.nn.PReLU(),
        has_batch=False,
        is_plain=False,
    ),
    Case("RReLU", lambda: nn.RReLU(rng=0), off(0), lambda t: t.nn.RReLU(), is_random=True),
    Case(
        "RReLU with bounds",
        lambda: nn.RReLU(-0.5, 0.7, rng=0),
        off(0),
        lambda t: t.nn.RReLU(-0.5, 0.7),
        is_random=True,
    ),
    Case(
        "RReLU with one slope",
        lambda: nn.RReLU(0.25, 0.25, rng=0),
        off(0),
        lambda t: t.nn.RReLU(0.25, 0.25),
    ),
    Case(
        "RReLU of a number",
        lambda: nn.RReLU(0.25, 0.25, rng=0),
        lambda rng: np.asarray(-rng.uniform(0.5, 1.0)),
        lambda t: t.nn.RReLU(0.25, 0.25),
        has_batch=False,
    ),
]

EXPONENTIAL = [
    Case("ELU", nn.ELU, off(0), lambda t: t.nn.ELU()),
    Case("ELU alpha", lambda: nn.ELU(0.5), off(0), lambda t: t.nn.ELU(0.5)),
    Case("ELU negative alpha", lambda: nn.ELU(-2), off(0), lambda t: t.nn.ELU(-2)),
    Case("CELU", nn.CELU, off(0), lambda t: t.nn.CELU()),
    Case("CELU alpha", lambda: nn.CELU(0.3), off(0), lambda t: t.nn.CELU(0.3)),
    Case("CELU negative alpha", lambda: nn.CELU(-2), off(0), lambda t: t.nn.CELU(-2)),
    Case("SELU", nn.SELU, off(0), lambda t: t.nn.SELU()),
]

SMOOTH = [
    Case("Sigmoid", nn.Sigmoid, normal(4, 3), lambda t: t.nn.Sigmoid()),
    Case("Sigmoid of a number", nn.Sigmoid, normal(), lambda t: t.nn.Sigmoid(), has_batch=False),
    Case("LogSigmoid", nn.LogSigmoid, normal(4, 3), lambda t: t.nn.LogSigmoid()),
    Case("Hardsigmoid", nn.Hardsigmoid, off(-3, 3), lambda t: t.nn.Hardsigmoid()),
    Case("Tanh", nn.Tanh, normal(4, 3), lambda t: t.nn.Tanh()),
    Case("Tanh of one 1-D sample", nn.Tanh, normal(5), lambda t: t.nn.Tanh(), has_batch=False),
    Case("Softsign", nn.Softsign, off(0), lambda t: t.nn.Softsign()),
    Case("Softplus", nn.Softplus, normal(4, 3), lambda t: t.nn.Softplus()),
    Case("Softplus beta", lambda: nn.Softplus(2.5), normal(4, 3), lambda t: t.nn.Softplus(2.5)),
    Case(
        "Softplus negative beta",
        lambda: nn.Softplus(-0.5),
        normal(4, 3),
        lambda t: t.nn.Softplus(-0.5),
    ),
    Case(
        "Softplus threshold",
        lambda: nn.Softplus(threshold=0.5),
        off(0.5),
        lambda t: t.nn.Softplus(threshold=0.5),
    ),
    Case("Softplus of a number", nn.Softplus, normal(), lambda t: t.nn.Softplus(), has_batch=False),
]

GATES = [
    Case("GELU", nn.GELU, normal(4, 3), lambda t: t.nn.GELU()),
    Case("GELU tanh", lambda: nn.GELU("tanh"), normal(4, 3), lambda t: t.nn.GELU("tanh")),
    Case("GELU of a number", nn.GELU, normal(), lambda t: t.nn.GELU(), has_batch=False),
    Case(
        "GELU tanh of a number",
        lambda: nn.GELU("tanh"),
        normal(),
        lambda t: t.nn.GELU("tanh"),
        has_batch=False,
    ),
    Case("SiLU", nn.SiLU, normal(4, 3), lambda t: t.nn.SiLU()),
    Case("SiLU of a number", nn.SiLU, normal(), lambda t: t.nn.SiLU(), has_batch=False),
    Case("Mish", nn.Mish, normal(4, 3), lambda t: t.nn.Mish()),
    Case("Hardswish", nn.Hardswish, off(-3, 3), lambda t: t.nn.Hardswish()),
    Case("GLU", nn.GLU, normal(4, 6), lambda t: t.nn.GLU()),
    Case("GLU of channels", lambda: nn.GLU(1), normal(2, 4, 3), lambda t: t.nn.GLU(1)),
    Case(
        "GLU along the first axis",
        lambda: nn.GLU(0),
        normal(4, 3),
        lambda t: t.nn.GLU(0),
        has_batch=False,
    ),
    Case("GLU of one 1-D sample", nn.GLU, normal(6), lambda t: t.nn.GLU(), has_batch=False),
]

SHRINK = [
    Case("Hardshrink", nn.Hardshrink, off(-0.5, 0.5), lambda t: t.nn.Hardshrink()),
    Case(
        "Hardshrink lambd",
        lambda: nn.Hardshrink(1.5),
        off(-1.5, 1.5),
        lambda t: t.nn.Hardshrink(1.5),
    ),
    Case(
        "Hardshrink lambd -1",
        lambda: nn.Hardshrink(-1),
        off(-1, 0, 1),
        lambda t: t.nn.Hardshrink(-1),
    ),
    Case("Softshrink", nn.Softshrink, off(-0.5, 0.5), lambda t: t.nn.Softshrink()),
    Case(
        "Softshrink lambd",
        lambda: nn.Softshrink(1.5),
        off(-1.5, 1.5),
        lambda t: t.nn.Softshrink(1.5),
    ),
    Case("Tanhshrink", nn.Tanhshrink, normal(4, 3), lambda t: t.nn.Tanhshrink()),
]

SOFTMAX = [
    Case("Softmax", lambda: nn.Softmax(-1), normal(4, 3), lambda t: t.nn.Softmax(-1)),
    Case("Softmax of channels", lambda: nn.Softmax(1), normal(2, 3, 2), lambda t: t.nn.Softmax(1)),
    Case(
        "Softmax along the batch",
        lambda: nn.Softmax(0),
        normal(4, 3),
        lambda t: t.nn.Softmax(0),
        has_batch=False,
    ),
    Case(
        "Softmax of a number",
        lambda: nn.Softmax(-1),
        normal(),
        lambda t: t.nn.Softmax(-1),
        has_batch=False,
    ),
    Case("Softmax of nothing", lambda: nn.Softmax(1), normal(4, 0), lambda t: t.nn.Softmax(1)),
    Case("Softmin", lambda: nn.Softmin(-1), normal(4, 3), lambda t: t.nn.Softmin(-1)),
    Case("Softmin of channels", lambda: nn.Softmin(1), normal(2, 3, 2), lambda t: t.nn.Softmin(1)),
    Case("LogSoftmax", lambda: nn.LogSoftmax(-1), normal(4, 3), lambda t: t.nn.LogSoftmax(-1)),
    Case(
        "LogSoftmax of channels",
        lambda: nn.LogSoftmax(1),
        normal(2, 3, 2),
        lambda t: t.nn.LogSoftmax(1),
    ),
    Case(
        "LogSoftmax of a number",
        lambda: nn.LogSoftmax(0),
        normal(),
        lambda t: t.nn.LogSoftmax(0),
        has_batch=False,
    ),
    Case(
        "LogSoftmax of nothing",
        lambda: nn.LogSoftmax(1),
        normal(4, 0),
        lambda t: t.nn.LogSoftmax(1),
    ),
    Case("Softmax2d", nn.Softmax2d, normal(2, 3, 2, 2), lambda t: t.nn.Softmax2d()),
    Case(
        "Softmax2d of one image",
        nn.Softmax2d,
        normal(3, 2, 2),
        lambda t: t.nn.Softmax2d(),
        has_batch=False,
    ),
]

ACTIVATIONS = [*RECTIFIERS, *LEAKY, *EXPONENTIAL, *SMOOTH, *GATES, *SHRINK, *SOFTMAX]
