"""Windows of pooling: what the arguments say, and which elements stand at a kernel's offset."""

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.module import Module, describe_layer
from xbackprop.nn.sizes import as_count

Key = tuple[Any, ...]


class Window(NamedTuple):
    """The windows along one axis: output ``o`` reads ``x[o stride + k dilation - padding]``."""

    kernel_size: int
    stride: int
    padding: int
    dilation: int
    outputs: int


def check_ints(layer: str, name: str, value: Any, ndim: int, least: int) -> Any:
    """Refuse a constructor's argument that is no int, or one int per axis, from ``least`` on."""
    given = value if isinstance(value, (tuple, list)) else (value,)
    counts = tuple(as_count(layer, name, number, least) for number in given)
    if len(counts) not in (1, ndim):
        raise ValueError(f"{layer} expects {name} of one int or {ndim}; got {len(counts)}")
    return counts if given is value else counts[0]


def check_padding(layer: str, padding: Any, kernel_size: Any, ndim: int) -> Any:
    """Refuse more padding than half a kernel, which windows of nothing would have."""
    check_ints(layer, "padding", padding, ndim, 0)
    for width, kernel in zip(per_axis(padding, ndim), per_axis(kernel_size, ndim), strict=True):
        if width > kernel // 2:
            raise ValueError(
                f"{layer} expects padding of at most half the kernel; got padding={padding} and "
                f"kernel_size={kernel_size}"
            )
    return padding


def per_axis(value: Any, ndim: int) -> tuple[int, ...]:
    """Return one number for every axis."""
    given = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    return given * ndim if len(given) == 1 else given


def windows_of(
    layer: Module,
    shape: tuple[int, ...],
    ndim: int,
    kernel_size: Any,
    stride: Any,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
) -> tuple[Window, ...]:
    """Return the windows along the last ``ndim`` axes; refuse an input without room for one.

    With ``ceil_mode`` a last window may stand out at the end, if it starts before it.
    """
    numbers = zip(
        *(per_axis(value, ndim) for value in (kernel_size, stride, padding, dilation)), strict=True
    )
    found = []
    for length, (kernel, step, width, spread) in zip(shape[-ndim:], numbers, strict=True):
        room = length + 2 * width - spread * (kernel - 1) - 1
        outputs = (room + (step - 1 if ceil_mode else 0)) // step + 1
        if ceil_mode and (outputs - 1) * step >= length + width:
            outputs -= 1
        if outputs < 1 or not length:
            raise ValueError(
                f"{describe_layer(layer)} with kernel_size={kernel_size} has no room in x of "
                f"shape {shape}. Make the image larger or the kernel smaller."
            )
        found.append(Window(kernel, step, width, spread, outputs))
    return tuple(found)


def offsets(spatial: tuple[int, ...], windows: tuple[Window, ...]) -> Iterator[tuple[Key, Key]]:
    """Yield, for every offset in the kernel, which outputs read which elements there.

    Both are slices of one shape. Outputs whose window has padding at the offset are not among
    them. No element stands twice in a slice, so a gradient may be added to it.
    """
    axes = [list(_along(length, window)) for length, window in zip(spatial, windows, strict=True)]
    for parts in itertools.product(*axes):
        yield (..., *(output for output, _ in parts)), (..., *(source for _, source in parts))


def _along(length: int, window: Window) -> Iterator[tuple[slice, slice]]:
    for number in range(window.kernel_size):
        shift = number * window.dilation - window.padding
        first = max(0, -(shift // window.stride))
        last = min(window.outputs - 1, (length - 1 - shift) // window.stride)
        if first <= last:
            start, stop = first * window.stride + shift, last * window.stride + shift + 1
            yield slice(first, last + 1), slice(start, stop, window.stride)


def grad_of_maxima(grad_output: Any, indices: Array, dtype: Any) -> Array:
    """Return the gradient of maxima that came alone or with their indices, which have none."""
    grad = grad_output[0] if isinstance(grad_output, tuple) else grad_output
    if grad is None:  # only the indices were used
        return get_array_module(indices).zeros(indices.shape, dtype=dtype)
    return grad
