"""Connectionist temporal classification: a label sequence under all its alignments."""

import math
from typing import Any

import numpy as np

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.dispatch import op
from xbackprop.module import describe_layer
from xbackprop.nn.losses.base import Loss, check_floats, check_index, mean_factor
from xbackprop.ops.matmul import product


@op(formula=None)
def ctc_loss_forward(
    log_probs: Array,
    labels: Array,
    input_lengths: Array,
    target_lengths: Array,
    *,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> tuple[Array, Any]:
    """Compute ``-log(sum over alignments of their probabilities)`` by the forward recursion.

    Parameters
    ----------
    log_probs : array, shape (time, batch, classes)
        Logarithms of probabilities.
    labels : array of int, shape (batch, longest)
        Padded; what stands beyond a sample's length does not matter.
    input_lengths, target_lengths : array of int, shape (batch,)
        How much of each counts.
    blank : int
        The class of "no label".
    reduction : {"mean", "sum", "none"}
        The mean is of losses divided by their target's length.
    zero_infinity : bool
        Whether a sample without any alignment costs 0, not infinity.

    Returns
    -------
    loss : array, shape () or (batch,)
    saved : (log_probs, labels, input_lengths, target_lengths, alphas, nll)

    Notes
    -----
    An alignment walks through the states blank, l1, blank, l2, ..., blank, ``2 S + 1`` of them:
    each time step stays, goes one on, or two where that skips a blank between different labels,
    and emits the class of its state. ``alpha_t(s)``, the logarithm of the probability of all walks
    that are in ``s`` at time ``t``, is ``log_probs_t(s) + log(sum of exp(alpha_(t-1)) over the
    states one comes from)``. It starts in the first blank before the first step, so that an input
    of length 0 needs no case of its own, and stands still from a sample's last step on. A walk ends
    in the last label or in the blank after it.
    """
    xp = get_array_module(log_probs)
    states, can_skip = _states(labels, blank)
    emitted = _emissions(log_probs, states)
    alpha = xp.where(xp.arange(states.shape[1]) == 0, 0.0, -math.inf).astype(log_probs.dtype)
    alpha = xp.broadcast_to(alpha, states.shape)
    alphas = []
    for t in range(len(log_probs)):
        walked = _log_sum_before(alpha, can_skip) + emitted[t]
        alpha = xp.where(_is_running(t, input_lengths), walked, alpha)
        alphas.append(alpha)
    at_end = xp.where(_is_end(states, target_lengths), alpha, -math.inf)
    top = at_end.max(axis=1, keepdims=True)
    shift = xp.where(xp.isfinite(top), top, 0)
    nll = -(xp.log(xp.exp(at_end - shift).sum(axis=1)) + shift[:, 0])
    wrong = _wrong(log_probs, labels, input_lengths, target_lengths, blank)
    nll = xp.where(wrong, math.nan, nll).astype(log_probs.dtype)
    losses = xp.where(nll == math.inf, 0, nll) if zero_infinity else nll
    losses = losses * _factor(target_lengths, losses, reduction)
    saved = (log_probs, labels, input_lengths, target_lengths, xp.stack(alphas), nll)
    return losses if reduction == "none" else losses.sum(), saved


@op(formula=None)
def ctc_loss_backward(
    grad_output: Array,
    log_probs: Array,
    labels: Array,
    input_lengths: Array,
    target_lengths: Array,
    alphas: Array,
    nll: Array,
    *,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> Array:
    """Return minus the probability of being in a state of class ``k`` at time ``t``, times g.

    ``beta_t(s)`` is the logarithm of the probability of what is left of the walks that are in ``s``
    at time ``t``; so ``exp(alpha_t(s) + beta_t(s) + nll)`` is the share of the walks through ``s``.
    """
    xp = get_array_module(log_probs)
    states, can_skip = _states(labels, blank)
    emitted = _emissions(log_probs, states)
    ends = _is_end(states, target_lengths)
    beta = xp.where(ends, 0.0, -math.inf).astype(log_probs.dtype)
    shares = []
    for t in reversed(range(len(log_probs))):
        is_running = _is_running(t, input_lengths)
        share = xp.exp(alphas[t] + beta + xp.expand_dims(nll, 1))
        shares.append(xp.where(is_running, share, 0))
        beta = xp.where(is_running, _log_sum_after(beta + emitted[t], can_skip), beta)
    scale = grad_output * _factor(target_lengths, nll, reduction)
    classes = xp.arange(log_probs.shape[2])
    one_hot = (xp.expand_dims(states, 2) == classes).astype(log_probs.dtype)
    per_class = product(xp.stack(shares[::-1], axis=1), one_hot)  # (batch, time, classes)
    grad = -per_class.transpose(1, 0, 2) * scale.reshape(1, -1, 1)
    if zero_infinity:
        grad = xp.where((nll == math.inf).reshape(1, -1, 1), 0, grad)
    return grad.astype(log_probs.dtype)


def _states(labels: Array, blank: int) -> tuple[Array, Array]:
    """Return the class of each state, ``(batch, 2 S + 1)``, and whether it may be skipped to."""
    xp = get_array_module(labels)
    batch, longest = labels.shape
    blanks = xp.full((batch, longest, 1), blank, dtype=labels.dtype)
    pairs = xp.concatenate([blanks, xp.expand_dims(labels, 2)], axis=2)
    last = xp.full((batch, 1), blank, dtype=labels.dtype)
    states = xp.concatenate([pairs.reshape(batch, 2 * longest), last], axis=1)
    start = xp.zeros((batch, min(2, states.shape[1])), dtype=bool)
    return states, xp.concatenate([start, states[:, 2:] != states[:, :-2]], axis=1)


def _emissions(log_probs: Array, states: Array) -> Array:
    """Return the log-probability of each state's class, ``(time, batch, states)``."""
    xp = get_array_module(log_probs)
    # Cut to the classes there are: padding may hold anything, and CuPy wraps what is out of range.
    index = xp.clip(states, 0, log_probs.shape[2] - 1)
    index = xp.broadcast_to(index, (len(log_probs), *states.shape))
    return xp.take_along_axis(log_probs, index, axis=2)


def _log_sum_before(alpha: Array, can_skip: Array) -> Array:
    """Add up, for each state, the walks in it, one before and, where allowed, two before."""
    xp = get_array_module(alpha)
    outside = xp.full((len(alpha), 2), -math.inf, dtype=alpha.dtype)
    padded = xp.concatenate([outside, alpha], axis=1)
    skipping = xp.where(can_skip, padded[:, :-2], -math.inf)
    return xp.logaddexp(xp.logaddexp(alpha, padded[:, 1:-1]), skipping).astype(alpha.dtype)


def _log_sum_after(beta: Array, can_skip: Array) -> Array:
    """Add up, for each state, the walks on from it, one after and, where allowed, two after."""
    xp = get_array_module(beta)
    outside = xp.full((len(beta), 2), -math.inf, dtype=beta.dtype)
    padded = xp.concatenate([beta, outside], axis=1)
    skipping = xp.concatenate([xp.where(can_skip, beta, -math.inf), outside], axis=1)[:, 2:]
    return xp.logaddexp(xp.logaddexp(beta, padded[:, 1:-1]), skipping).astype(beta.dtype)


def _is_running(t: int, input_lengths: Array) -> Array:
    return get_array_module(input_lengths).expand_dims(input_lengths > t, 1)


def _is_end(states: Array, target_lengths: Array) -> Array:
    """Mark the last label and the blank after it; of an empty target its only blank."""
    xp = get_array_module(states)
    last = xp.expand_dims(2 * target_lengths, 1)
    number = xp.arange(states.shape[1])
    return (number == last) | (number == last - 1)


def _wrong(
    log_probs: Array, labels: Array, input_lengths: Array, target_lengths: Array, blank: int
) -> Array:
    """Mark samples whose lengths or labels are out of range, or whose labels are blank."""
    xp = get_array_module(log_probs)
    counts = xp.arange(labels.shape[1]) < xp.expand_dims(target_lengths, 1)
    no_class = (labels < 0) | (labels >= log_probs.shape[2]) | (labels == blank)
    too_long = (input_lengths < 0) | (input_lengths > len(log_probs))
    return (counts & no_class).any(axis=1) | too_long | (target_lengths < 0)


def _factor(target_lengths: Array, losses: Array, reduction: str) -> Array:
    xp = get_array_module(losses)
    if reduction != "mean":
        return xp.ones_like(losses)
    lengths = xp.maximum(target_lengths, 1).astype(losses.dtype)
    return mean_factor(losses.size, "mean") / lengths


def _label_rows(targets: Array, lengths: Array, time: int) -> tuple[Array, Array]:
    """Return labels in rows, ``(batch, longest)``, and lengths, -1 where they do not fit.

    No alignment has more labels than time steps, so rows of that length are enough, and how long
    the longest target is need not be read: one that is cut costs infinity, cut or not.
    """
    xp = get_array_module(targets)
    if targets.ndim == 2:
        return targets, xp.where(lengths > targets.shape[1], -1, lengths)
    fitting = xp.where(lengths.sum() == len(targets), lengths, -1)
    longest = min(len(targets), time)
    if longest == 0:
        return targets.reshape(1, 0).repeat(len(lengths), axis=0), fitting
    places = xp.expand_dims(xp.cumsum(lengths) - lengths, 1) + xp.arange(longest)
    return xp.take(targets, xp.clip(places, 0, len(targets) - 1)), fitting


class CTCLoss(Loss):
    """Negative log-likelihood of a label sequence under all alignments with the input.

    Parameters
    ----------
    blank : int, default 0
        The class of "no label".
    reduction : {"mean", "sum", "none"}
        The mean is of each sample's loss divided by its target's length, at least 1.
    zero_infinity : bool, default False
        Whether a target that no alignment fits (a short input) costs 0 and gives no gradient,
        instead of infinity and NaN.

    Notes
    -----
    The probability ``p`` of a target is the sum over all alignments, walks through blank, l1,
    blank, ..., of the product of their steps' probabilities. With ``alpha`` of walks up to a step
    and ``beta`` of walks after it, ``p = sum over s of exp(alpha_t(s) + beta_t(s))`` at any time
    ``t``. A walk holds ``x[t, k]``, a logarithm, once if it is in a state of class ``k`` at time
    ``t``, so ``dp/dx[t, k]`` is the sum of those walks, and ``dLoss/dx[t, k] = -sum over states of
    class k of exp(alpha_t(s) + beta_t(s)) / p``: minus the probability of being there.

    That is the derivative of what forward computes. PyTorch returns ``exp(x[t, k])`` more, which is
    the gradient of logits under the softmax that made ``log_probs``; LogSoftmax's own backward adds
    the same, and takes nothing from PyTorch's, so both give the logits one gradient.

    Lengths and labels out of range, and labels that are the blank, are refused on the host; on a
    device, where looking would be a download, they make the sample's loss NaN. Nothing depends on a
    length's value but masks.

    References
    ----------
    Graves et al., "Connectionist temporal classification: labelling unsegmented sequence data with
    recurrent neural networks", ICML 2006, equations 5 to 16.
    """

    def __init__(
        self, blank: int = 0, reduction: str = "mean", zero_infinity: bool = False
    ) -> None:
        super().__init__(reduction)
        self.blank = check_index(self, "blank", blank)
        self.zero_infinity = zero_infinity

    def forward(
        self, log_probs: Array, targets: Array, input_lengths: Any, target_lengths: Any
    ) -> tuple[Array, Any]:
        """Compare ``(time, batch, classes)`` or ``(time, classes)`` with label sequences.

        Targets are padded, ``(batch, longest)``, or concatenated, ``(sum of lengths,)``. Lengths
        are arrays of integers beside ``log_probs``, on the host also tuples or lists of int.
        """
        log_probs = check_floats(self, "log_probs", log_probs, log_probs)
        self._check_log_probs(log_probs)
        xp = get_array_module(log_probs)
        is_batch = log_probs.ndim == 3
        batched = log_probs if is_batch else xp.expand_dims(log_probs, 1)
        lengths = [
            self._lengths(name, values, batched)
            for name, values in (("input", input_lengths), ("target", target_lengths))
        ]
        self._check_targets(targets, batched)
        if xp is np:
            self._check_on_host(batched, np.asarray(targets), *lengths)
        labels, lengths[1] = _label_rows(targets.astype(np.int64), lengths[1], len(batched))
        loss, saved = ctc_loss_forward(batched, labels, *lengths, **self._options())
        return loss if loss.ndim == 0 or is_batch else loss[0], (saved, is_batch)

    def backward(self, grad_output: Any, saved: Any, *, all_inputs: bool = False) -> Any:
        """Return the gradient of ``log_probs``; integers have none."""
        arrays, is_batch = saved
        if self.reduction == "none" and not is_batch:
            grad_output = get_array_module(arrays[0]).reshape(grad_output, (1,))
        grad = ctc_loss_backward(grad_output, *arrays, **self._options())
        grad = grad if is_batch else grad[:, 0]
        return (grad, None, None, None) if all_inputs else grad

    def _options(self) -> dict[str, Any]:
        return {
            "blank": self.blank,
            "reduction": self.reduction,
            "zero_infinity": self.zero_infinity,
        }

    def _check_log_probs(self, log_probs: Array) -> None:
        name = describe_layer(self)
        if log_probs.ndim not in (2, 3) or log_probs.size == 0:
            raise ValueError(
                f"{name} expects log_probs of shape (time, batch, classes) or (time, classes), not "
                f"empty; got {log_probs.shape}"
            )
        if not 0 <= self.blank < log_probs.shape[-1]:
            raise ValueError(
                f"{name} expects blank from 0 to {log_probs.shape[-1] - 1}; got {self.blank}"
            )

    def _lengths(self, kind: str, values: Any, log_probs: Array) -> Array:
        name = f"{kind}_lengths"
        if isinstance(values, (tuple, list)) and get_array_module(log_probs) is np:
            values = np.asarray(values, dtype=np.int64 if not values else None)
        self.check_device(name, values, log_probs)
        if values.dtype.kind not in "iu":
            raise TypeError(
                f"{describe_layer(self)} expects {name} of an integer dtype; got {values.dtype}"
            )
        batch = log_probs.shape[1]
        if values.shape != (batch,) and not (values.shape == () and batch == 1):
            raise ValueError(
                f"{describe_layer(self)} expects {name} of shape ({batch},), one per sample; "
                f"got {values.shape}"
            )
        return values.reshape(batch).astype(np.int64)

    def _check_targets(self, targets: Array, log_probs: Array) -> None:
        name = describe_layer(self)
        self.check_device("targets", targets, log_probs)
        if targets.dtype.kind not in "iu":
            raise TypeError(f"{name} expects integer labels as targets; got {targets.dtype}")
        batch = log_probs.shape[1]
        if targets.ndim != 1 and not (targets.ndim == 2 and len(targets) == batch):
            raise ValueError(
                f"{name} expects targets of shape ({batch}, longest), or all labels in one row; "
                f"got {targets.shape}"
            )

    def _check_on_host(
        self,
        log_probs: np.ndarray,
        targets: np.ndarray,
        input_lengths: np.ndarray,
        target_lengths: np.ndarray,
    ) -> None:
        """Refuse lengths and labels out of range."""
        for what, lengths, most in (
            ("input_lengths", input_lengths, len(log_probs)),
            ("target_lengths", target_lengths, targets.shape[-1]),
        ):
            self._check_range(what, lengths, most)
        if targets.ndim == 2:
            targets = targets[np.arange(targets.shape[1]) < target_lengths[:, np.newaxis]]
        elif target_lengths.sum() != len(targets):
            raise ValueError(
                f"{describe_layer(self)} expects {target_lengths.sum()} labels in targets, the sum "
                f"of target_lengths; got {len(targets)}"
            )
        self._check_range("labels", targets, log_probs.shape[2] - 1)
        if (targets == self.blank).any():
            raise ValueError(
                f"{describe_layer(self)}: blank={self.blank} stands among the labels, and is none. "
                "Check target_lengths, or give blank another class."
            )

    def _check_range(self, what: str, values: np.ndarray, most: int) -> None:
        if values.size and (values.min() < 0 or values.max() > most):
            raise ValueError(
                f"{describe_layer(self)} expects {what} from 0 to {most}; got {values.min()} to "
                f"{values.max()}"
            )
