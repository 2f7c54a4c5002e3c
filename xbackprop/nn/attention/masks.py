"""The masks of multi-head attention: two that PyTorch takes, one that the op takes."""

from typing import Any

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.module import Module, describe_layer
from xbackprop.ops.broadcast import sum_to_shape


def check_mask(layer: Module, name: str, mask: Any, like: Array, *shapes: tuple[int, ...]) -> Array:
    """Return a mask, and refuse one of another kind, device or shape."""
    layer.check_device(name, mask, like)
    if mask.dtype.kind != "b":
        mask = layer.check_input(name, mask, like)
    if mask.shape not in shapes:
        expected = " or ".join(map(str, shapes))
        raise ValueError(
            f"{describe_layer(layer)} expects {name} of shape {expected}; got {mask.shape}"
        )
    return mask


def broadcast_masks(
    layer: Module,
    sizes: tuple[int, int, int, int],
    is_batched: bool,
    padding: Any,
    attn_mask: Any,
    like: Array,
) -> list[Array | None]:
    """Check both masks, and return them as they broadcast to the scores.

    Parameters
    ----------
    layer : Module
        Named in messages.
    sizes : (batch, heads, queries, keys)
        Of the scores.
    is_batched : bool
        Whether the inputs came with an axis of samples.
    padding : array of shape (batch, keys) or (keys,), or None
        Which keys are hidden from every query of a sample.
    attn_mask : array of shape (queries, keys) or (batch * heads, queries, keys), or None
        Which keys are hidden from which query.
    like : array
        Says device and float dtype.

    Returns
    -------
    list of array or None
        Both, as they broadcast to ``sizes``.
    """
    batch, heads, queries, keys = sizes
    masks: list[Array | None] = [None, None]
    if padding is not None:
        shape = (batch, keys) if is_batched else (keys,)
        padding = check_mask(layer, "key_padding_mask", padding, like, shape)
        masks[0] = padding.reshape(batch, 1, 1, keys)
    if attn_mask is not None:
        shapes = ((queries, keys), (batch * heads, queries, keys))
        attn_mask = check_mask(layer, "attn_mask", attn_mask, like, *shapes)
        lead = (batch, heads) if attn_mask.ndim == 3 else (1, 1)
        masks[1] = attn_mask.reshape(*lead, queries, keys)
    return masks


def merge_masks(masks: list[Array], extra_keys: int, like: Array) -> Array | None:
    """Return one mask for the op of what hides keys (bool: where True) or is added to scores.

    Parameters
    ----------
    masks : list of array
        Each broadcasts to ``(batch, heads, queries, keys)``.
    extra_keys : int
        How many keys come after those that the masks know, which every query sees.
    like : array
        Says the dtype.

    Returns
    -------
    array or None
        Bool, True where a key is seen, or a float to add.
    """
    if not masks:
        return None
    xp = get_array_module(like)
    if all(mask.dtype.kind == "b" for mask in masks):
        merged = ~masks[0]
        for mask in masks[1:]:
            merged = merged & ~mask
    else:
        added = [xp.where(m, -xp.inf, 0).astype(like.dtype) if m.dtype.kind == "b" else m
                 for m in masks]  # fmt: skip
        merged = added[0] if len(added) == 1 else added[0] + added[1]
    if not extra_keys:
        return merged
    shape = (*merged.shape[:-1], extra_keys)
    is_bool = merged.dtype.kind == "b"
    seen = xp.ones(shape, dtype=bool) if is_bool else xp.zeros(shape, dtype=like.dtype)
    return xp.concatenate([merged, seen], axis=-1)


def split_mask_grad(
    grad: Array | None,
    masks: list[Array | None],
    shapes: list[tuple[int, ...] | None],
    keys: int,
) -> list[Array | None]:
    """Return the gradients of the masks up to the last given one: None for bool and absent ones.

    Parameters
    ----------
    grad : array or None
        Of the merged mask.
    masks : list of array or None
        As they broadcast to ``(batch, heads, queries, keys)``; None where one was not merged.
    shapes : list of tuple of int or None
        As they were given; None where one is absent.
    keys : int
        Without those that every query sees.

    Returns
    -------
    list of array or None
    """
    grads: list[Array | None] = []
    for mask, shape in zip(masks, shapes, strict=True):
        if grad is None or mask is None or shape is None or mask.dtype.kind == "b":
            grads.append(None)
        else:
            grads.append(sum_to_shape(grad[..., :keys], mask.shape).reshape(shape))
    while shapes and shapes[-1] is None:
        shapes = shapes[:-1]
    return grads[: len(shapes)]
