"""One batch over several threads: its shards forward and backward, gradients summed in order."""

import contextvars
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.backend.threads import blas_threads, get_num_threads
from xbackprop.dispatch import is_observed
from xbackprop.module import (
    as_one_call,
    as_shard,
    collect_gradients,
    current_frame,
    precision_of,
)
from xbackprop.nn import HalfSquaredError, Module
from xbackprop.nn.gpt import CausalSelfAttention
from xbackprop.training.gradients import as_tuple, forward_backward
from xbackprop.training.metrics import count_weight


def check_shards(model: Module, loss_fn: Module, shards: int) -> None:
    """Refuse what cannot be computed shard by shard.

    Parameters
    ----------
    model, loss_fn : Module
        As for :func:`xbackprop.value_and_grad`.
    shards : int
        How many.

    Raises
    ------
    ValueError
        For a number below 1.
    NotImplementedError
        For a layer or loss not known to treat each sample on its own, and for a model on a device.
    ImportError
        Without threadpoolctl (extra ``fast``).
    """
    if isinstance(shards, bool) or not isinstance(shards, int) or shards < 1:
        raise ValueError(f"Trainer expects shards to be an int of at least 1; got {shards!r}")
    if shards == 1:
        return
    places = {str(p.device) for p in model.parameters() if p.device.kind != "cpu"}
    if places:
        raise NotImplementedError(
            f"Trainer(shards={shards}) on {', '.join(sorted(places))}: shards are threads of the "
            "CPU. Leave shards at 1, or train on the CPU."
        )
    # A bare attention takes masks and single sequences, whose first axis is none of samples; inside
    # of this class it is given four axes.
    inner = {id(m.attention) for m in model.modules() if type(m) is CausalSelfAttention}
    for module in (*model.modules(), *loss_fn.modules()):
        if id(module) not in inner and not treats_samples_apart(module):
            raise NotImplementedError(
                f"Trainer(shards={shards}) with {type(module).__name__}: it is not known to treat "
                "each sample on its own. Leave shards at 1; a class of yours whose results for a "
                "sample depend on no other says so by `samples_apart = True`."
            )
    if any(precision_of(module) != "float32" for module in model.modules()):
        raise NotImplementedError(f"Trainer(shards={shards}) in another precision than float32")
    with blas_threads(1):  # tells now that threadpoolctl is missing
        pass


def treats_samples_apart(module: Module) -> bool:
    """Tell whether a module says so, in the class that computes or in one made of it."""
    for cls in type(module).__mro__:
        if "samples_apart" in vars(cls):
            return bool(module.samples_apart)
        if "forward" in vars(cls):  # another forward than the one that was meant
            return False
    return False


def sharded_forward_backward(
    model: Module, loss_fn: Module, x: Any, y: Any, shards: int, grad_output: Any = None
) -> tuple[Array, Array]:
    """Do as ``forward_backward``, the batch cut into shards along its first axis.

    The shards' losses and gradients are added in their order, each mean by its share in the whole,
    so that the same number of shards gives the same bits, however many threads there are.

    Parameters
    ----------
    model, loss_fn, x, y
        As for :func:`xbackprop.training.gradients.forward_backward`.
    shards : int
        How many; fewer where the batch has fewer samples. A batch with a shard whose labels are all
        ignored is not cut, nor is any under observers.
    grad_output : callable or None
        As there, of the whole batch's loss.

    Returns
    -------
    loss, output : array
    """
    inputs = as_tuple(x)
    bounds = _bounds((*inputs, y), shards)
    shares = _shares(loss_fn, [y[part] for part in bounds])
    if len(bounds) < 2 or is_observed() or not all(shares):
        return forward_backward(model, loss_fn, x, y, grad_output)
    updates = current_frame().updates
    workers = min(len(bounds), get_num_threads())

    def forward(part: slice) -> Any:
        with as_shard(part.start, part.stop - part.start, dict(updates)) as made:
            output, saved = model.forward(*[value[part] for value in inputs])
            return output, saved, *loss_fn.forward(output, y[part]), made

    with as_one_call(*inputs), blas_threads(1), ThreadPoolExecutor(workers) as pool:
        outputs, saved, losses, loss_saved, made = zip(
            *_in_order(pool, forward, bounds), strict=True
        )
        updates.update(made[0])  # random counters, which move alike in all shards
        loss = _sum([one * share for one, share in zip(losses, shares, strict=True)])
        factor = 1.0 if grad_output is None else grad_output(loss)

        def backward(number: int) -> Any:
            part = bounds[number]
            with as_shard(part.start, part.stop - part.start, {}), collect_gradients() as grads:
                grad = loss_fn.backward(factor * shares[number], loss_saved[number])
                model.backward(grad, saved[number], input_grad=False)
            return grads

        collected = _in_order(pool, backward, range(len(bounds)))
        for parameter in dict.fromkeys(p for grads in collected for p in grads):
            parameter.accumulate(_sum([g[parameter] for g in collected if parameter in g]))
    return loss, np.concatenate(outputs)


def _bounds(values: tuple[Any, ...], shards: int) -> list[slice]:
    """Return where the shards lie along the first axis: sizes that differ by one at most."""
    for value in values:
        if type(value) is not np.ndarray or not value.ndim:
            place = "a device" if get_array_module(value) is not np else type(value).__name__
            raise NotImplementedError(
                f"Trainer(shards={shards}) with a batch of {place}: shards are cut from arrays of "
                "samples on the CPU"
            )
    lengths = {len(value) for value in values}
    if len(lengths) > 1:
        raise ValueError(
            f"Trainer(shards={shards}) expects as many samples in every input and the target; got "
            f"{sorted(lengths)}"
        )
    (length,) = lengths
    number = max(1, min(shards, length))
    edges = [length * i // number for i in range(number + 1)]
    return [slice(start, stop) for start, stop in pairwise(edges)]


def _shares(loss_fn: Module, targets: list[Array]) -> list[float]:
    """Return the factors of the shards' losses; 0 where a shard's mean is over nothing."""
    is_sum = isinstance(loss_fn, HalfSquaredError) and targets[0].ndim == 1  # one sample's outputs
    if is_sum or getattr(loss_fn, "reduction", "mean") != "mean":
        return [1.0] * len(targets)
    weights = [float(count_weight(loss_fn, target)) for target in targets]
    total = sum(weights)
    return [weight / total if total else 0.0 for weight in weights]


def _in_order(
    pool: ThreadPoolExecutor, function: Callable[[Any], Any], items: Sequence[Any]
) -> list[Any]:
    """Call at once, each call with this thread's context variables; results in order."""
    calls = [pool.submit(contextvars.copy_context().run, function, item) for item in items]
    return [call.result() for call in calls]


def _sum(values: list[Any]) -> Any:
    """Add from the first to the last, into no array that came from elsewhere."""
    rest: Iterator[Any] = iter(values)
    total = next(rest)
    for value in rest:
        total = total + value
    return total
