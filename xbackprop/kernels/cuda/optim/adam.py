"""A step of Adam or AdamW over flat arrays in one launch.

Not yet measured on a GPU. The tests run the source beside this file on the CPU and compare it with
the reference.
"""

from typing import Any

import numpy as np

from xbackprop.backend.array_module import Array
from xbackprop.dispatch import ArraySpec
from xbackprop.kernels.cuda import flat
from xbackprop.kernels.cuda.sources import Source
from xbackprop.optim.adam import adam_step as op

SOURCE = Source(__file__, flat.instances("adam_step"))


def can_serve(
    data: ArraySpec,
    grad: ArraySpec,
    exp_avg: ArraySpec,
    exp_avg_sq: ArraySpec,
    max_exp_avg_sq: ArraySpec | None,
    step: Any,
    lr: Any,
    beta1: Any,
    beta2: Any,
    weight_decay: Any,
    finite: Any,
    half: ArraySpec | None,
    eps: float,
    **_: bool,
) -> bool:
    """Tell whether flat float32 arrays are to be updated from scalars on the device."""
    return (
        flat.are_flat(half, data, grad, exp_avg, exp_avg_sq, max_exp_avg_sq)
        and isinstance(step, ArraySpec)
        and flat.are_scalars(np.int64, step)
        and lr is not None
        and flat.are_scalars(np.float64, lr, beta1, beta2, weight_decay)
        and flat.are_scalars(np.bool_, finite)
    )


def count_bytes(
    data: ArraySpec,
    grad: ArraySpec,
    exp_avg: ArraySpec,
    exp_avg_sq: ArraySpec,
    max_exp_avg_sq: ArraySpec | None,
    *rest: Any,
    **_: bool,
) -> int:
    """Return the bytes of everything that is read and written."""
    *scalars, half, _eps = rest
    written = (data, exp_avg, exp_avg_sq, max_exp_avg_sq)
    return flat.count_update_bytes(grad, written, half, *scalars)


@op.kernel("cuda", when=can_serve, launches=1, bytes_moved=count_bytes)
def adam_step(
    data: Array,
    grad: Array,
    exp_avg: Array,
    exp_avg_sq: Array,
    max_exp_avg_sq: Array | None,
    step: Array,
    lr: Array,
    beta1: Array,
    beta2: Array,
    weight_decay: Array | None,
    finite: Array | None,
    half: Array | None,
    eps: float,
    *,
    decoupled: bool,
    maximize: bool,
) -> None:
    """Make a whole step in place, as the reference."""
    flat.launch(
        SOURCE, "adam_step", half, data, [grad, exp_avg, exp_avg_sq, max_exp_avg_sq],
        step, lr, beta1, beta2, weight_decay, finite, half, np.float32(eps),
        np.int32(decoupled), np.int32(maximize),
    )  # fmt: skip
