"""A step of stochastic gradient descent in one pass, with the bits of the reference."""

from typing import Any

import numpy as np

from xbackprop.dispatch import ArraySpec
from xbackprop.kernels.loops import is_plain_float, loops
from xbackprop.optim.sgd import sgd_step as op


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
    """Tell whether it is on float32 or float64, nothing is masked and there is no half copy."""
    buffers = () if momentum_buffer is None else (momentum_buffer,)
    return finite is None and half is None and is_plain_float(data, grad, *buffers)


@op.kernel("cpu", when=can_serve, smallest=1 << 16)
def sgd_step(
    data: np.ndarray,
    grad: np.ndarray,
    momentum_buffer: np.ndarray | None,
    step: int,
    lr: float,
    momentum: float | None,
    weight_decay: float | None,
    finite: None,
    half: None,
    *,
    dampening: float,
    nesterov: bool,
    maximize: bool,
) -> None:
    """Make a whole step in place, as the op of this name."""
    number = data.dtype.type
    arrays = data.reshape(-1), grad.reshape(-1)
    numbers = number(-1.0 if maximize else 1.0), number(weight_decay or 0.0), number(lr)
    if momentum_buffer is None:
        loops("updates").sgd(*arrays, *numbers)
    else:
        factor = number(1.0 - dampening * (step > 1))
        loops("updates").momentum_sgd(
            *arrays, momentum_buffer.reshape(-1), *numbers, number(momentum), factor, nesterov
        )
