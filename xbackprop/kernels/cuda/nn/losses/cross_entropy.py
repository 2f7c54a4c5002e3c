"""Cross-entropy of class indices in one pass over the logits, with one block for each row.

Not yet measured on a GPU. The tests run the source beside this file on the CPU and compare it with
the reference.
"""

from typing import Any

import numpy as np

from xbackprop.backend.array_module import Array, is_array
from xbackprop.dispatch import ArraySpec
from xbackprop.kernels.cuda.sources import (
    ALIGNED,
    INDICES,
    MOST_BLOCKS,
    TYPES,
    Source,
    count_bytes,
    expand,
    is_aligned,
    is_float,
    name_of,
    pack_size,
    threads_for,
)
from xbackprop.nn.losses.cross_entropy import cross_entropy_backward as backward_op
from xbackprop.nn.losses.cross_entropy import cross_entropy_forward as forward_op

_CHOICES = {"T": TYPES.values(), "I": INDICES.values(), "A": ALIGNED.values()}
SOURCE = Source(
    __file__,
    [
        *expand("cross_entropy_rows<{T}, {T}, {I}, {A}>", **_CHOICES),
        *expand("cross_entropy_rows<{T}, float, {I}, {A}>",
                **_CHOICES | {"T": ("Half", "BFloat16")}),
        *expand("cross_entropy_total<{T}, {I}>", T=TYPES.values(), I=INDICES.values()),
        *expand("cross_entropy_count<{I}>", I=INDICES.values()),
        *expand("cross_entropy_gradient<{T}, {I}, {A}>", **_CHOICES),
    ],
)  # fmt: skip


def can_serve(
    logits: ArraySpec,
    target: ArraySpec,
    weight: ArraySpec | None = None,
    *,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> bool:
    """Tell whether there are rows of classes, without weights and smoothing."""
    return (
        len(logits.shape) == 2
        and 0 < logits.shape[0] <= MOST_BLOCKS
        and logits.shape[1] > 0
        and is_float(logits)
        and name_of(target.dtype) in INDICES
        and target.is_contiguous
        and weight is None
        and not label_smoothing
    )


def can_serve_backward(
    grad_output: Any,
    logits: ArraySpec,
    target: ArraySpec,
    shift: ArraySpec,
    log_total: ArraySpec,
    weight: ArraySpec | None = None,
    **options: Any,
) -> bool:
    """Tell whether the forward's kernel could serve, and its results are what it made."""
    is_given = isinstance(grad_output, ArraySpec)
    return can_serve(logits, target, weight, **options) and is_float(
        logits, shift, log_total, grad_output if is_given else None
    )


def launches_forward(*_: Any, reduction: str = "mean", **__: Any) -> int:
    """Return one launch, and one for the sum of the losses."""
    return 1 if reduction == "none" else 2


def launches_backward(*_: Any, reduction: str = "mean", **__: Any) -> int:
    """Return one launch, and one for the number of targets that a mean is divided by."""
    return 2 if reduction == "mean" else 1


def bytes_forward(
    logits: ArraySpec, target: ArraySpec, *_: Any, reduction: str = "mean", **__: Any
) -> int:
    """Return the bytes of logits, targets and results; losses to be added up go there and back."""
    rows, size = logits.shape[0], logits.dtype.itemsize
    number = count_bytes(logits, target) + 2 * rows * size
    if reduction == "none":
        return number + rows * size
    return number + count_bytes(target) + 2 * 4 * rows + size


def bytes_backward(
    grad_output: Any,
    logits: ArraySpec,
    target: ArraySpec,
    shift: ArraySpec,
    log_total: ArraySpec,
    *_: Any,
    reduction: str = "mean",
    **__: Any,
) -> int:
    """Return the bytes of logits and their gradient, targets, sums and the incoming gradient."""
    given = grad_output if isinstance(grad_output, ArraySpec) else None
    number = 2 * count_bytes(logits) + count_bytes(target, shift, log_total, given)
    return number + (count_bytes(target) + 2 * 4 if reduction == "mean" else 0)


@forward_op.kernel("cuda", when=can_serve, launches=launches_forward, bytes_moved=bytes_forward)
def cross_entropy_forward(
    logits: Array,
    target: Array,
    weight: None = None,
    *,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> tuple[Array, Any]:
    """Compute ``logsumexp(x) - x[target]``, as the reference; see :func:`can_serve`."""
    import cupy

    rows, classes = logits.shape
    dtype, name = logits.dtype, TYPES[logits.dtype.name]
    index = INDICES[target.dtype.name]
    is_each = reduction == "none"
    losses = cupy.empty(rows, dtype=dtype if is_each else np.float32)
    shift, log_total = cupy.empty((rows, 1), dtype=dtype), cupy.empty((rows, 1), dtype=dtype)
    aligned = is_aligned(classes, logits)
    known = (np.int64(classes), np.int64(ignore_index))
    loss = TYPES[losses.dtype.name]
    SOURCE.launch(
        f"cross_entropy_rows<{name}, {loss}, {index}, {ALIGNED[aligned]}>",
        rows, threads_for(classes // pack_size(dtype, aligned)),
        logits, target, *known, losses, shift, log_total,
    )  # fmt: skip
    if not is_each:
        total = cupy.empty((), dtype=dtype)
        SOURCE.launch(
            f"cross_entropy_total<{name}, {index}>", 1, threads_for(rows, 1024),
            losses, target, np.int64(rows), *known, np.int32(reduction == "mean"), total,
        )  # fmt: skip
        losses = total
    return losses, (logits, target, shift, log_total, None)


@backward_op.kernel(
    "cuda", when=can_serve_backward, launches=launches_backward, bytes_moved=bytes_backward
)
def cross_entropy_backward(
    grad_output: Any,
    logits: Array,
    target: Array,
    shift: Array,
    log_total: Array,
    weight: None = None,
    *,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> Array:
    """Return ``(softmax(x) - one_hot(target)) g``, as the reference; see :func:`can_serve`."""
    import cupy

    rows, classes = logits.shape
    name, index = TYPES[logits.dtype.name], INDICES[target.dtype.name]
    known = (np.int64(classes), np.int64(ignore_index))
    count = None
    if reduction == "mean":
        count = cupy.empty((), dtype=np.float32)
        SOURCE.launch(
            f"cross_entropy_count<{index}>", 1, threads_for(rows, 1024),
            target, np.int64(rows), *known, count,
        )  # fmt: skip
    grad = cupy.empty(logits.shape, dtype=logits.dtype)
    aligned = is_aligned(classes, logits, grad)
    is_given = is_array(grad_output)
    SOURCE.launch(
        f"cross_entropy_gradient<{name}, {index}, {ALIGNED[aligned]}>",
        rows, threads_for(classes // pack_size(logits.dtype, aligned)),
        grad_output if is_given else None, np.float32(1.0 if is_given else grad_output),
        np.int32(reduction == "none"), count, logits, target, shift, log_total, *known, grad,
    )  # fmt: skip
    return grad
