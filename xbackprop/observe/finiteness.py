"""NaN and infinity among an op's arguments and results: found on the device, told on the host."""

import inspect
import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from xbackprop.backend.array_module import get_array_module, is_array
from xbackprop.backend.device import device_of
from xbackprop.backend.transfer import to_host
from xbackprop.dispatch import OpCall
from xbackprop.observe.record import is_update

Named = list[tuple[str, Any]]


def named_arguments(call: OpCall) -> Named:
    """Return an op's arguments with the names of its parameters."""
    bound = inspect.signature(call.op.reference).bind(*call.args, **call.options)
    return list(bound.arguments.items())


def named_results(call: OpCall, result: Any) -> Named:
    """Return what an op has computed, with the names of its formula.

    An update has computed what it was given to write into.
    """
    if is_update(call.op):
        return named_arguments(call)
    if _has_saved(call, result):
        return [("output", result[0])]
    parts = result if isinstance(result, tuple) else (result,)
    names = [text.partition("=")[0].strip() for text in (call.op.formula or "").split(";")]
    if len(names) != len(parts) or not all(names):
        names = [f"result[{place}]" for place in range(len(parts))]
    return list(zip(names, parts, strict=True))


def named_saved(call: OpCall, result: Any) -> Named:
    """Return what a forward has saved."""
    if not _has_saved(call, result):
        return []
    names = getattr(result[1], "_fields", range(len(result[1])))
    return [(f"saved {name}", value) for name, value in zip(names, result[1], strict=True)]


def _has_saved(call: OpCall, result: Any) -> bool:
    return call.op.name.endswith("_forward") and isinstance(result, tuple) and len(result) == 2


def floats(named: Iterable[tuple[str, Any]]) -> Named:
    """Return the float arrays and numbers, those of tuples one by one."""
    found: Named = []
    for name, value in named:
        if isinstance(value, (tuple, list)):
            found += floats((f"{name}[{place}]", part) for place, part in enumerate(value))
        elif isinstance(value, float) or (
            (is_array(value) or isinstance(value, np.generic)) and value.dtype.kind == "f"
        ):
            found.append((name, value))
    return found


def all_finite(value: Any) -> Any:
    """Tell whether all numbers are finite: a bool, or on a device a scalar of bool there."""
    if isinstance(value, float):
        return math.isfinite(value)
    with device_of(value).activate():
        return get_array_module(value).isfinite(value).all()


def no_nan(value: Any) -> Any:
    """Tell whether no number is NaN: a bool, or on a device a scalar of bool there."""
    if isinstance(value, float):
        return not math.isnan(value)
    with device_of(value).activate():
        return ~get_array_module(value).isnan(value).any()


def told_bad(named: Iterable[tuple[str, Any]], only: str | None = None) -> str:
    """Say how many NaN and infinities an array holds, and where the first one is.

    Parameters
    ----------
    named : iterable of (str, object)
        Arguments or results.
    only : str or None
        The one to tell of; None is the first that holds any.

    Returns
    -------
    str
    """
    for name, value in floats(named):
        host = np.asarray(to_host(value) if is_array(value) else value)
        bad = ~np.isfinite(host)
        if not bad.any() or only not in (None, name):
            continue
        if host.ndim == 0:
            return f"{name} is {host}"
        index = ", ".join(str(place) for place in np.argwhere(bad)[0])
        counts = [(int(np.isnan(host).sum()), "NaN"), (int(np.isinf(host).sum()), "infinite")]
        told = " and ".join(f"{count} {word}" for count, word in counts if count)
        return f"{name} of shape {host.shape} has {told}, the first at [{index}]"
    return "not to be seen any more"


def told_range(name: str, value: Any) -> str:
    """Say shape, dtype and range of an argument."""
    host = np.asarray(to_host(value) if is_array(value) else value)
    if host.ndim == 0:
        return f"{name} {host:.4g}" if host.dtype.kind == "f" else f"{name} {host}"
    finite = host[np.isfinite(host)]
    span = f"from {finite.min():.4g} to {finite.max():.4g}" if finite.size else "without a number"
    count = host.size - finite.size
    return f"{name} {host.shape} {host.dtype} {span}" + (f", {count} not finite" if count else "")
