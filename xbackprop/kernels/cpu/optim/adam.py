"""Adam in one pass over weights, gradient and both means."""

from typing import Any

import numpy as np

from xbackprop.dispatch import ArraySpec
from xbackprop.kernels.loops import is_plain_float, loops
from xbackprop.optim.adam import adam_update as op
from xbackprop.optim.adam import coupled_adam_update as coupled_op


def can_serve(
    data: ArraySpec,
    grad: ArraySpec,
    exp_avg: ArraySpec,
    exp_avg_sq: ArraySpec,
    max_exp_avg_sq: ArraySpec | None,
    *numbers: Any,
) -> bool:
    """Tell whether it is Adam without AMSGrad, on float32 or float64, and nothing is masked."""
    finite = numbers[7] if len(numbers) > 7 else None
    is_served = max_exp_avg_sq is None and finite is None
    return is_served and is_plain_float(data, grad, exp_avg, exp_avg_sq)


@op.kernel("cpu", when=can_serve, smallest=4096)
def adam_update(
    data: np.ndarray,
    grad: np.ndarray,
    exp_avg: np.ndarray,
    exp_avg_sq: np.ndarray,
    max_exp_avg_sq: None,
    beta1: Any,
    share1: Any,
    beta2: Any,
    share2: Any,
    step_size: Any,
    correction: Any,
    eps: float,
    finite: None = None,
) -> None:
    """Write the update in place, as the op of this name."""
    numbers = (beta1, share1, beta2, share2, step_size, correction, eps)
    loops("updates").adam(
        data.reshape(-1), grad.reshape(-1), exp_avg.reshape(-1), exp_avg_sq.reshape(-1),
        *map(data.dtype.type, numbers),
    )  # fmt: skip


@coupled_op.kernel("cpu", when=lambda *specs: is_plain_float(*specs[:4]), smallest=4096)
def coupled_adam_update(
    data: np.ndarray,
    grad: np.ndarray,
    exp_avg: np.ndarray,
    exp_avg_sq: np.ndarray,
    weight_decay: float,
    beta1: float,
    share1: float,
    beta2: float,
    share2: float,
    step_size: float,
    eps: float,
) -> np.floating:
    """Write the update in place and return the squares' sum, as the op of this name."""
    numbers = (weight_decay, beta1, share1, beta2, share2, step_size, eps)
    squares = loops("updates").coupled_adam(
        data.reshape(-1), grad.reshape(-1), exp_avg.reshape(-1), exp_avg_sq.reshape(-1),
        *map(data.dtype.type, numbers),
    )  # fmt: skip
    return data.dtype.type(squares)
