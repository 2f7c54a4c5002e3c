"""RMSprop: steps divided by the root of the running mean square."""

from typing import Any

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.dispatch import op
from xbackprop.optim.flat import FlatGroup
from xbackprop.optim.optimizer import Optimizer, ParameterSource
from xbackprop.optim.updates import cast, changes_gradient, penalized, put


@op
def rmsprop_update(
    data: Array,
    grad: Array,
    square_avg: Array,
    grad_avg: Array | None,
    momentum_buffer: Array | None,
    lr: Any,
    alpha: float,
    momentum: float,
    eps: float,
    finite: Array | None = None,
) -> None:
    """Compute ``v = a v + (1-a) g^2`` and ``w -= lr g / (sqrt(v) + eps)``.

    With ``grad_avg`` its square is subtracted under the root; with ``momentum_buffer`` the quotient
    is gathered there, ``b = mu b + g / (sqrt(v) + eps)``, and ``w -= lr b``.
    """
    xp = get_array_module(data)
    square = square_avg * alpha + grad * grad * (1 - alpha)
    put(square_avg, square, finite)
    if grad_avg is not None:
        mean = grad_avg * alpha + grad * (1 - alpha)
        put(grad_avg, mean, finite)
        square = square - mean * mean
    direction = grad / (xp.sqrt(square) + eps)
    if momentum_buffer is not None:
        direction = momentum_buffer * momentum + direction
        put(momentum_buffer, direction, finite)
    put(data, data - direction * lr, finite)


class RMSprop(Optimizer):
    """RMSprop, ``w -= lr g / (sqrt(v) + eps)`` with the running mean ``v`` of ``g^2``.

    Parameters
    ----------
    params : iterable of Parameter or of dict
        What to optimize.
    lr : float, default 1e-2
        Learning rate.
    alpha : float, default 0.99
        Decay of the running means.
    eps : float, default 1e-8
        Added to the denominator.
    weight_decay : float, default 0
        Factor of the L2 penalty's gradient ``w``.
    momentum : float, default 0
        Share of the last direction that is kept.
    centered : bool, default False
        Divide by the running standard deviation: ``v`` less the squared running mean.
    capturable : bool, default False
        Without effect, see :class:`Optimizer`.
    foreach : bool, optional
        Without effect, see :class:`Optimizer`.
    maximize : bool, default False
        Climb instead of descending.
    differentiable : bool, default False
        True is refused.

    References
    ----------
    Tieleman and Hinton, "Neural networks for machine learning", lecture 6.5, 2012; centered:
    Graves, "Generating sequences with recurrent neural networks", arXiv:1308.0850, equation 38.
    """

    def __init__(
        self,
        params: ParameterSource,
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "alpha": alpha,
            "eps": eps,
            "centered": centered,
            "weight_decay": weight_decay,
            "capturable": capturable,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults)

    def check_options(self, group: dict[str, Any]) -> None:
        """Refuse hyperparameters out of range."""
        super().check_options(group)
        if not group["alpha"] >= 0:
            raise ValueError(f"RMSprop expects alpha >= 0; got {group['alpha']}")

    def state_names(self, group: dict[str, Any]) -> tuple[str, ...]:
        """Return the names of the running means, and the momentum's when there is momentum."""
        return (
            "square_avg",
            *(("momentum_buffer",) if group["momentum"] else ()),
            *(("grad_avg",) if group["centered"] else ()),
        )

    def scratch_arrays(self, group: dict[str, Any]) -> int:
        """Return how many flat arrays an update holds at once."""
        # The gradient to descend where it is another, mean, square, direction, the new weights, the
        # masked.
        return 4 + bool(group["centered"]) + changes_gradient(group)

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
        rmsprop_update(
            data, penalized(flat, data, grad), state["square_avg"],
            state["grad_avg"] if group["centered"] else None,
            state["momentum_buffer"] if group["momentum"] else None,
            cast(flat.scalar("lr", group["lr"]), data), group["alpha"], group["momentum"],
            group["eps"], finite,
        )  # fmt: skip
