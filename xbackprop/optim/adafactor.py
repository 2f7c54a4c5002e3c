"""Adafactor: the mean square of a matrix's gradient kept as one row and one column."""

from typing import Any

import numpy as np

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.dispatch import op
from xbackprop.module import Parameter
from xbackprop.optim.flat import FlatGroup
from xbackprop.optim.norms import sums_of_squares
from xbackprop.optim.optimizer import Optimizer, ParameterSource
from xbackprop.optim.updates import cast, decay, penalized, put


@op
def adafactor_variance(
    grad: Array,
    row_var: Array | None,
    col_var: Array | None,
    variance: Array | None,
    share: Any,
    eps1: float,
    finite: Array | None = None,
) -> Array:
    """Compute ``V = R C / mean(R)`` from the running means ``R``, ``C`` of ``g^2`` by row, column.

    A vector's own running mean is ``variance``.
    """
    xp = get_array_module(grad)
    square = grad * grad
    if row_var is None or col_var is None:
        mean = variance + (square - variance) * share
        put(variance, mean, finite)
        return mean
    rows = row_var + (square.mean(axis=-1, keepdims=True) - row_var) * share  # (..., n, 1)
    columns = col_var + (square.mean(axis=-2, keepdims=True) - col_var) * share  # (..., 1, m)
    put(row_var, rows, finite)
    put(col_var, columns, finite)
    return rows * columns / xp.maximum(rows.mean(axis=-2, keepdims=True), eps1)


@op
def adafactor_update(
    data: Array,
    grad: Array,
    variance: Array,
    step_size: Any,
    threshold: float,
    eps1: float,
    finite: Array | None = None,
) -> None:
    """Compute ``u = g / sqrt(max(V, eps1^2))`` and ``w -= a u / max(1, RMS(u) / d)``."""
    xp = get_array_module(data)
    direction = grad / xp.sqrt(xp.maximum(variance, eps1 * eps1))
    clip = xp.maximum(1.0, root_mean_square(direction) / threshold)
    put(data, data - direction * (step_size / clip).astype(data.dtype), finite)


def root_mean_square(array: Array) -> Array:
    """Return ``sqrt(mean(array^2))`` as a float64 scalar on the device."""
    xp = get_array_module(array)
    return xp.sqrt(sums_of_squares(array)[0]).astype(np.float64) / array.size**0.5


class Adafactor(Optimizer):
    """Adafactor, ``w -= a_t g / sqrt(V) / max(1, RMS(g / sqrt(V)) / d)``.

    Parameters
    ----------
    params : iterable of Parameter or of dict
        What to optimize.
    lr : float, default 1e-2
        Largest relative step, and factor of the weight decay.
    beta2_decay : float, default -0.8
        The running means take ``t^beta2_decay`` of the newest square; not above 0.
    eps : tuple of float or None, default (None, 1e-3)
        Smallest root of a mean square, None for the dtype's machine epsilon; and smallest scale of
        the weights.
    d : float, default 1.0
        Root mean square above which an update is scaled down; not below 1.
    weight_decay : float, default 0.0
        Share of the weights, times ``lr``, that is taken away in each step.
    foreach : bool, optional
        Without effect, see :class:`Optimizer`.
    maximize : bool, default False
        Climb instead of descending.

    Notes
    -----
    ``a_t = max(eps[1], RMS(w)) min(lr, 1 / sqrt(t))``. For two and more axes ``V`` is the product
    of a mean over rows and one over columns of the last two axes, state ``row_var``
    ``(..., n, 1)`` and ``col_var`` ``(..., 1, m)``; for others it is the state ``variance``. Where
    ``lr`` and ``eps[0]`` enter is PyTorch's choice and not the paper's. An empty parameter is left
    alone; PyTorch fails on it.

    References
    ----------
    Shazeer and Stern, "Adafactor: adaptive learning rates with sublinear memory cost", ICML 2018,
    algorithms 4 and 5.
    """

    elementwise = False

    def __init__(
        self,
        params: ParameterSource,
        lr: float = 1e-2,
        beta2_decay: float = -0.8,
        eps: tuple[float | None, float] = (None, 1e-3),
        d: float = 1.0,
        weight_decay: float = 0.0,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "beta2_decay": beta2_decay,
            "eps": eps,
            "d": d,
            "weight_decay": weight_decay,
            "foreach": foreach,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def check_options(self, group: dict[str, Any]) -> None:
        """Refuse hyperparameters out of range."""
        super().check_options({**group, "eps": group["eps"][1]})
        if group["eps"][0] is not None and not group["eps"][0] >= 0:
            raise ValueError(f"Adafactor expects eps[0] None or >= 0; got {group['eps'][0]}")
        if not group["beta2_decay"] <= 0:
            raise ValueError(f"Adafactor expects beta2_decay <= 0; got {group['beta2_decay']}")
        if not group["d"] >= 1:
            raise ValueError(f"Adafactor expects d >= 1; got {group['d']}")

    def state_shapes(
        self, group: dict[str, Any], parameter: Parameter
    ) -> dict[str, tuple[int, ...]]:
        """Return the shapes of a row and a column, or for a vector its own."""
        shape = parameter.shape
        if len(shape) < 2:
            return {"variance": shape}
        return {"row_var": (*shape[:-1], 1), "col_var": (*shape[:-2], 1, shape[-1])}

    def scratch_arrays(self, group: dict[str, Any]) -> int:
        """Return how many flat arrays an update holds at once."""
        # The gradient to descend where it is another, variance, direction, the new weights, the
        # masked.
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
        if not data.size:
            return
        group, xp = flat.group, flat.device.xp
        lr = flat.scalar("lr", group["lr"])
        eps1, eps2 = group["eps"]
        if eps1 is None:
            eps1 = float(np.finfo(data.dtype).eps)
        relative = xp.minimum(lr, 1 / step**0.5)
        step_size = xp.maximum(eps2, root_mean_square(data)) * relative
        decay(flat, data, lr, finite)
        grad = penalized(flat, data, grad, is_decoupled=True)
        variance = adafactor_variance(
            grad, state.get("row_var"), state.get("col_var"), state.get("variance"),
            cast(step ** group["beta2_decay"], data), eps1, finite,
        )  # fmt: skip
        adafactor_update(data, grad, variance, step_size, group["d"], eps1, finite)
