"""Rprop: each weight has its own step, and only the gradient's sign counts."""

from typing import Any

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.dispatch import op
from xbackprop.optim.flat import FlatGroup
from xbackprop.optim.optimizer import Optimizer, ParameterSource
from xbackprop.optim.updates import first, put


@op
def rprop_update(
    data: Array,
    grad: Array,
    prev: Array,
    step_size: Array,
    earlier_size: Any,
    etas: tuple[float, float],
    step_sizes: tuple[float, float],
    finite: Array | None = None,
) -> None:
    """Compute ``s = clip(s eta(sign(g g_prev)))`` and ``w -= s sign(g)``, where the sign stayed."""
    xp = get_array_module(data)
    agreement = xp.sign(grad * prev)
    factor = xp.where(agreement > 0, etas[1], agreement)
    factor = xp.where(agreement < 0, etas[0], factor)
    factor = xp.where(agreement == 0, 1.0, factor)
    size = xp.clip(earlier_size * factor, *step_sizes)
    put(step_size, size, finite)
    kept = xp.where(agreement < 0, 0.0, grad)
    put(prev, kept, finite)
    put(data, data - xp.sign(kept) * size, finite)


class Rprop(Optimizer):
    """Rprop, ``w -= s sign(g)`` with a step ``s`` of its own for each weight.

    Parameters
    ----------
    params : iterable of Parameter or of dict
        What to optimize.
    lr : float, default 1e-2
        What all steps start as; a change after a parameter's first update has no effect.
    etas : tuple of float, default (0.5, 1.2)
        Factors of a step: when the gradient's sign changed, and when it stayed.
    step_sizes : tuple of float, default (1e-6, 50)
        Smallest and largest step.
    capturable : bool, default False
        Without effect, see :class:`Optimizer`.
    foreach : bool, optional
        Without effect, see :class:`Optimizer`.
    maximize : bool, default False
        Climb instead of descending.
    differentiable : bool, default False
        True is refused.

    Notes
    -----
    Where the sign changed the weight stays, and the gradient is remembered as 0, so that the next
    step neither grows nor shrinks. It is meant for gradients of the whole data set.

    References
    ----------
    Riedmiller and Braun, "A direct adaptive method for faster backpropagation learning: the RPROP
    algorithm", ICNN 1993.
    """

    def __init__(
        self,
        params: ParameterSource,
        lr: float = 1e-2,
        etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-6, 50),
        *,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "etas": etas,
            "step_sizes": step_sizes,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "capturable": capturable,
        }
        super().__init__(params, defaults)

    def check_options(self, group: dict[str, Any]) -> None:
        """Refuse hyperparameters out of range."""
        super().check_options(group)
        if not 0 < group["etas"][0] < 1 < group["etas"][1]:
            raise ValueError(f"Rprop expects 0 < etas[0] < 1 < etas[1]; got {group['etas']}")

    def state_names(self, group: dict[str, Any]) -> tuple[str, ...]:
        """Return the names of the remembered gradient and of the steps."""
        return ("prev", "step_size")

    def scratch_arrays(self, group: dict[str, Any]) -> int:
        """Return how many flat arrays an update holds at once."""
        # The gradient to descend where it is another, agreement, factor, earlier and new step, what
        # is kept, the new weights, the masked.
        return 7 + bool(group["maximize"])

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
        earlier_size = first(step, group["lr"], state["step_size"])
        rprop_update(
            data, -grad if group["maximize"] else grad, state["prev"], state["step_size"],
            earlier_size, group["etas"], group["step_sizes"], finite,
        )  # fmt: skip
