"""Out of memory: free what the pool keeps, try once more, then say which batch would fit."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from xbackprop.backend.array_module import is_array, is_device_array
from xbackprop.backend.device import Device, device_of
from xbackprop.backend.memory import (
    DeviceMemoryError,
    free_unused_memory,
    is_out_of_memory,
    measure_need,
    memory_state,
)

Result = TypeVar("Result")
_TRIES = 6  # batches measured at most; each halves what is not known


@dataclass(frozen=True)
class Attempt:
    """What is told and measured of a computation that ran out of memory.

    Parameters
    ----------
    what : str
        Names it: ``"a training step"``.
    inputs : tuple of arrays
        One batch; the first axis of each is taken for its samples.
    rehearse : callable or None
        Given those inputs with fewer samples, computes the same and leaves no trace; None when
        nothing may be computed now, and nothing is measured then.
    kept : str
        What holds after the failure: ``"The weights are unchanged."``
    """

    what: str
    inputs: tuple[Any, ...]
    rehearse: Callable[..., object] | None
    kept: str = ""


@dataclass(frozen=True)
class _Need:
    """Bytes as a straight line through what two batches took, and the batch found to fit."""

    fixed: float
    per_sample: float
    measured: tuple[int, ...]
    fits: int


def within_memory(
    compute: Callable[[], Result],
    attempt: Callable[[], Attempt],
    inputs: tuple[Any, ...],
    may_retry: Callable[[], bool] = lambda: True,
) -> Result:
    """Compute; on a GPU that is full, once more after freeing what its pool keeps.

    Parameters
    ----------
    compute : callable
        Changes nothing when it fails.
    attempt : callable
        Describes it, after it failed for good.
    inputs : tuple of arrays
        The first array on a device says on which.
    may_retry : callable
        Asked after a failure: whether all is as before it.

    Returns
    -------
    object
        What ``compute`` returned.

    Raises
    ------
    DeviceMemoryError
        When there is no room; says what is used, pooled, there and needed, and a batch that fits.
    """
    place = next((device_of(array) for array in inputs if is_device_array(array)), None)
    if place is None:
        return compute()
    try:
        return compute()
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error, place):
            raise
    # Here the traceback is gone, which kept the arrays of the attempt alive.
    free_unused_memory(place)
    if may_retry():
        try:
            return compute()
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error, place):
                raise
    raise _explain(place, attempt())


def _explain(device: Device, attempt: Attempt) -> DeviceMemoryError:
    free_unused_memory(device, collect=False)
    samples = _count_samples(attempt.inputs)
    need = None
    if attempt.rehearse is not None and samples is not None:
        need = _measure(device, attempt.inputs, samples, attempt.rehearse)
        free_unused_memory(device, collect=False)
    state = memory_state(device)
    others = state.total - state.used - state.pooled - state.available
    parts = [
        f"out of memory on {device} in {attempt.what}"
        + (f" of {samples} samples" if samples is not None else "")
        + f", also after freeing what the pool kept: {_text(state.used)} used, "
        f"{_text(state.pooled)} pooled, {_text(state.total)} in all"
        + (f", {_text(others)} of it taken by others" if others > 0 else "")
        + "."
    ]
    if need is not None:
        parts.append(_advice(need, samples or 0))
    if attempt.kept:
        parts.append(attempt.kept)
    error = DeviceMemoryError(" ".join(parts))
    if need is not None:
        error.batch_size = need.fits
        if need.measured:
            error.needed_bytes = round(need.fixed + need.per_sample * (samples or 0))
    return error


def _advice(need: _Need, samples: int) -> str:
    if not need.measured:
        return "Not even one sample fits: use a smaller model or free arrays."
    total = _text(round(need.fixed + need.per_sample * samples))
    line = f"{_text(round(need.per_sample))} a sample and {_text(round(need.fixed))} besides"
    sizes = " and ".join(map(str, sorted(need.measured)))
    return (
        f"It needs about {total} more than was held before it. A batch of {need.fits} fits "
        f"(measured with {sizes} samples: {line})."
    )


def _measure(
    device: Device, inputs: tuple[Any, ...], samples: int, rehearse: Callable[..., object]
) -> _Need | None:
    """Look for a batch that fits by trying: half the samples, then halves of what is open.

    None where the computation refuses smaller batches.
    """

    def need_of(size: int) -> int | None:
        try:
            return measure_need(device, lambda: rehearse(*_first(inputs, size)))
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error, device):
                raise
        return None

    measured: dict[int, int] = {}
    fits, fails, size = 0, samples, samples // 2
    try:
        while fits < size < fails and len(measured) < _TRIES:
            need = need_of(size)
            if need is None:
                fails = size
            else:
                fits, measured[size] = size, need
            size = (fits + fails) // 2
        if len(measured) == 1 and fits > 1:
            measured[fits // 2] = need_of(fits // 2) or measured[fits] // 2
    except Exception:  # noqa: BLE001 - a model need not take so few samples; the cause is told
        if not measured:
            return None
    return _line(measured)


def _line(measured: dict[int, int]) -> _Need:
    """Put a line through the largest batch that fitted and the smallest one of half its size."""
    if not measured:
        return _Need(0.0, 0.0, (), 0)
    largest = max(measured)
    smallest = min((size for size in measured if 2 * size >= largest - 1), default=largest)
    if largest > smallest:
        per_sample = (measured[largest] - measured[smallest]) / (largest - smallest)
    else:
        per_sample = measured[largest] / largest
    fixed = measured[largest] - per_sample * largest
    return _Need(fixed, per_sample, (smallest, largest), largest)


def _count_samples(inputs: tuple[Any, ...]) -> int | None:
    """Return the common length of all inputs; None where they have none."""
    lengths = {array.shape[0] if is_array(array) and array.ndim else None for array in inputs}
    return lengths.pop() if len(lengths) == 1 else None


def _first(inputs: tuple[Any, ...], size: int) -> tuple[Any, ...]:
    return tuple(array[:size] for array in inputs)


def _text(size_bytes: int) -> str:
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size_bytes >= size:
            return f"{size_bytes / size:.1f} {unit}"
    return f"{size_bytes} bytes"
