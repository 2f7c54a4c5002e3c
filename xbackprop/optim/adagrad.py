"""Adagrad: steps that shrink with all squares seen so far."""

from collections.abc import Mapping
from typing import Any

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.dispatch import op
from xbackprop.optim.flat import FlatGroup
from xbackprop.optim.optimizer import Optimizer, ParameterSource
from xbackprop.optim.updates import cast, changes_gradient, first, penalized, put


@op
def adagrad_update(
    data: Array,
    grad: Array,
    total: Array,
    earlier: Array,
    step_size: Any,
    eps: float,
    finite: Array | None = None,
) -> None:
    """Compute ``s = earlier + g^2`` and ``w -= a g / (sqrt(s) + eps)``."""
    xp = get_array_module(data)
    squares = earlier + grad * grad
    put(total, squares, finite)
    put(data, data - grad / (xp.sqrt(squares) + eps) * step_size, finite)


class Adagrad(Optimizer):
    """Adagrad, ``w -= lr g / (sqrt(sum of g^2) + eps)``.

    Parameters
    ----------
    params : iterable of Parameter or of dict
        What to optimize.
    lr : float, default 1e-2
        Learning rate.
    lr_decay : float, default 0
        The learning rate of update ``t`` is ``lr / (1 + (t - 1) lr_decay)``.
    weight_decay : float, default 0
        Factor of the L2 penalty's gradient ``w``.
    initial_accumulator_value : float, default 0
        What the sum of squares starts from.
    eps : float, default 1e-10
        Added to the denominator.
    foreach : bool, optional
        Without effect, see :class:`Optimizer`.
    maximize : bool, default False
        Climb instead of descending.
    differentiable : bool, default False
        True is refused.
    fused : bool, optional
        Without effect, see :class:`Optimizer`.

    Notes
    -----
    ``state_dict`` begins to hold a parameter with its first update; PyTorch's holds the initial sum
    before that. Both are loaded.

    References
    ----------
    Duchi, Hazan, Singer, "Adaptive subgradient methods for online learning and stochastic
    optimization", JMLR 12, 2011, figure 1.
    """

    def __init__(
        self,
        params: ParameterSource,
        lr: float = 1e-2,
        lr_decay: float = 0,
        weight_decay: float = 0,
        initial_accumulator_value: float = 0,
        eps: float = 1e-10,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        defaults = {
            "lr": lr,
            "lr_decay": lr_decay,
            "eps": eps,
            "weight_decay": weight_decay,
            "initial_accumulator_value": initial_accumulator_value,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "fused": fused,
        }
        super().__init__(params, defaults)

    def add_param_group(self, param_group: Mapping[str, Any]) -> None:
        """Add a group; its ``initial_accumulator_value`` is the optimizer's, as in PyTorch."""
        name = "initial_accumulator_value"
        if param_group.get(name, self.defaults[name]) != self.defaults[name]:
            raise NotImplementedError(f"Adagrad: {name} of one group; PyTorch passes it over")
        super().add_param_group(param_group)

    def check_options(self, group: dict[str, Any]) -> None:
        """Refuse hyperparameters out of range."""
        super().check_options(group)
        for name in ("lr_decay", "initial_accumulator_value"):
            if not group[name] >= 0:
                raise ValueError(f"Adagrad expects {name} >= 0; got {group[name]}")

    def state_names(self, group: dict[str, Any]) -> tuple[str, ...]:
        """Return the name of the sum of squares."""
        return ("sum",)

    def scratch_arrays(self, group: dict[str, Any]) -> int:
        """Return how many flat arrays an update holds at once."""
        # The gradient to descend where it is another, the sum it adds to where it may be the
        # initial one, the new sum, the new weights, the masked.
        return 3 + bool(group["initial_accumulator_value"]) + changes_gradient(group)

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
        earlier = state["sum"]
        if group["initial_accumulator_value"]:
            earlier = first(step, group["initial_accumulator_value"], earlier)
        step_size = flat.scalar("lr", group["lr"]) / (1 + (step - 1) * group["lr_decay"])
        adagrad_update(
            data, penalized(flat, data, grad), state["sum"], earlier, cast(step_size, data),
            group["eps"], finite,
        )  # fmt: skip
