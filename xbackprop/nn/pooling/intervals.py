"""Adaptive pooling's windows: a number of intervals is given, not their size."""

import math
from typing import Any, ClassVar

from xbackprop.backend.array_module import Array
from xbackprop.module import Module, describe_layer
from xbackprop.nn.activations import check_float
from xbackprop.nn.padding.widths import check_image


def interval_steps(xp: Any, length: int, size: int) -> list[tuple[Array, Array]]:
    """Return for each step into the intervals where it leads, and which intervals are so long.

    Interval ``o`` of ``size`` in ``length`` elements is ``floor(o n / m)`` to
    ``ceil((o + 1) n / m)``.
    """
    numbers = xp.arange(size)
    start, stop = numbers * length // size, -((numbers + 1) * -length // size)
    period = size // math.gcd(size, length) if size else 0
    longest = max(
        (-((o + 1) * -length // size) - o * length // size for o in range(period)), default=1
    )
    return [(xp.minimum(start + step, length - 1), start + step < stop) for step in range(longest)]


class Adaptive(Module):
    """What adaptive pooling of one to three axes shares."""

    spatial_axes: ClassVar[int]

    def __init__(self, output_size: int | tuple[int | None, ...]) -> None:
        name, ndim = type(self).__name__, self.spatial_axes
        given: Any = (
            output_size if isinstance(output_size, (tuple, list)) else (output_size,) * ndim
        )
        if len(given) != ndim:
            raise ValueError(f"{name} expects output_size of one int or {ndim}; got {len(given)}")
        for size in given:
            if size is None and ndim > 1 and output_size is not None:
                continue
            if isinstance(size, bool) or not isinstance(size, int):
                raise TypeError(
                    f"{name} expects output_size of ints{' or None' * (ndim > 1)}; got "
                    f"{type(size).__name__}"
                )
            if size < 0:
                raise ValueError(f"{name} expects output_size >= 0; got {size}")
        self.output_size = output_size

    def sizes_for(self, x: Array) -> tuple[int, ...]:
        """Check the input and return the output's size along the last axes."""
        check_float(self, x)
        check_image(self, x.shape, self.spatial_axes)
        spatial = x.shape[-self.spatial_axes :]
        if not all(spatial):
            raise ValueError(f"{describe_layer(self)} has nothing to pool in x of shape {x.shape}")
        is_tuple = isinstance(self.output_size, (tuple, list))
        given: Any = self.output_size if is_tuple else (self.output_size,) * self.spatial_axes
        return tuple(
            length if size is None else size for size, length in zip(given, spatial, strict=True)
        )

    def extra_repr(self) -> str:
        """Return the constructor arguments shown by ``repr``."""
        return f"output_size={self.output_size}"
