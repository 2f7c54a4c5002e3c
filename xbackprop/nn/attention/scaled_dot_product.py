"""The layer without weights around the op of attention."""

import math
from typing import Any

import numpy as np

from xbackprop.backend.array_module import Array
from xbackprop.backend.device import Device
from xbackprop.initializers import RandomSource
from xbackprop.module import describe_layer
from xbackprop.nn.activations import as_number
from xbackprop.nn.attention.dot_product import (
    scaled_dot_product_attention_backward,
    scaled_dot_product_attention_forward,
)
from xbackprop.nn.randomness import RandomLayer
from xbackprop.nn.sizes import as_count


class ScaledDotProductAttention(RandomLayer):
    """Mix values by how queries resemble keys, ``y = softmax(scale q k^T + mask) v``.

    Parameters
    ----------
    dropout_p : float, default 0.0
        Probability of a weight to be silenced in training, 0 to 1.
    is_causal : bool, default False
        Hide key ``j`` from query ``i`` where ``j > i``.
    scale : float, optional
        None is ``1 / sqrt(features)``.
    enable_gqa : bool, default False
        Let the key and value heads (third axis from the end) each serve as many query heads, in
        order, as there are times more of those.
    block_size : int, optional
        Queries at a time: memory is then linear in tokens, but for the one byte per score that
        dropout keeps. None takes all at once. Results agree to rounding.
    device : str or Device, optional
        Where the random counter lives; None is the default device.
    rng : Generator, int or None
        Draws the key of the random stream.

    Notes
    -----
    ``torch.nn.functional.scaled_dot_product_attention`` as a layer; its derivative is derived in
    :func:`scaled_dot_product_attention_forward`. The leading axes of ``query``, ``key`` and
    ``value`` broadcast, those of ``attn_mask`` broadcast to theirs. A bool mask says which keys a
    query sees, a float mask is added and has a gradient. A query that sees no key gives zeros and
    passes no gradient. ``backward`` returns the gradients of ``query``, ``key`` and ``value``,
    three even where one array is all of them, and, where a mask was given, its own or None.
    PyTorch refuses ``is_causal`` beside a mask; here both hide.

    References
    ----------
    Vaswani et al., "Attention is all you need", NeurIPS 2017, section 3.2.1.
    Ainslie et al., "GQA: training generalized multi-query transformer models", EMNLP 2023, for
    ``enable_gqa``.

    Examples
    --------
    >>> import xbackprop as xb
    >>> layer = xb.nn.ScaledDotProductAttention(is_causal=True)
    >>> q = k = v = xb.asarray([[1.0, 0.0], [0.0, 1.0]])
    >>> [[round(float(y), 2) for y in row] for row in xb.to_host(layer(q, k, v))]
    [[1.0, 0.0], [0.33, 0.67]]
    """

    in_half = "half"

    def __init__(
        self,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
        *,
        block_size: int | None = None,
        device: str | Device | None = None,
        rng: RandomSource = None,
    ) -> None:
        name = type(self).__name__
        self.dropout_p = as_number(name, "dropout_p", dropout_p)
        if not 0 <= self.dropout_p <= 1:
            raise ValueError(f"{name} expects dropout_p between 0 and 1; got {dropout_p}")
        self.is_causal = is_causal
        self.scale = None if scale is None else as_number(name, "scale", scale)
        self.enable_gqa = enable_gqa
        self.block_size = None
        if block_size is not None:
            self.block_size = as_count(name, "block_size", block_size, 1)
        super().__init__(device, rng)

    def forward(
        self, query: Array, key: Array, value: Array, attn_mask: Array | None = None
    ) -> tuple[Array, Any]:
        """Return what every query takes from the values."""
        self.check_random_input(query, "query")
        inputs = [query, self.check_input("key", key, query)]
        inputs.append(self.check_input("value", value, query))
        shapes = [x.shape for x in inputs]
        grouped = self._group_heads(*shapes) if self.enable_gqa else shapes
        scores_shape = self._check_shapes(grouped, shapes)
        if attn_mask is not None:
            attn_mask = self._check_mask(attn_mask, query, scores_shape)
            shapes = [*shapes, attn_mask.shape]
            if self.enable_gqa and attn_mask.ndim > 2:
                attn_mask = attn_mask.reshape(_grouped_mask(attn_mask.shape, scores_shape))
        kept, p = None, 0.0
        if self.training and self.dropout_p > 0:
            kept, p = self.draw_kept(scores_shape, self.dropout_p)
        scale = self.scale
        if scale is None:
            scale = 1 / math.sqrt(max(query.shape[-1], 1))  # of no features any scale will do
        q, k, v = (x.reshape(shape) for x, shape in zip(inputs, grouped, strict=True))
        output, saved = scaled_dot_product_attention_forward(
            q, k, v, scale, attn_mask, kept, p, self.is_causal, self.block_size
        )
        if self.enable_gqa:
            output = output.reshape(*output.shape[:-4], query.shape[-3], *output.shape[-2:])
        return output, (saved, shapes)

    def backward(
        self, grad_output: Array, saved: Any, *, input_grad: bool = True
    ) -> tuple[Array | None, ...] | None:
        """Return the gradients of query, key and value, and of a mask that was given."""
        if not input_grad:
            return None
        inner, shapes = saved
        grads = scaled_dot_product_attention_backward(
            grad_output.reshape(inner.output.shape), *inner
        )
        return tuple(
            None if grad is None else grad.reshape(shape)
            for grad, shape in zip(grads, shapes, strict=False)  # no shape of an absent mask
        )

    def _group_heads(
        self, query: tuple[int, ...], key: tuple[int, ...], value: tuple[int, ...]
    ) -> list[tuple[int, ...]]:
        """Return shapes in which query heads that share a key head lie along an axis of theirs."""
        if min(map(len, (query, key, value))) < 3 or key[-3] != value[-3] or query[-3] % key[-3]:
            raise ValueError(
                f"{describe_layer(self)} with enable_gqa expects query of shape (..., heads, L, E),"
                " key (..., groups, S, E) and value (..., groups, S, Ev), where groups divides "
                f"heads; got {query}, {key} and {value}"
            )
        groups = key[-3]
        return [
            (*query[:-3], groups, query[-3] // groups, *query[-2:]),
            *((*shape[:-2], 1, *shape[-2:]) for shape in (key, value)),
        ]

    def _check_shapes(
        self, shapes: list[tuple[int, ...]], shown: list[tuple[int, ...]]
    ) -> tuple[int, ...]:
        """Return the shape of the scores, and refuse inputs that do not fit each other."""
        query, key, value = shapes
        try:
            if min(map(len, shapes)) < 2 or query[-1] != key[-1] or key[-2] != value[-2]:
                raise ValueError
            lead = np.broadcast_shapes(query[:-2], key[:-2])
            np.broadcast_shapes(lead, value[:-2])
        except ValueError:
            raise ValueError(
                f"{describe_layer(self)} expects query of shape (..., L, E), key (..., S, E) and "
                "value (..., S, Ev), whose leading axes broadcast; got "
                f"{shown[0]}, {shown[1]} and {shown[2]}"
            ) from None
        return (*lead, query[-2], key[-2])

    def _check_mask(self, mask: Array, query: Array, scores: tuple[int, ...]) -> Array:
        """Refuse a mask that is neither bool nor of the dtype of query, or does not fit."""
        self.check_device("attn_mask", mask, query)
        if mask.dtype.kind != "b":
            mask = self.check_input("attn_mask", mask, query)
        if self.enable_gqa:
            scores = (*scores[:-4], scores[-4] * scores[-3], *scores[-2:])
        try:
            fits = mask.ndim >= 2 and np.broadcast_shapes(mask.shape, scores) == scores
        except ValueError:
            fits = False
        if not fits:
            raise ValueError(
                f"{describe_layer(self)} expects attn_mask of at least two axes that broadcasts to "
                f"{scores}; got {mask.shape}"
            )
        return mask

    def extra_repr(self) -> str:
        """Return the constructor arguments shown by ``repr``."""
        return f"dropout_p={self.dropout_p}, is_causal={self.is_causal}, scale={self.scale}"


def _grouped_mask(mask: tuple[int, ...], scores: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of a mask whose axis of heads is split as that of the scores is."""
    heads = (1, 1) if mask[-3] == 1 else scores[-4:-2]
    return (*mask[:-3], *heads, *mask[-2:])
