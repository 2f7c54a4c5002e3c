"""scikit-learn's two update rules, where they are not PyTorch's."""

from typing import Any

from xbackprop.backend.array_module import Array
from xbackprop.dispatch import op
from xbackprop.optim import Adam, Optimizer
from xbackprop.optim.adam import adam_update, coupled_adam_update
from xbackprop.optim.flat import FlatGroup
from xbackprop.optim.optimizer import ParameterSource
from xbackprop.optim.updates import cast, masked, penalized, weight_decay_of


@op
def velocity_update(
    data: Array,
    grad: Array,
    velocity: Array,
    lr: Any,
    momentum: Any,
    finite: Array | None = None,
    *,
    nesterov: bool,
) -> None:
    """Compute ``v = mu v - eta g`` and ``w += v`` (Nesterov: ``w += mu v - eta g``) in place."""
    change = grad * lr
    velocity *= momentum
    velocity -= change
    step = velocity * momentum - change if nesterov else velocity
    data += masked(step, finite, -0.0)


class VelocitySGD(Optimizer):
    """Gradient descent with momentum, ``v = mu v - eta g``, ``w += v``.

    A learning rate that falls does not scale what the velocity holds already; in
    :class:`xbackprop.optim.SGD`, as in PyTorch, it does.

    Parameters
    ----------
    params : iterable of Parameter or of dict
        What to optimize.
    lr : float
        Learning rate ``eta``.
    momentum : float
        Share of the velocity that is kept, 0 to 1.
    nesterov : bool
        Look ahead.
    weight_decay : float, default 0
        Factor of the L2 penalty's gradient ``w``.

    References
    ----------
    Sutskever, Martens, Dahl, Hinton, "On the importance of initialization and momentum in deep
    learning", ICML 2013, equations 1 to 4.
    """

    def __init__(
        self,
        params: ParameterSource,
        lr: float,
        momentum: float,
        nesterov: bool,
        weight_decay: float = 0,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "nesterov": nesterov,
            "weight_decay": weight_decay,
        }
        super().__init__(params, defaults)

    def state_names(self, group: dict[str, Any]) -> tuple[str, ...]:
        """Return the velocity's name."""
        return ("velocity",)

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
        grad = masked(penalized(flat, data, grad), finite, 0.0)
        momentum = masked(flat.scalar("momentum", group["momentum"]), finite, 1.0)
        velocity_update(
            data, grad, state["velocity"], cast(flat.scalar("lr", group["lr"]), data),
            cast(momentum, data), finite, nesterov=group["nesterov"],
        )  # fmt: skip


class EpsilonHatAdam(Adam):
    """Adam with ``eps`` beside the uncorrected root, ``w -= a m / (sqrt(v) + eps)``.

    ``a = lr sqrt(1 - b2^t) / (1 - b1^t)``. Parameters are those of :class:`xbackprop.optim.Adam`.

    Attributes
    ----------
    squares : array, shape (), or None
        Of the last step: the sum of ``w^2`` before it, over groups with weight decay. It comes out
        of the same pass; None where it was not computed.

    References
    ----------
    Kingma and Ba, "Adam: a method for stochastic optimization", ICLR 2015, section 2, last
    paragraph.
    """

    squares: Any = None

    def step(self, *args: Any, **options: Any) -> Any:
        """Update every parameter that has a gradient, as :meth:`Optimizer.step`."""
        self.squares = None
        return super().step(*args, **options)

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"squares": None}  # it may be on a device

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
        beta1, beta2 = (
            masked(flat.scalar(f"beta{i}", beta), finite, 1.0)
            for i, beta in enumerate(group["betas"], 1)
        )
        lr = flat.scalar("lr", group["lr"])
        first, second = group["betas"]
        step_size = lr * (1 - second**step) ** 0.5 / (1 - first**step)
        numbers = cast(beta1, data), cast(1 - beta1, data), cast(beta2, data), cast(1 - beta2, data)
        weight_decay = weight_decay_of(flat)
        if weight_decay is not None and finite is None:
            squares = coupled_adam_update(
                data, grad, state["exp_avg"], state["exp_avg_sq"], cast(weight_decay, data),
                *numbers, cast(step_size, data), group["eps"],
            )  # fmt: skip
            self.squares = squares if self.squares is None else self.squares + squares
            return
        grad = masked(penalized(flat, data, grad), finite, -0.0)
        adam_update(
            data, grad, state["exp_avg"], state["exp_avg_sq"], None,
            *numbers, cast(step_size, data), 1.0, group["eps"], finite,
        )  # fmt: skip
