"""Rows of normalizations.

None keeps its first values: mistakes in a gradient hide where the weight is 1 and the bias 0.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from layer_cases.case import Case, Rng, normal
from layer_cases.linear import frozen
from xbackprop import nn


def changed(layer: Any) -> Any:
    """Give weight, bias and running statistics values without symmetry; to PyTorch's layer just so.

    Variances stay positive.
    """
    state = layer.state_dict()
    for number, (name, value) in enumerate(state.items()):
        values = np.arange(1, 1 + np.prod(value.shape, dtype=int)).reshape(tuple(value.shape))
        changed = 0.7 + 0.3 * np.cos(3.0 * values + number) * np.sqrt(values)
        changed = abs(changed) + 0.1 if name == "running_var" else changed
        state[name] = np.array(4) if name == "num_batches_tracked" else np.float32(changed)
    if hasattr(value := next(iter(layer.state_dict().values()), None), "detach"):
        state = {name: value.new_tensor(values) for name, values in state.items()}
    layer.load_state_dict(state)
    return layer


def skewed(*shape: int) -> Callable[[Rng], np.ndarray]:
    """Numbers of which no two channels (axis 1) have the same mean or spread."""

    def draw(rng: Rng) -> np.ndarray:
        x = rng.normal(size=shape)
        channel = np.arange(shape[1]).reshape(-1, *(1,) * (len(shape) - 2))
        return x * (0.5 + 0.4 * channel) + 0.7 * channel - 1

    return draw


def row(
    what: str,
    inputs: Callable[[Rng], Any],
    name: str,
    *arguments: Any,
    freeze: str = "",
    has_batch: bool = True,
    training: bool = True,
    **options: Any,
) -> Case:
    """A layer of the same name and arguments in both libraries."""

    def make(library: Any) -> Any:
        layer = changed(getattr(library, name)(*arguments, **options)).train(training)
        return frozen(layer, freeze) if freeze else layer

    return Case(f"{name} {what}".strip(), lambda: make(nn), inputs, lambda t: make(t.nn), has_batch)


# One sample of (batch, features) has no variance, and samples without running statistics see each
# other: `has_batch` is False there.
BATCH_NORM = [
    row("", skewed(4, 3), "BatchNorm1d", 3, has_batch=False),
    row("of sequences", skewed(4, 3, 5), "BatchNorm1d", 3),
    row("momentum", skewed(4, 3, 2), "BatchNorm1d", 3, eps=0.1, momentum=0.7),
    row("mean of all batches", skewed(4, 3, 2), "BatchNorm1d", 3, momentum=None),
    row("without bias", skewed(4, 3, 2), "BatchNorm1d", 3, bias=False),
    row("without affine", skewed(4, 3, 2), "BatchNorm1d", 3, affine=False),
    row(
        "without statistics",
        skewed(4, 3),
        "BatchNorm1d",
        3,
        track_running_stats=False,
        has_batch=False,
    ),
    row(
        "without statistics and affine",
        skewed(4, 3, 2),
        "BatchNorm1d",
        3,
        affine=False,
        track_running_stats=False,
        has_batch=False,
    ),
    row("in evaluation", skewed(4, 3), "BatchNorm1d", 3, has_batch=False, training=False),
    row("with frozen weight", skewed(4, 3, 2), "BatchNorm1d", 3, freeze="weight"),
    row("with frozen bias", skewed(4, 3, 2), "BatchNorm1d", 3, freeze="bias"),
    row("", skewed(2, 3, 2, 4), "BatchNorm2d", 3),
    row("of one channel", normal(2, 1, 3, 2), "BatchNorm2d", 1),
    row("", skewed(2, 3, 2, 1, 2), "BatchNorm3d", 3),
]

TRACKED = {"affine": True, "track_running_stats": True}

INSTANCE_NORM = [
    row("", skewed(4, 3, 5), "InstanceNorm1d", 3),
    row("of one sample", normal(3, 5), "InstanceNorm1d", 3, affine=True, has_batch=False),
    row("with affine", skewed(4, 3, 5), "InstanceNorm1d", 3, eps=0.1, affine=True),
    row("with weight alone", skewed(4, 3, 5), "InstanceNorm1d", 3, affine=True, bias=False),
    row("with statistics", skewed(4, 3, 5), "InstanceNorm1d", 3, **TRACKED),
    row("with statistics alone", skewed(4, 3, 5), "InstanceNorm1d", 3, track_running_stats=True),
    row("momentum", skewed(4, 3, 5), "InstanceNorm1d", 3, momentum=0.7, **TRACKED),
    row("momentum None", skewed(4, 3, 5), "InstanceNorm1d", 3, momentum=None, **TRACKED),
    row(
        "with statistics of one sample",
        normal(3, 5),
        "InstanceNorm1d",
        3,
        has_batch=False,
        **TRACKED,
    ),
    row("in evaluation", skewed(4, 3, 5), "InstanceNorm1d", 3, training=False, **TRACKED),
    row("with frozen weight", skewed(4, 3, 5), "InstanceNorm1d", 3, affine=True, freeze="weight"),
    row("with frozen bias", skewed(4, 3, 5), "InstanceNorm1d", 3, affine=True, freeze="bias"),
    row("", skewed(2, 3, 2, 4), "InstanceNorm2d", 3, affine=True),
    row("of one sample", normal(3, 2, 4), "InstanceNorm2d", 3, has_batch=False, **TRACKED),
    row("", skewed(2, 3, 2, 1, 3), "InstanceNorm3d", 3, affine=True),
]

# A weight of the neighbours that shows: PyTorch's first value is 1e-4.
LOCAL_RESPONSE_NORM = [
    row("", skewed(3, 5, 2), "LocalResponseNorm", 3, 0.9),
    row("of an even size", skewed(3, 5, 2, 2), "LocalResponseNorm", 4, 0.9, 0.6, 2.0),
    row("of single channels", skewed(3, 4, 2), "LocalResponseNorm", 1, alpha=0.5, beta=1.5),
    row("of more than all channels", skewed(3, 3, 2), "LocalResponseNorm", 9, 0.9),
    row("by default", skewed(2, 6, 2, 3), "LocalResponseNorm", 5),
]

NORMALIZATION = [
    *LOCAL_RESPONSE_NORM,
    *INSTANCE_NORM,
    *BATCH_NORM,
    row("", skewed(4, 3), "LayerNorm", 3),
    row("of one sample", normal(3), "LayerNorm", 3, has_batch=False),
    row("of 3-D input", normal(4, 2, 3), "LayerNorm", 3, eps=0.1),
    row("of two axes", normal(4, 2, 3), "LayerNorm", (2, 3)),
    row("of all axes", normal(2, 3), "LayerNorm", [2, 3], has_batch=False),
    row("without bias", normal(4, 3), "LayerNorm", 3, bias=False),
    row("without affine", normal(4, 3), "LayerNorm", 3, elementwise_affine=False),
    row("with frozen weight", normal(4, 3), "LayerNorm", 3, freeze="weight"),
    row("with frozen bias", normal(4, 3), "LayerNorm", 3, freeze="bias"),
    row("of many elements", normal(16, 60), "LayerNorm", 60),
    row("", skewed(4, 3), "RMSNorm", 3),
    row("of one sample", normal(3), "RMSNorm", 3, has_batch=False),
    row("of two axes", normal(4, 2, 3), "RMSNorm", (2, 3), eps=0.1),
    row("without affine", normal(4, 2, 3), "RMSNorm", 3, elementwise_affine=False),
    row("with frozen weight", normal(4, 3), "RMSNorm", 3, freeze="weight"),
    row("", skewed(4, 6), "GroupNorm", 2, 6),  # of two values the gradient is nearly 0
    row("of sequences", skewed(4, 6, 3), "GroupNorm", 3, 6, eps=0.1),
    row("of images", skewed(3, 4, 2, 3), "GroupNorm", 2, 4),
    row("in one group", skewed(3, 3, 2), "GroupNorm", 1, 3),
    row("of single channels", skewed(3, 3, 2), "GroupNorm", 3, 3),
    row("without bias", skewed(3, 4, 2), "GroupNorm", 2, 4, bias=False),
    row("without affine", skewed(3, 4, 2), "GroupNorm", 2, 4, affine=False),
    row("with frozen weight", skewed(3, 4, 2), "GroupNorm", 2, 4, freeze="weight"),
    row("with frozen bias", skewed(3, 4, 2), "GroupNorm", 2, 4, freeze="bias"),
]
