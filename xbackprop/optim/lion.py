"""Lion: the sign of a running mean, found by a search over programs."""

from typing import Any

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.dispatch import op
from xbackprop.optim.flat import FlatGroup
from xbackprop.optim.optimizer import Optimizer, ParameterSource
from xbackprop.optim.updates import cast, decay, penalized, put


@op
def lion_update(
    data: Array,
    grad: Array,
    exp_avg: Array,
    lr: Any,
    beta1: float,
    beta2: float,
    finite: Array | None = None,
) -> None:
    """Compute ``w -= lr sign(b1 m + (1-b1) g)``, then ``m = b2 m + (1-b2) g``."""
    xp = get_array_module(data)
    direction = xp.sign(exp_avg * beta1 + grad * (1 - beta1))
    put(data, data - direction * lr, finite)
    put(exp_avg, exp_avg * beta2 + grad * (1 - beta2), finite)


class Lion(Optimizer):
    """Lion, ``w -= lr (sign(b1 m + (1-b1) g) + weight_decay w)``.

    Parameters
    ----------
    params : iterable of Parameter or of dict
        What to optimize.
    lr : float, default 1e-4
        Learning rate: what each weight moves in a step.
    betas : tuple of float, default (0.9, 0.99)
        Share of the running mean in the direction, and decay of the running mean.
    weight_decay : float, default 0
        Share of the weights, times ``lr``, that is taken away in each step.
    maximize : bool, default False
        Climb instead of descending.

    Notes
    -----
    PyTorch has no Lion; names, defaults and the state ``exp_avg`` are those of its authors.

    References
    ----------
    Chen et al., "Symbolic discovery of optimization algorithms", NeurIPS 2023, algorithm 2;
    github.com/google/automl, lion/lion_pytorch.py.
    """

    saves_step = False

    def __init__(
        self,
        params: ParameterSource,
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "weight_decay": weight_decay, "maximize": maximize}
        super().__init__(params, defaults)

    def state_names(self, group: dict[str, Any]) -> tuple[str, ...]:
        """Return the name of the running mean."""
        return ("exp_avg",)

    def scratch_arrays(self, group: dict[str, Any]) -> int:
        """Return how many flat arrays an update holds at once."""
        # The gradient to descend where it is another, direction, and three while the mean is made.
        return 4 + bool(group["maximize"])

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
        lr = flat.scalar("lr", group["lr"])
        decay(flat, data, lr, finite)
        grad = penalized(flat, data, grad, is_decoupled=True)
        lion_update(data, grad, state["exp_avg"], cast(lr, data), *group["betas"], finite)
