"""Whether query, key and value of multi-head attention fit each other."""

from typing import Any

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.module import Module, describe_layer

_NAMES = ("query", "key", "value")


def check_inputs(
    layer: Module,
    inputs: tuple[Any, Any, Any],
    widths: tuple[int, int, int],
    like: Array,
    batch_axis: int,
) -> tuple[list[Array], bool]:
    """Return query, key and value with an axis of samples, and whether they had one.

    Parameters
    ----------
    layer : Module
        Named in messages.
    inputs : tuple of array
        Query, key and value.
    widths : tuple of int
        Their features.
    like : array
        A weight: their device and dtype.
    batch_axis : {0, 1}
        Where samples lie.

    Returns
    -------
    inputs : list of array
        What was one array is one array.
    is_batched : bool

    Raises
    ------
    ValueError
        For shapes that do not fit.
    """
    checked = [layer.check_input(*pair, like) for pair in zip(_NAMES, inputs, strict=True)]
    query, key, value = (x.shape for x in checked)
    is_batched = len(query) == 3
    if (
        len(query) not in (2, 3)
        or len(key) != len(query)
        or (query[-1], key[-1], value[-1]) != widths
        or key[:-1] != value[:-1]
        or (is_batched and query[batch_axis] != key[batch_axis])
    ):
        lead = "{}, batch, " if batch_axis else "batch, {}, "
        expected = [f"({lead.format(t)}{w})" for t, w in zip("LSS", widths, strict=True)]
        raise ValueError(
            f"{describe_layer(layer)} expects query of shape {expected[0]}, key {expected[1]} "
            f"and value {expected[2]}, or all without batch; got {query}, {key} and {value}"
        )
    if is_batched:
        return checked, True
    batched: list[Array] = []
    for position, x in enumerate(checked):
        is_same = position > 0 and x is checked[position - 1]
        one = batched[-1] if is_same else get_array_module(x).expand_dims(x, batch_axis)
        batched.append(one)
    return batched, False
