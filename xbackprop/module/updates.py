"""What becomes of the state that a call updates, when the batch turns out to be no good."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from xbackprop.backend.array_module import Array, get_array_module, is_device_array
from xbackprop.module.frame import current_frame
from xbackprop.module.parameter import Parameter
from xbackprop.ops.joining import join

if TYPE_CHECKING:
    from xbackprop.module.base import Module

Update = tuple[tuple[int, str], "Module | Parameter", str, Array, Array]


def updates_stay_finite() -> Any:
    """Tell whether the running call leaves finite what it changes and what was finite before.

    A variance may overflow where the loss does not: all that is divided by it becomes zero. What
    was NaN or infinite before has no say.

    Returns
    -------
    bool or device scalar of bool
    """
    pairs = [
        (get_array_module(kept).broadcast_to(array, kept.shape).reshape(-1), kept.reshape(-1))
        for _, _, _, array, kept in _persistent_updates()
        if kept.dtype.kind in "fc"
    ]
    if not pairs:
        return True
    xp = get_array_module(pairs[0][0])
    new, old = (join(arrays) for arrays in zip(*pairs, strict=True))  # fewer kernels
    finite = (xp.isfinite(new) | ~xp.isfinite(old)).all()
    return finite if is_device_array(finite) else bool(finite)


def withhold_updates(finite: Any) -> None:
    """Let the running call leave buffers and parameters as they are where ``finite`` is False.

    Running statistics of a batch that gave no finite loss are no statistics, and a count of batches
    that they do not hold would spoil their average. Random counters, which are not persistent, move
    on: their next draw shall be another one.

    Parameters
    ----------
    finite : None, bool or device scalar of bool
        None is True: everything is committed.
    """
    if finite is None or finite is True:
        return
    updates = current_frame().updates
    for key, owner, name, array, kept in _persistent_updates():
        if finite is False:
            del updates[key]
        else:
            updates[key] = owner, name, get_array_module(array).where(finite, array, kept)
        if isinstance(owner, Parameter):
            owner.value = kept if finite is False else updates[key][2]


def _persistent_updates() -> Iterator[Update]:
    """Yield the running call's updates of lasting state, each with the value kept so far."""
    for key, (owner, name, array) in list(current_frame().updates.items()):
        if isinstance(owner, Parameter):
            yield key, owner, name, array, owner.data
            continue
        is_counter = name in owner.__dict__.get("_extra_buffers", ())
        if not is_counter and not isinstance(array, Parameter):  # one that was created lazily
            yield key, owner, name, array, owner.__dict__["_buffers"][name]
