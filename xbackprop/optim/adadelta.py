"""Adadelta: steps in the units of the weights, without a learning rate to choose."""

from typing import Any

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.dispatch import op
from xbackprop.optim.flat import FlatGroup
from xbackprop.optim.optimizer import Optimizer, ParameterSource
from xbackprop.optim.updates import cast, changes_gradient, penalized, put


@op
def adadelta_update(
    data: Array,
    grad: Array,
    square_avg: Array,
    acc_delta: Array,
    lr: Any,
    rho: float,
    eps: float,
    finite: Array | None = None,
) -> None:
    """Compute ``v = r v + (1-r) g^2``, ``d = g sqrt(u + eps) / sqrt(v + eps)``, ``w -= lr d``.

    ``u = r u + (1-r) d^2`` then enters the next step.
    """
    xp = get_array_module(data)
    square = square_avg * rho + grad * grad * (1 - rho)
    put(square_avg, square, finite)
    delta = xp.sqrt(acc_delta + eps) / xp.sqrt(square + eps) * grad
    put(acc_delta, acc_delta * rho + delta * delta * (1 - rho), finite)
    put(data, data - delta * lr, finite)


class Adadelta(Optimizer):
    """Adadelta, ``w -= lr g RMS(earlier steps) / RMS(g)``.

    Parameters
    ----------
    params : iterable of Parameter or of dict
        What to optimize.
    lr : float, default 1.0
        Factor of the steps.
    rho : float, default 0.9
        Decay of the running means of squares of gradients and of steps, in [0, 1].
    eps : float, default 1e-6
        Added under both roots.
    weight_decay : float, default 0
        Factor of the L2 penalty's gradient ``w``.
    foreach : bool, optional
        Without effect, see :class:`Optimizer`.
    capturable : bool, default False
        Without effect, see :class:`Optimizer`.
    maximize : bool, default False
        Climb instead of descending.
    differentiable : bool, default False
        True is refused.

    References
    ----------
    Zeiler, "ADADELTA: an adaptive learning rate method", arXiv:1212.5701, algorithm 1.
    """

    def __init__(
        self,
        params: ParameterSource,
        lr: float = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        capturable: bool = False,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "rho": rho,
            "eps": eps,
            "weight_decay": weight_decay,
            "maximize": maximize,
            "capturable": capturable,
            "foreach": foreach,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults)

    def check_options(self, group: dict[str, Any]) -> None:
        """Refuse hyperparameters out of range."""
        super().check_options(group)
        if not 0 <= group["rho"] <= 1:
            raise ValueError(f"Adadelta expects rho in [0, 1]; got {group['rho']}")

    def state_names(self, group: dict[str, Any]) -> tuple[str, ...]:
        """Return the names of the running means of squares."""
        return ("square_avg", "acc_delta")

    def scratch_arrays(self, group: dict[str, Any]) -> int:
        """Return how many flat arrays an update holds at once."""
        # The gradient to descend where it is another, square, delta, and three while the mean of
        # its square is made.
        return 5 + changes_gradient(group)

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
        adadelta_update(
            data, penalized(flat, data, grad), state["square_avg"], state["acc_delta"],
            cast(flat.scalar("lr", group["lr"]), data), group["rho"], group["eps"], finite,
        )  # fmt: skip
