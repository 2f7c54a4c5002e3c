"""Adam and AdamW: steps scaled by running means of the gradient and of its square."""

from collections.abc import Mapping
from typing import Any

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.dispatch import op
from xbackprop.optim.flat import FlatGroup
from xbackprop.optim.optimizer import Optimizer, ParameterSource
from xbackprop.optim.updates import (
    cast,
    masked,
    run_step,
    shrink,
    weight_decay_of,
    with_penalty,
)


@op(
    formula="data_new = data - step_size * (beta1 * exp_avg + share1 * grad) "
    "/ (correction * sqrt(beta2 * exp_avg_sq + share2 * grad * grad) + eps); "
    "exp_avg_new = beta1 * exp_avg + share1 * grad; "
    "exp_avg_sq_new = beta2 * exp_avg_sq + share2 * grad * grad",
)
def adam_update(
    data: Array,
    grad: Array,
    exp_avg: Array,
    exp_avg_sq: Array,
    max_exp_avg_sq: Array | None,
    beta1: Any,
    share1: Any,
    beta2: Any,
    share2: Any,
    step_size: Any,
    correction: Any,
    eps: float,
    finite: Array | None = None,
) -> None:
    """Compute ``m = b1 m + (1-b1) g``, ``v = b2 v + (1-b2) g^2``, ``w -= a m / (c sqrt(v) + eps)``.

    ``share = 1 - beta``, ``a = lr / (1 - b1^t)`` and ``c = 1 / sqrt(1 - b2^t)`` come computed in
    float64. Everything is written in place; with ``max_exp_avg_sq`` the largest ``v`` so far is
    used (AMSGrad).
    """
    xp = get_array_module(data)
    exp_avg *= beta1
    exp_avg += grad * share1
    exp_avg_sq *= beta2
    exp_avg_sq += grad * grad * share2
    square = exp_avg_sq
    if max_exp_avg_sq is not None:
        xp.maximum(max_exp_avg_sq, exp_avg_sq, out=max_exp_avg_sq)
        square = max_exp_avg_sq
    data -= masked(exp_avg / (xp.sqrt(square) * correction + eps) * step_size, finite, 0.0)


@op
def coupled_adam_update(
    data: Array,
    grad: Array,
    exp_avg: Array,
    exp_avg_sq: Array,
    weight_decay: Any,
    beta1: Any,
    share1: Any,
    beta2: Any,
    share2: Any,
    step_size: Any,
    eps: float,
) -> Array:
    """Compute :func:`adam_update` in place for ``g = grad + weight_decay w`` and ``c = 1``.

    Returns the sum of ``w^2`` from before, of which the penalty is made. One pass makes all of it,
    for the form of Adam whose ``eps`` stands beside the uncorrected root:
    ``a = lr sqrt(1 - b2^t) / (1 - b1^t)``.
    """
    flat = data.reshape(-1)
    squares = flat.dot(flat)
    adam_update.reference(
        data, with_penalty(data, grad, weight_decay, False), exp_avg, exp_avg_sq, None,
        beta1, share1, beta2, share2, step_size, 1.0, eps,
    )  # fmt: skip
    return squares


@op
def adam_step(
    data: Array,
    grad: Array,
    exp_avg: Array,
    exp_avg_sq: Array,
    max_exp_avg_sq: Array | None,
    step: Any,
    lr: Any,
    beta1: Any,
    beta2: Any,
    weight_decay: Any,
    finite: Array | None,
    half: Array | None,
    eps: float,
    *,
    decoupled: bool,
    maximize: bool,
) -> None:
    """Make a whole step of Adam in place: weight decay, the coefficients, :func:`adam_update`.

    Parameters
    ----------
    data, grad, exp_avg, exp_avg_sq, max_exp_avg_sq : array, or None
        As for :func:`adam_update`.
    step : int or array of int64, shape ()
        Number of this update, counted from 1.
    lr, beta1, beta2, weight_decay : float or array of float64, shape ()
        Hyperparameters; no ``weight_decay`` is None.
    finite : array of bool, shape (), or None
        When given and False, nothing changes.
    half : array, or None
        Receives the new values, rounded to its dtype.
    eps : float
        Added to the denominator.
    decoupled, maximize : bool
        Whether weights decay by themselves, and whether to climb.
    """
    factor1, factor2 = (masked(beta, finite, 1.0) for beta in (beta1, beta2))
    grad = with_penalty(data, grad, None if decoupled else weight_decay, maximize)
    if decoupled:
        shrink(data, lr, weight_decay, finite)
    grad = masked(grad, finite, -0.0)  # the one number that changes nothing, added to any
    # In float64, on the device: float32 would lose 1.3e-5 in the corrections.
    step_size = lr / (1 - beta1**step)
    correction = (1 - beta2**step) ** -0.5
    adam_update(
        data, grad, exp_avg, exp_avg_sq, max_exp_avg_sq,
        cast(factor1, data), cast(1 - factor1, data), cast(factor2, data), cast(1 - factor2, data),
        cast(step_size, data), cast(correction, data), eps, finite,
    )  # fmt: skip
    if half is not None:
        half[...] = data


