"""What an optimizer does on the host around a step whose device part is recorded and replayed."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from xbackprop.backend.array_module import Array, is_array
from xbackprop.module.parameter import clock
from xbackprop.optim.optimizer import Optimizer
from xbackprop.optim.state_dict import SCHEDULE_OPTIONS


class HostCounts(NamedTuple):
    """The host's counts of steps, to be put back when a step could not be recorded."""

    calls: int
    counts: list[list[int]]


def read_counts(optimizer: Optimizer) -> HostCounts:
    """Return the host's counts."""
    return HostCounts(optimizer.calls, [list(flat.counts) for flat in optimizer.flats])


def restore_counts(optimizer: Optimizer, counts: HostCounts) -> None:
    """Put the host's counts back."""
    optimizer.calls = counts.calls
    for flat, earlier in zip(optimizer.flats, counts.counts, strict=True):
        flat.counts = list(earlier)


def fill_scalars(optimizer: Optimizer) -> None:
    """Write what the next step reads from the host, learning rate and number, to the device."""
    for flat in optimizer.flats:
        with flat.device.activate():
            if "lr" in flat.scalars:
                flat.scalar("lr", flat.group["lr"])
            if "call" in flat.scalars:
                flat.scalar("call", optimizer.calls + 1, np.int64)


def count_replay(optimizer: Optimizer) -> None:
    """Count a step that a replay has made, as :meth:`Optimizer.step` does."""
    optimizer.calls += 1
    time = clock.tick()
    for flat in optimizer.flats:
        for index, parameter in enumerate(flat.parameters):
            if parameter.has_grad:
                flat.counts[index] += 1
                parameter.version = time


def living_arrays(optimizer: Optimizer) -> dict[str, Array]:
    """Return every device array that outlives a step, by a name that explains it."""
    found: dict[str, Any] = {
        "the optimizer's first skipped step": optimizer._bad_call,
        "the optimizer's skipped steps": optimizer._skipped,
    }
    for number, flat in enumerate(optimizer.flats):
        group = f"the optimizer's group {number}"
        found |= {f"{group}, data": flat.data, f"{group}, grad": flat.grad}
        if flat.half is not None:
            found[f"{group}, data in half precision"] = flat.half
        found |= {f"{group}, {name}": array for name, array in flat.state.items()}
        found |= {f"{group}, {name}": known[1] for name, known in flat.scalars.items()}
        for index, (step, views) in enumerate(zip(flat.steps, flat.views, strict=True)):
            found[f"{group}, step of parameter {index}"] = step
            found |= {f"{group}, {name} of parameter {index}": x for name, x in views.items()}
    return {name: array for name, array in found.items() if is_array(array)}


def fingerprint(optimizer: Optimizer) -> list[Any]:
    """Return what a recorded step has taken from the host: storage, options, and who takes part."""
    marks: list[Any] = [optimizer.skip_nonfinite, optimizer.stop_at_nonfinite]
    for flat in optimizer.flats:
        marks += [id(flat), flat.is_current()]
        is_free: Callable[[str], bool] = {
            *SCHEDULE_OPTIONS, "params", *({"lr"} & flat.scalars.keys())
        }.__contains__  # fmt: skip
        marks += [(name, value) for name, value in flat.group.items() if not is_free(name)]
    return marks
