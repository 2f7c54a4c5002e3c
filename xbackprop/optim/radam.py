"""RAdam: Adam whose scaling waits until enough squares have been seen."""

from typing import Any

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.dispatch import op
from xbackprop.optim.flat import FlatGroup
from xbackprop.optim.optimizer import Optimizer, ParameterSource
from xbackprop.optim.updates import cast, changes_gradient, decay, penalized, put


@op
def radam_update(
    data: Array,
    grad: Array,
    exp_avg: Array,
    exp_avg_sq: Array,
    beta1: float,
    beta2: float,
    step_size: Any,
    rectification: Any,
    is_rectified: Any | None,
    eps: float,
    finite: Array | None = None,
) -> None:
    """Compute ``m = b1 m + (1-b1) g``, ``v = b2 v + (1-b2) g^2``, ``w -= a m r / (sqrt(v) + eps)``.

    The last factor is 1 where ``is_rectified`` is False, and with None.
    """
    xp = get_array_module(data)
    mean = exp_avg * beta1 + grad * (1 - beta1)
    put(exp_avg, mean, finite)
    square = exp_avg_sq * beta2 + grad * grad * (1 - beta2)
    put(exp_avg_sq, square, finite)
    direction = mean * step_size
    if is_rectified is not None:
        scale = rectification / (xp.sqrt(square) + eps)
        direction = xp.where(is_rectified, direction * scale, direction)
    put(data, data - direction, finite)


class RAdam(Optimizer):
    """RAdam, ``w -= lr r_t m_hat / (sqrt(v_hat) + eps)``, or ``w -= lr m_hat`` in the first steps.

    Parameters
    ----------
    params : iterable of Parameter or of dict
        What to optimize.
    lr : float, default 1e-3
        Learning rate.
    betas : tuple of float, default (0.9, 0.999)
        Decay of the running means of the gradient and of its square.
    eps : float, default 1e-8
        Added to the denominator.
    weight_decay : float, default 0
        Factor of the L2 penalty's gradient ``w``.
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
    ``rho_inf = 2 / (1 - b2) - 1`` and ``rho_t = rho_inf - 2 t b2^t / (1 - b2^t)``. Where
    ``rho_t > 5``, ``r_t = sqrt((rho_t - 4)(rho_t - 2) rho_inf / ((rho_inf - 4)(rho_inf - 2)
    rho_t))``; before that the steps are those of momentum. As in PyTorch, ``eps`` is added before
    ``v`` is corrected: ``sqrt(v) + eps``.

    References
    ----------
    Liu et al., "On the variance of the adaptive learning rate and beyond", ICLR 2020, algorithm 2.
    """

    def __init__(
        self,
        params: ParameterSource,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
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
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "decoupled_weight_decay": decoupled_weight_decay,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults)

    def state_names(self, group: dict[str, Any]) -> tuple[str, ...]:
        """Return the names of the running means."""
        return ("exp_avg", "exp_avg_sq")

    def scratch_arrays(self, group: dict[str, Any]) -> int:
        """Return how many flat arrays an update holds at once."""
        # The gradient to descend where it is another, mean, square, direction, scale where it is
        # ever used, and two while the weights are made.
        is_ever_rectified = longest_average(group["betas"][1]) > 5
        return 5 + is_ever_rectified + changes_gradient(group)

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
        correction2 = 1 - beta2**step
        longest = longest_average(beta2)
        length = longest - 2 * step * beta2**step / correction2
        is_rectified: Any = None
        rectification: Any = 1.0
        if longest > 5:  # else it never gets that long
            is_rectified = length > 5
            length = xp.maximum(length, 5.0)  # no root of what is not used
            longest_part = longest / ((longest - 4) * (longest - 2))
            rectification = xp.sqrt(
                (length - 4) * (length - 2) / length * longest_part * correction2
            )
        radam_update(
            data, grad, state["exp_avg"], state["exp_avg_sq"], beta1, beta2,
            cast(lr / (1 - beta1**step), data), cast(rectification, data), is_rectified,
            group["eps"], finite,
        )  # fmt: skip


def longest_average(beta2: float) -> float:
    """Return ``rho_inf``, the length of the moving average that the running mean comes to."""
    return 2 / (1 - beta2) - 1
