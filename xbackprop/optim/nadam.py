"""NAdam: Adam that looks ahead as Nesterov's momentum does."""

from typing import Any

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.dispatch import op
from xbackprop.optim.flat import FlatGroup
from xbackprop.optim.optimizer import Optimizer, ParameterSource
from xbackprop.optim.updates import cast, changes_gradient, decay, first, masked, penalized, put


@op
def nadam_update(
    data: Array,
    grad: Array,
    exp_avg: Array,
    exp_avg_sq: Array,
    beta1: float,
    beta2: float,
    grad_size: Any,
    mean_size: Any,
    correction: Any,
    eps: float,
    finite: Array | None = None,
) -> None:
    """Compute ``m = b1 m + (1-b1) g``, ``v = b2 v + (1-b2) g^2``, ``w -= (p g + q m) / d``.

    ``d = sqrt(v / c) + eps``; the sizes ``p``, ``q`` and ``c = 1 - b2^t`` come computed in float64.
    """
    xp = get_array_module(data)
    mean = exp_avg * beta1 + grad * (1 - beta1)
    put(exp_avg, mean, finite)
    square = exp_avg_sq * beta2 + grad * grad * (1 - beta2)
    put(exp_avg_sq, square, finite)
    denominator = xp.sqrt(square / correction) + eps
    put(data, data - (grad * grad_size + mean * mean_size) / denominator, finite)


class NAdam(Optimizer):
    """NAdam, ``w -= lr (mu_next m_hat + (1 - mu) g_hat) / (sqrt(v_hat) + eps)``.

    Parameters
    ----------
    params : iterable of Parameter or of dict
        What to optimize.
    lr : float, default 2e-3
        Learning rate.
    betas : tuple of float, default (0.9, 0.999)
        Decay of the running means of the gradient and of its square.
    eps : float, default 1e-8
        Added to the denominator.
    weight_decay : float, default 0
        Factor of the L2 penalty's gradient ``w``.
    momentum_decay : float, default 4e-3
        How fast the momentum ``mu`` grows towards ``betas[0]``.
    decoupled_weight_decay : bool, default False
        Take ``lr weight_decay w`` from the weights instead of adding to the gradient.
    foreach : bool, optional
        Without effect, see :class:`Optimizer`.
    maximize : bool, default False
        Climb instead of descending.
    capturable : bool, default False
        Without effect, see :class:`Optimizer`.
    differentiable : bool, default False
        True is refused.

    Notes
    -----
    ``mu_t = b1 (1 - 0.96^(t momentum_decay) / 2)`` and ``M_t = mu_1 ... mu_t``; then
    ``w -= lr (1 - mu_t) / (1 - M_t) g / d + lr mu_{t+1} / (1 - M_t mu_{t+1}) m / d`` with
    ``d = sqrt(v / (1 - b2^t)) + eps``. ``M_t`` is the state ``mu_product``, here always in float64,
    in PyTorch in its default dtype.

    References
    ----------
    Dozat, "Incorporating Nesterov momentum into Adam", ICLR 2016 workshop, algorithm 2.
    """

    number_names = ("mu_product",)

    def __init__(
        self,
        params: ParameterSource,
        lr: float = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum_decay: float = 4e-3,
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "momentum_decay": momentum_decay,
            "decoupled_weight_decay": decoupled_weight_decay,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults)

    def check_options(self, group: dict[str, Any]) -> None:
        """Refuse hyperparameters out of range."""
        super().check_options(group)
        if not group["momentum_decay"] >= 0:
            raise ValueError(f"NAdam expects momentum_decay >= 0; got {group['momentum_decay']}")

    def state_names(self, group: dict[str, Any]) -> tuple[str, ...]:
        """Return the names of the running means."""
        return ("exp_avg", "exp_avg_sq")

    def scratch_arrays(self, group: dict[str, Any]) -> int:
        """Return how many flat arrays an update holds at once."""
        # The gradient to descend where it is another, mean, square, denominator, and three of the
        # sum of both directions.
        return 6 + changes_gradient(group)

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
        beta1, beta2 = group["betas"]
        is_decoupled = group["decoupled_weight_decay"]
        grad = penalized(flat, data, grad, is_decoupled=is_decoupled)
        if is_decoupled:
            decay(flat, data, lr, finite)
        mu, mu_next = (
            beta1 * (1.0 - 0.5 * xp.power(0.96, number * group["momentum_decay"]))
            for number in (step, step + 1)
        )
        earlier = state["mu_product"]
        mu_product = first(step, 1.0, earlier) * mu
        state["mu_product"] = masked(mu_product, finite, earlier)
        grad_size = lr * (1.0 - mu) / (1.0 - mu_product)
        mean_size = lr * mu_next / (1.0 - mu_product * mu_next)
        nadam_update(
            data, grad, state["exp_avg"], state["exp_avg_sq"], beta1, beta2, cast(grad_size, data),
            cast(mean_size, data), cast(1 - beta2**step, data), group["eps"], finite,
        )  # fmt: skip
