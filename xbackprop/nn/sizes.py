"""Arguments that are counts or sizes: what layers take for one, and what they refuse."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def as_count(layer: str, name: str, value: Any, least: int) -> int:
    """Return a constructor's argument as int, and refuse what is none or too small."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{layer} expects {name} to be an int; got {type(value).__name__}")
    if value < least:
        raise ValueError(f"{layer} expects {name} >= {least}; got {value}")
    return int(value)


def as_sizes(layer: str, name: str, value: Any, axes: int, least: int) -> tuple[int, ...]:
    """Return a constructor's argument, a number or a sequence of them, as one int an axis."""
    values = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    counts = tuple(as_count(layer, name, number, least) for number in values)
    if isinstance(value, Sequence) and len(counts) != axes:
        raise ValueError(f"{layer} expects {name} to be an int or {axes} ints; got {value}")
    return counts if isinstance(value, Sequence) else counts * axes
