"""Triplet losses: an anchor shall be nearer to its like than to its unlike."""

from collections.abc import Iterable
from typing import Any

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.dispatch import op
from xbackprop.module import Module
from xbackprop.nn.distances import PairwiseDistance
from xbackprop.nn.losses.base import (
    Loss,
    check_floats,
    check_number,
    mean_factor,
    reduce_loss,
)
from xbackprop.nn.losses.margin import check_same_axes


@op(formula="loss = maximum(margin + positive - negative, 0).mean()")
def triplet_margin_forward(
    positive: Array,
    negative: Array,
    swapped: Array | None = None,
    *,
    margin: float = 1.0,
    reduction: str = "mean",
) -> tuple[Array, Any]:
    """Compute ``max(0, margin + d(a, p) - min(d(a, n), d(p, n)))`` of distances."""
    xp = get_array_module(positive)
    nearest = negative if swapped is None else xp.minimum(negative, swapped)
    hinge = margin + positive - nearest
    losses = xp.maximum(hinge, 0)
    return reduce_loss(losses, reduction), (hinge, negative, swapped)


@op(
    formula="grad_positive = grad_output / hinge.size * (hinge >= 0); "
    "grad_negative = -grad_output / hinge.size * (hinge >= 0)",
)
def triplet_margin_backward(
    grad_output: Array,
    hinge: Array,
    negative: Array,
    swapped: Array | None = None,
    *,
    reduction: str = "mean",
) -> tuple[Array, Array, Array | None]:
    """Return ``g`` and ``-g`` of the distances where the margin is not kept; equal ones share."""
    xp = get_array_module(hinge)
    scale = grad_output * mean_factor(hinge.size, reduction)
    grad = xp.where(hinge >= 0, scale, 0).astype(hinge.dtype)
    if swapped is None:
        return grad, -grad, None
    half = xp.where(negative == swapped, 0.5, 1.0).astype(hinge.dtype) * -grad
    return grad, xp.where(negative > swapped, 0, half), xp.where(swapped > negative, 0, half)


