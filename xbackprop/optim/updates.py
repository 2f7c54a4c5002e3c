"""What updates are made of: masks, first values, casts, weight decay."""

from typing import Any

from xbackprop.backend.array_module import Array
from xbackprop.backend.device import device_of
from xbackprop.dispatch import Op, is_observed
from xbackprop.optim.flat import FlatGroup


def masked(value: Any, finite: Any, neutral: float) -> Any:
    """Return ``value``, or ``neutral`` on the device when the step must change nothing.

    What is subtracted becomes 0.0, what is added -0.0, a factor 1.0: so every bit stays, also those
    of a zero, whatever the skipped step would have computed.
    """
    if finite is None:
        return value
    device = device_of(finite)
    return device.xp.where(finite, value, neutral)


def put(target: Array, value: Array, finite: Any) -> None:
    """Write ``value`` into ``target``; when the step must change nothing, its own bits."""
    target[...] = masked(value, finite, target)


def first(step: Any, initial: Any, value: Any) -> Any:
    """Return ``value``, or ``initial`` in the first update of a parameter."""
    if isinstance(step, int):
        return initial if step == 1 else value
    return device_of(step).xp.where(step == 1, initial, value)


def cast(value: Any, like: Array) -> Any:
    """Round float64 to the dtype of what it multiplies; plain numbers do that by themselves."""
    return float(value) if isinstance(value, (int, float)) else value.astype(like.dtype)


def weight_decay_of(flat: FlatGroup) -> Any:
    """Return the weight decay as what updates compute with; None without one."""
    value = flat.group["weight_decay"]
    return flat.scalar("weight_decay", value) if value else None


def penalized(flat: FlatGroup, data: Array, grad: Array, *, is_decoupled: bool = False) -> Array:
    """Return the gradient to descend: negated to climb, plus ``weight_decay * data`` if coupled."""
    weight_decay = None if is_decoupled else weight_decay_of(flat)
    return with_penalty(data, grad, weight_decay, bool(flat.group.get("maximize")))


def with_penalty(data: Array, grad: Array, weight_decay: Any, maximize: bool) -> Array:
    """Return the gradient, negated to climb, plus ``weight_decay * data``."""
    if maximize:
        grad = -grad
    return grad if weight_decay is None else grad + data * cast(weight_decay, data)


def changes_gradient(group: dict[str, Any]) -> bool:
    """Tell whether :func:`penalized` makes a new array."""
    is_coupled = group["weight_decay"] and not group.get("decoupled_weight_decay")
    return bool(group["maximize"] or is_coupled)


def decay(flat: FlatGroup, data: Array, lr: Any, finite: Any) -> None:
    """Take the share ``lr * weight_decay`` of the weights away: decoupled weight decay."""
    shrink(data, lr, weight_decay_of(flat), finite)


def shrink(data: Array, lr: Any, weight_decay: Any, finite: Any) -> None:
    """Multiply the weights by ``1 - lr * weight_decay`` in place; None leaves them."""
    if weight_decay is not None:
        data *= cast(masked(1 - lr * weight_decay, finite, 1.0), data)


def run_step(step: Op, *args: Any, **options: Any) -> None:
    """Call the op of a whole step, or what it is made of, so that observers see the formulas."""
    (step.reference if is_observed() else step)(*args, **options)
