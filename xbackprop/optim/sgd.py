"""Stochastic gradient descent, with momentum and weight decay."""

from typing import Any

from xbackprop.backend.array_module import Array
from xbackprop.dispatch import op
from xbackprop.optim.flat import FlatGroup
from xbackprop.optim.optimizer import Optimizer, ParameterSource
from xbackprop.optim.updates import cast, masked, run_step, weight_decay_of, with_penalty


@op(formula="data_new = data - lr * grad")
def sgd_update(data: Array, grad: Array, lr: Any, finite: Array | None = None) -> None:
    """Compute ``w_new = w - eta dLoss/dw`` in place."""
    data -= masked(grad * lr, finite, 0.0)


@op(
    formula="data_new = data - lr * (momentum * momentum_buffer + grad_factor * grad); "
    "momentum_buffer_new = momentum * momentum_buffer + grad_factor * grad",
)
def momentum_update(
    data: Array,
    grad: Array,
    momentum_buffer: Array,
    lr: Any,
    momentum: Any,
    grad_factor: Any,
    finite: Array | None = None,
    *,
    nesterov: bool,
) -> None:
    """Compute ``v = mu v + f g`` and ``w = w - eta v`` (Nesterov: ``w - eta (g + mu v)``)."""
    momentum_buffer *= momentum
    momentum_buffer += grad * grad_factor
    direction = grad + momentum_buffer * momentum if nesterov else momentum_buffer
    data -= masked(direction * lr, finite, 0.0)


@op
def sgd_step(
    data: Array,
    grad: Array,
    momentum_buffer: Array | None,
    step: Any,
    lr: Any,
    momentum: Any,
    weight_decay: Any,
    finite: Array | None,
    half: Array | None,
    *,
    dampening: float,
    nesterov: bool,
    maximize: bool,
) -> None:
    """Make a whole step in place: weight decay, then :func:`sgd_update` or :func:`momentum_update`.

    Parameters
    ----------
    data, grad, momentum_buffer : array
        As for these; without momentum the buffer is None.
    step : int or array of int64, shape ()
        Number of this update, counted from 1.
    lr, momentum, weight_decay : float or array of float64, shape ()
        Hyperparameters; no ``momentum`` or ``weight_decay`` is None.
    finite : array of bool, shape (), or None
        When given and False, nothing changes.
    half : array, or None
        Receives the new values, rounded to its dtype.
    dampening : float
        Part of the gradient that does not enter the momentum, from the second step on.
    nesterov, maximize : bool
        Whether to look ahead, and whether to climb.
    """
    lr = cast(lr, data)
    grad = with_penalty(data, grad, weight_decay, maximize)
    if momentum_buffer is None:
        sgd_update(data, grad, lr, finite)
    else:
        grad = masked(grad, finite, -0.0)  # the one number that changes nothing, added to any
        grad_factor: Any = 1.0
        if dampening:  # the first step takes the whole gradient, as PyTorch does
            grad_factor = cast(1.0 - dampening * (step > 1), data)
        factor = cast(masked(momentum, finite, 1.0), data)
        momentum_update(
            data, grad, momentum_buffer, lr, factor, grad_factor, finite, nesterov=nesterov
        )
    if half is not None:
        half[...] = data


class SGD(Optimizer):
    """Stochastic gradient descent, ``w_new = w - eta dLoss/dw``.

    Parameters
    ----------
    params : iterable of Parameter or of dict
        What to optimize.
    lr : float, default 1e-3
        Learning rate ``eta``.
    momentum : float, default 0
        Share of the last update direction that is kept.
    dampening : float, default 0
        Part of the gradient that does not enter the momentum, from the second step on.
    weight_decay : float, default 0
        Factor of the L2 penalty's gradient ``w``.
    nesterov : bool, default False
        Look ahead; needs momentum and no dampening.
    maximize : bool, default False
        Climb instead of descending.
    foreach : bool, optional
        Without effect, see :class:`Optimizer`.
    differentiable : bool, default False
        True is refused.
    fused : bool, optional
        Without effect, see :class:`Optimizer`.

    References
    ----------
    Sutskever, Martens, Dahl, Hinton, "On the importance of initialization and momentum in deep
    learning", ICML 2013.

    Examples
    --------
    >>> import xbackprop as xb
    >>> model = xb.nn.Linear(2, 1)
    >>> optimizer = xb.optim.SGD(model.parameters(), lr=0.1)
    """

    saves_step = False
    writes_half = True

    def __init__(
        self,
        params: ParameterSource,
        lr: float = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
            "foreach": foreach,
            "differentiable": differentiable,
            "fused": fused,
        }
        super().__init__(params, defaults)

    def check_options(self, group: dict[str, Any]) -> None:
        """Refuse hyperparameters that make no sense together."""
        super().check_options(group)
        if group["nesterov"] and (group["momentum"] <= 0 or group["dampening"] != 0):
            raise ValueError("SGD: nesterov needs momentum > 0 and dampening = 0")

    def state_names(self, group: dict[str, Any]) -> tuple[str, ...]:
        """Return the momentum's name when there is momentum."""
        return ("momentum_buffer",) if group["momentum"] else ()

    def scratch_arrays(self, group: dict[str, Any]) -> int:
        """Return how many flat arrays an update holds at once."""
        decays, is_negated, is_nesterov = (
            bool(group["weight_decay"]), group["maximize"], group["nesterov"]
        )  # fmt: skip
        number: int = 1 + decays + is_negated + is_nesterov
        if self.skip_nonfinite:  # the masked gradient, if it is another, and the masked change
            has_gradient = decays or is_negated or bool(group["momentum"])
            number = max(number, 2 + has_gradient + is_nesterov)
        return number

    def update(
        self,
        flat: FlatGroup,
        data: Array,
        grad: Array,
        state: dict[str, Array],
        step: Any,
        finite: Any,
    ) -> None:
        """Descend one step."""
        group = flat.group
        momentum = flat.scalar("momentum", group["momentum"]) if group["momentum"] else None
        run_step(
            sgd_step,
            data, grad, state.get("momentum_buffer") if group["momentum"] else None, step,
            flat.scalar("lr", group["lr"]), momentum, weight_decay_of(flat), finite,
            flat.half_of(data), dampening=group["dampening"], nesterov=group["nesterov"],
            maximize=group["maximize"],
        )  # fmt: skip
