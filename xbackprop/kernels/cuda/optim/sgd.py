"""A step of stochastic gradient descent over flat arrays in one launch.

Not yet measured on a GPU. The tests run the source beside this file on the CPU and compare it with
the reference.
"""

from typing import Any

import numpy as np

from xbackprop.backend.array_module import Array
from xbackprop.dispatch import ArraySpec
from xbackprop.kernels.cuda import flat
from xbackprop.kernels.cuda.sources import Source
from xbackprop.optim.sgd import sgd_step as op

SOURCE = Source(__file__, flat.instances("sgd_step"))


def can_serve(
    data: ArraySpec,
    grad: ArraySpec,
    momentum_buffer: ArraySpec | None,
    step: Any,
    lr: Any,
    momentum: Any,
    weight_decay: Any,
    finite: Any,
    half: ArraySpec | None,
    **_: Any,
) -> bool:
    """Tell whether flat float32 arrays are to be updated from scalars on the device."""
    return (
        flat.are_flat(half, data, grad, momentum_buffer)
        and isinstance(step, ArraySpec)
        and flat.are_scalars(np.int64, step)
        and lr is not None
        and (momentum_buffer is None or momentum is not None)
        and flat.are_scalars(np.float64, lr, momentum, weight_decay)
        and flat.are_scalars(np.bool_, finite)
    )


def count_bytes(
    data: ArraySpec, grad: ArraySpec, momentum_buffer: ArraySpec | None, *rest: Any, **_: Any
) -> int:
    """Return the bytes of everything that is read and written."""
    *scalars, half = rest
    return flat.count_update_bytes(grad, (data, momentum_buffer), half, *scalars)


@op.kernel("cuda", when=can_serve, launches=1, bytes_moved=count_bytes)
def sgd_step(
    data: Array,
    grad: Array,
    momentum_buffer: Array | None,
    step: Array,
    lr: Array,
    momentum: Array | None,
    weight_decay: Array | None,
    finite: Array | None,
    half: Array | None,
    *,
    dampening: float,
    nesterov: bool,
    maximize: bool,
) -> None:
    """Make a whole step in place, as the reference."""
    flat.launch(
        SOURCE, "sgd_step", half, data, [grad, momentum_buffer],
        step, lr, momentum, weight_decay, finite, half, np.float64(dampening),
        np.int32(nesterov), np.int32(maximize),
    )  # fmt: skip