class TripletMarginLoss(Loss):
    """An anchor's distance to its like, less that to its unlike, plus a margin; not below 0.

    Parameters
    ----------
    margin : float, default 1.0
        By how much the unlike shall be further away; greater than 0.
    p : float, default 2.0
        Of the norm; ``inf`` is the largest difference. Negative ones: NotImplementedError.
    eps : float, default 1e-6
        Added to every difference, so that a distance is not 0, where it has no derivative.
    swap : bool, default False
        Where the positive is nearer to the negative than the anchor is, take its distance.
    reduction : {"mean", "sum", "none"}
        The mean is over the batch.

    Notes
    -----
    ``max(0, margin + d(a, p) - d(a, n))`` with ``d`` the norm of the difference. Where it is open
    ``d(a, p)`` gets 1 and ``d(a, n)`` -1, and ``d d(x, y)/dx = (x - y) / d`` for ``p = 2``. Of
    two equal distances ``swap`` gives each half, as PyTorch does.

    References
    ----------
    Balntas et al., "Learning shallow convolutional feature descriptors with triplet losses",
    BMVC 2016.
    """

    def __init__(
        self,
        margin: float = 1.0,
        p: float = 2.0,
        eps: float = 1e-6,
        swap: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(reduction)
        self.margin = check_number(self, "margin", margin, above=0)
        if check_number(self, "p", p) < 0:
            raise NotImplementedError(f"TripletMarginLoss(p={p}): norms of a negative p")
        self.p = p
        self.eps = check_number(self, "eps", eps)
        self.swap = swap
        self.distance_function = PairwiseDistance(p, eps)

    def forward(self, anchor: Array, positive: Array, negative: Array) -> tuple[Array, Any]:
        """Compare vectors ``(..., n)``; the three broadcast."""
        return _forward(self, anchor, positive, negative)

    def backward(self, grad_output: Any, saved: Any, *, all_inputs: bool = False) -> Any:
        """Return the gradients of anchor, positive and negative; there is no other input."""
        return _backward(self, grad_output, saved)


class TripletMarginWithDistanceLoss(Loss):
    """The triplet loss with a distance of one's own.

    Parameters
    ----------
    distance_function : Module, optional
        Takes two inputs and returns their distance, and has a backward; it may be trained. None is
        the norm of the difference, as in :class:`TripletMarginLoss`. PyTorch takes any function;
        here one without a backward is refused by NotImplementedError.
    margin : float, default 1.0
        By how much the unlike shall be further away; greater than 0.
    swap : bool, default False
        Where the positive is nearer to the negative than the anchor is, take its distance.
    reduction : {"mean", "sum", "none"}
        The mean is over the distances.

    Notes
    -----
    ``max(0, margin + d(a, p) - d(a, n))``; see :class:`TripletMarginLoss`.
    """

    def __init__(
        self,
        *,
        distance_function: Module | None = None,
        margin: float = 1.0,
        swap: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(reduction)
        if distance_function is not None and not _has_backward(distance_function):
            name = getattr(distance_function, "__name__", type(distance_function).__name__)
            raise NotImplementedError(
                f"TripletMarginWithDistanceLoss(distance_function={name}): it has no backward. "
                "Give a Module with forward(x1, x2) and backward."
            )
        self.distance_function = distance_function or PairwiseDistance()
        self.margin = check_number(self, "margin", margin, above=0)
        self.swap = swap

    def forward(self, anchor: Array, positive: Array, negative: Array) -> tuple[Array, Any]:
        """Compare three inputs with the same number of axes, as the distance takes them."""
        return _forward(self, anchor, positive, negative)

    def backward(self, grad_output: Any, saved: Any, *, all_inputs: bool = False) -> Any:
        """Return the gradients of anchor, positive and negative; there is no other input."""
        return _backward(self, grad_output, saved)


_TripletLoss = TripletMarginLoss | TripletMarginWithDistanceLoss


def _forward(
    loss: _TripletLoss, anchor: Array, positive: Array, negative: Array
) -> tuple[Array, Any]:
    anchor, positive, negative = _check_triplet(loss, anchor, positive, negative)
    pairs = [(anchor, positive), (anchor, negative)]
    if loss.swap:
        pairs.append((positive, negative))
    found = [loss.distance_function.forward(one, other) for one, other in pairs]
    distances = [distance for distance, _ in found]
    value, hinge = triplet_margin_forward(*distances, margin=loss.margin, reduction=loss.reduction)
    return value, (hinge, [saved for _, saved in found])


def _backward(loss: _TripletLoss, grad_output: Any, saved: Any) -> tuple[Array, Array, Array]:
    hinge, of_pairs = saved
    grads = triplet_margin_backward(grad_output, *hinge, reduction=loss.reduction)
    return _join(map(loss.distance_function.backward, grads, of_pairs))


def _has_backward(distance: Any) -> bool:
    return isinstance(distance, Module) and type(distance).backward is not Module.backward


def _check_triplet(
    loss: Loss, anchor: Array, positive: Array, negative: Array
) -> tuple[Array, Array, Array]:
    anchor = check_floats(loss, "anchor", anchor, anchor)
    positive = check_floats(loss, "positive", positive, anchor)
    negative = check_floats(loss, "negative", negative, anchor)
    check_same_axes(loss, {"anchor": anchor, "positive": positive, "negative": negative})
    return anchor, positive, negative


def _join(of_pairs: Iterable[tuple[Array, Array]]) -> tuple[Array, Array, Array]:
    """Add up what the pairs (a, p), (a, n) and perhaps (p, n) say of each of the three."""
    (anchor1, positive), (anchor2, negative), *swapped = of_pairs
    for swapped_positive, swapped_negative in swapped:
        positive, negative = positive + swapped_positive, negative + swapped_negative
    return anchor1 + anchor2, positive, negative
