"""ASGD: gradient descent with shrinking steps, beside the mean of the weights it went through."""

from typing import Any

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.dispatch import op
from xbackprop.optim.flat import FlatGroup
from xbackprop.optim.optimizer import Optimizer, ParameterSource
from xbackprop.optim.updates import cast, changes_gradient, first, masked, penalized, put


@op
def asgd_update(
    data: Array,
    grad: Array,
    ax: Array,
    shrink: Any,
    eta: Any,
    share: Any,
    is_copied: Any,
    finite: Array | None = None,
) -> None:
    """Compute ``w = w (1 - lambd eta) - eta g`` and ``ax += mu (w - ax)``; ``ax = w`` at first."""
    xp = get_array_module(data)
    new = data * shrink - grad * eta
    put(data, new, finite)
    put(ax, xp.where(is_copied, new, ax + (new - ax) * share), finite)


class ASGD(Optimizer):
    """Averaged SGD, ``w -= eta_t (g + lambd w)``, with the mean of ``w`` in the state ``ax``.

    Parameters
    ----------
    params : iterable of Parameter or of dict
        What to optimize.
    lr : float, default 1e-2
        Learning rate of the first step.
    lambd : float, default 1e-4
        Decay of the weights and of the learning rate.
    alpha : float, default 0.75
        Power of the learning rate's decay.
    t0 : float, default 1e6
        From this update on the weights are averaged.
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

    Notes
    -----
    After update ``t``, ``eta = lr / (1 + lambd lr t)^alpha`` and ``mu = 1 / max(1, t - t0)``: a
    changed ``lr`` is felt one step later, as in PyTorch. ``eta`` and ``mu`` are kept in float64,
    in PyTorch in its default dtype.

    References
    ----------
    Polyak and Juditsky, "Acceleration of stochastic approximation by averaging", SIAM Journal on
    Control and Optimization 30, 1992; Bottou, "Large-scale machine learning with stochastic
    gradient descent", COMPSTAT 2010, section 4.
    """

    number_names = ("eta", "mu")

    def __init__(
        self,
        params: ParameterSource,
        lr: float = 1e-2,
        lambd: float = 1e-4,
        alpha: float = 0.75,
        t0: float = 1e6,
        weight_decay: float = 0,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "lambd": lambd,
            "alpha": alpha,
            "t0": t0,
            "weight_decay": weight_decay,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "capturable": capturable,
        }
        super().__init__(params, defaults)

    def state_names(self, group: dict[str, Any]) -> tuple[str, ...]:
        """Return the name of the mean."""
        return ("ax",)

    def scratch_arrays(self, group: dict[str, Any]) -> int:
        """Return how many flat arrays an update holds at once."""
        # The gradient to descend where it is another, the new weights, the new mean, the masked.
        return 3 + changes_gradient(group)

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
        group, xp = flat.group, flat.device.xp
        lr = flat.scalar("lr", group["lr"])
        eta, mu = first(step, lr, state["eta"]), first(step, 1.0, state["mu"])
        asgd_update(
            data, penalized(flat, data, grad), state["ax"], cast(1 - group["lambd"] * eta, data),
            cast(eta, data), cast(mu, data), mu == 1, finite,
        )  # fmt: skip
        eta = lr / xp.power(1 + group["lambd"] * lr * step, group["alpha"])
        mu = 1 / xp.maximum(1.0, step - group["t0"])
        state["eta"] = masked(eta, finite, state["eta"])
        state["mu"] = masked(mu, finite, state["mu"])