class Adam(Optimizer):
    """Adam, ``w -= lr m_hat / (sqrt(v_hat) + eps)``.

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
    amsgrad : bool, default False
        Use the largest running mean of squares so far.
    foreach : bool, optional
        Without effect, see :class:`Optimizer`.
    maximize : bool, default False
        Climb instead of descending.
    capturable : bool, default False
        Without effect, see :class:`Optimizer`.
    differentiable : bool, default False
        True is refused.
    fused : bool, optional
        Without effect, see :class:`Optimizer`.
    decoupled_weight_decay : bool, default False
        Take ``lr weight_decay w`` from the weights instead of adding to the gradient, as AdamW.

    References
    ----------
    Kingma and Ba, "Adam: a method for stochastic optimization", ICLR 2015, algorithm 1; Reddi,
    Kale, Kumar, "On the convergence of Adam and beyond", ICLR 2018 (AMSGrad).
    """

    writes_half = True

    def __init__(
        self,
        params: ParameterSource,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "differentiable": differentiable,
            "fused": fused,
            "decoupled_weight_decay": decoupled_weight_decay,
        }
        super().__init__(params, defaults)

    def check_options(self, group: dict[str, Any]) -> None:
        """Refuse hyperparameters out of range, and betas that are not floats, as PyTorch does."""
        super().check_options(group)
        if not all(isinstance(beta, float) for beta in group["betas"]):
            raise ValueError(
                f"{type(self).__name__} expects betas to be floats; got {group['betas']}"
            )

    def state_names(self, group: dict[str, Any]) -> tuple[str, ...]:
        """Return the names of the running means."""
        names = ("exp_avg", "exp_avg_sq")
        return (*names, "max_exp_avg_sq") if group["amsgrad"] else names

    def scratch_arrays(self, group: dict[str, Any]) -> int:
        """Return how many flat arrays an update holds at once."""
        return 3  # the changed gradient, and two in the quotient

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
        beta1, beta2 = (flat.scalar(f"beta{i}", beta) for i, beta in enumerate(group["betas"], 1))
        run_step(
            adam_step,
            data, grad, state["exp_avg"], state["exp_avg_sq"], state.get("max_exp_avg_sq"), step,
            flat.scalar("lr", group["lr"]), beta1, beta2, weight_decay_of(flat), finite,
            flat.half_of(data), group["eps"],
            decoupled=group["decoupled_weight_decay"], maximize=group["maximize"],
        )  # fmt: skip


class AdamW(Adam):
    """Adam with decoupled weight decay, ``w -= lr weight_decay w`` before Adam's step.

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
    weight_decay : float, default 1e-2
        Share of the weights, times ``lr``, that is taken away in each step.
    amsgrad : bool, default False
        Use the largest running mean of squares so far.
    maximize : bool, default False
        Climb instead of descending.
    foreach : bool, optional
        Without effect, see :class:`Optimizer`.
    capturable : bool, default False
        Without effect, see :class:`Optimizer`.
    differentiable : bool, default False
        True is refused.
    fused : bool, optional
        Without effect, see :class:`Optimizer`.

    References
    ----------
    Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019.
    """

    def __init__(
        self,
        params: ParameterSource,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        super().__init__(
            params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize, foreach=foreach,
            capturable=capturable, differentiable=differentiable, fused=fused,
            decoupled_weight_decay=True,
        )  # fmt: skip

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore a state; one of Adam goes on with decoupled weight decay, as in PyTorch."""
        super().load_state_dict(state_dict)
        for group in self.param_groups:
            group["decoupled_weight_decay"] = True
