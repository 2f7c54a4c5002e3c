"""Adam in one pass over weights, gradient and both means."""

from typing import Any

import numpy as np

from xbackprop.dispatch import ArraySpec
from xbackprop.kernels.loops import is_plain, loops
from xbackprop.optim.adam import adam_update as op


def can_serve(
    data: ArraySpec,
    grad: ArraySpec,
    exp_avg: ArraySpec,
    exp_avg_sq: ArraySpec,
    max_exp_avg_sq: ArraySpec | None,
    *numbers: Any,
) -> bool:
    """Tell whether it is Adam without AMSGrad, on float32, and nothing is masked."""
    finite = numbers[7] if len(numbers) > 7 else None
    return max_exp_avg_sq is None and finite is None and is_plain(data, grad, exp_avg, exp_avg_sq)


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
        *(np.float32(number) for number in numbers),
    )  # fmt: skip
