"""Adamax: Adam with the largest gradient in place of the mean square."""

from typing import Any

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.dispatch import op
from xbackprop.optim.flat import FlatGroup
from xbackprop.optim.optimizer import Optimizer, ParameterSource
from xbackprop.optim.updates import cast, changes_gradient, penalized, put


@op
def adamax_update(
    data: Array,
    grad: Array,
    exp_avg: Array,
    exp_inf: Array,
    beta1: float,
    beta2: float,
    step_size: Any,
    eps: float,
    finite: Array | None = None,
) -> None:
    """Compute ``m = b1 m + (1-b1) g``, ``u = max(b2 u, |g| + eps)`` and ``w -= a m / u``."""
    xp = get_array_module(data)
    mean = exp_avg * beta1 + grad * (1 - beta1)
    put(exp_avg, mean, finite)
    largest = xp.maximum(exp_inf * beta2, xp.abs(grad) + eps)
    put(exp_inf, largest, finite)
    put(data, data - mean / largest * step_size, finite)


class Adamax(Optimizer):
    """Adamax, ``w -= lr m_hat / u`` with ``u = max(b2 u, |g| + eps)``.

    Parameters
    ----------
    params : iterable of Parameter or of dict
        What to optimize.
    lr : float, default 2e-3
        Learning rate.
    betas : tuple of float, default (0.9, 0.999)
        Decay of the running mean of the gradient and of its largest magnitude.
    eps : float, default 1e-8
        Added to the magnitude.
    weight_decay : float, default 0
        Factor of the L2 penalty's gradient ``w``.
    foreach : bool, optional
        Without effect, see :class:`Optimizer`.
    maximize : bool, default False
        Climb instead of descending.
    differentiable : bool, default False
        True is refused.
    capturable : bool, default False
        Without effect, see :class:`Optimizer`.

    References
    ----------
    Kingma and Ba, "Adam: a method for stochastic optimization", ICLR 2015, algorithm 2.
    """

    def __init__(
        self,
        params: ParameterSource,
        lr: float = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "capturable": capturable,
        }
        super().__init__(params, defaults)

    def state_names(self, group: dict[str, Any]) -> tuple[str, ...]:
        """Return the names of the running mean and of the running maximum."""
        return ("exp_avg", "exp_inf")

    def scratch_arrays(self, group: dict[str, Any]) -> int:
        """Return how many flat arrays an update holds at once."""
        # The gradient to descend where it is another, mean, largest, the new weights, the masked.
        return 4 + changes_gradient(group)

    def update(
        self,
        flat: FlatGroup,
        data: Array,
        grad: Array,
        state: dict[str, Any],
        step: Any,
        finite: Any,
    ) -> None:
        """Descend one step."""
        group = flat.group
        beta1, beta2 = group["betas"]
        step_size = flat.scalar("lr", group["lr"]) / (1 - beta1**step)
        adamax_update(
            data, penalized(flat, data, grad), state["exp_avg"], state["exp_inf"], beta1, beta2,
            cast(step_size, data), group["eps"], finite,
        )  # fmt: skip
