"""The argument ``padding``: PyTorch's order of widths, and theirs along the axes of an input."""

from typing import Any

from xbackprop.module import Module, describe_layer

# Elements before and after, one pair an axis; below zero that many are taken away.
Widths = tuple[tuple[int, int], ...]


def check_padding(layer: str, padding: Any, ndim: int) -> tuple[int, ...]:
    """Return ``2 ndim`` widths; one int stands for all of them."""
    given = padding if isinstance(padding, (tuple, list)) else (padding,) * 2 * ndim
    for width in given:
        if isinstance(width, bool) or not isinstance(width, int):
            raise TypeError(
                f"{layer} expects padding of ints, one or {2 * ndim}; got {type(width).__name__}"
            )
    if len(given) != 2 * ndim:
        raise ValueError(
            f"{layer} expects padding of one int or of {2 * ndim}, before and after each axis "
            f"from the last one on; got {len(given)}"
        )
    return tuple(given)


def widths_of(padding: tuple[int, ...]) -> Widths:
    """Return PyTorch's widths, which start at the last axis, in the order of the axes."""
    return tuple(zip(padding[::2], padding[1::2], strict=True))[::-1]


def check_image(layer: Module, shape: tuple[int, ...], ndim: int) -> None:
    """Refuse an input that is no image of ``ndim`` axes with channels, nor a batch of them."""
    if len(shape) not in (ndim + 1, ndim + 2):
        axes = ", ".join(("depth", "height", "width")[-ndim:] if ndim > 1 else ("length",))
        raise ValueError(
            f"{describe_layer(layer)} expects x of shape (batch, channels, {axes}) or "
            f"(channels, {axes}); got {shape}"
        )
