"""What a notebook shows of a module and of a parameter."""

from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.backend.device import device_of
from xbackprop.backend.transfer import to_host
from xbackprop.module.lazy import UninitializedParameter
from xbackprop.module.parameter import Parameter

if TYPE_CHECKING:
    from xbackprop.module.base import Module

_COLUMNS = ("", "layer", "parameters", "count", "dtype", "device")


def module_html(module: "Module") -> str:
    """Return a table of layers that can be folded; nothing is transferred for it."""
    parameters = list(module.parameters())
    count = sum(parameter.size for parameter in parameters)
    frozen = sum(parameter.size for parameter in parameters if not parameter.requires_grad)
    summary = f"{type(module).__name__}: {count:,} parameters"
    summary += f", {frozen:,} of them frozen" if frozen else ""
    head = "".join(f"<th{_LEFT}>{column}</th>" for column in _COLUMNS)
    return (
        f"<details open><summary>{escape(summary)}</summary><table><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(_rows(module))}</tbody></table></details>"
    )


_LEFT = ' style="text-align:left"'


def _rows(module: "Module") -> Iterator[str]:
    """Yield a row for each layer; a shared parameter counts where it is first met."""
    seen: set[int] = set()
    for path, layer in module.named_modules():
        own = [(name, p) for name, p in layer.own_parameters() if id(p) not in seen]
        shared = [name for name, p in layer.own_parameters() if id(p) in seen]
        seen.update(id(parameter) for _, parameter in own)
        described = [f"{name} {_shape(parameter)}" for name, parameter in own]
        described += [f"{name} (shared)" for name in shared]
        children = any(True for _ in layer.children())
        cells = [
            path,
            type(layer).__name__ + ("" if children else f"({layer.extra_repr()})"),
            ", ".join(described),
            f"{sum(parameter.size for _, parameter in own):,}" if own else "",
            ", ".join(dict.fromkeys(str(parameter.dtype) for _, parameter in own)),
            ", ".join(dict.fromkeys(str(parameter.device) for _, parameter in own)),
        ]
        yield "<tr>" + "".join(f"<td{_LEFT}>{escape(cell)}</td>" for cell in cells) + "</tr>"


def _shape(parameter: Parameter | UninitializedParameter) -> str:
    if isinstance(parameter, UninitializedParameter):
        return f"({', '.join('?' if n is None else str(n) for n in parameter.expected)})"
    return str(parameter.shape) + ("" if parameter.requires_grad else " frozen")


def parameter_html(parameter: Parameter) -> str:
    """Return what ``repr`` says, and a few numbers, which together are one download."""
    cells = {"shape": str(parameter.shape), "dtype": str(parameter.dtype)}
    cells["device"] = str(parameter.device) + ("" if parameter.requires_grad else ", frozen")
    if parameter.size:
        numbers = to_host(_numbers(parameter.data, parameter.grad))
        names = ("norm", "smallest", "largest", "norm of grad")
        cells |= {name: f"{value:.6g}" for name, value in zip(names, numbers, strict=False)}
    head = "".join(f"<th{_LEFT}>{name}</th>" for name in cells)
    body = "".join(f"<td{_LEFT}>{escape(cell)}</td>" for cell in cells.values())
    return f"<table><thead><tr>{head}</tr></thead><tbody><tr>{body}</tr></tbody></table>"


def _numbers(data: Array, grad: Array | None) -> Array:
    xp = get_array_module(data)
    with device_of(data).activate(), np.errstate(all="ignore"):
        wide = data.astype(np.float64)
        found = [_norm(wide), xp.min(wide), xp.max(wide)]
        if grad is not None:
            found.append(_norm(grad.astype(np.float64)))
        return xp.stack(found)


def _norm(array: Array) -> Array:
    """Return the norm by shares of the largest element, whose squares cannot overflow."""
    xp = get_array_module(array)
    largest = xp.max(xp.abs(array))
    is_plain = (largest > 0) & (largest < np.inf)
    share = array / xp.where(is_plain, largest, 1.0)
    return xp.where(is_plain, largest, 1.0) * xp.sqrt(xp.sum(share * share))
