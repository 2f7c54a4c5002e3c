"""Multi-head attention: projections, attention in every head, and the projection of all heads."""

import math
from typing import Any, NamedTuple

import numpy as np

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.backend.device import Device
from xbackprop.backend.half import widened
from xbackprop.initializers import (
    RandomSource,
    as_generator,
    float_dtype,
    initial,
    normal,
    xavier_uniform,
)
from xbackprop.module import Parameter, describe_layer
from xbackprop.nn.activations import as_number
from xbackprop.nn.attention.checks import check_inputs
from xbackprop.nn.attention.dot_product import (
    scaled_dot_product_attention_backward,
    scaled_dot_product_attention_forward,
)
from xbackprop.nn.attention.heads import join_heads, split_heads, with_extra_keys
from xbackprop.nn.attention.masks import broadcast_masks, merge_masks, split_mask_grad
from xbackprop.nn.attention.projection import project, project_backward
from xbackprop.nn.attention.weighted import weighted_attention_backward, weighted_attention_forward
from xbackprop.nn.linear import Linear
from xbackprop.nn.randomness import RandomLayer
from xbackprop.nn.sizes import as_count
from xbackprop.ops.matmul import sum_rows


class _Saved(NamedTuple):
    """What backward needs of a call; ``masks`` and their shapes as they were given."""

    projections: Any
    attention: Any
    out_proj: Any
    masks: list[Array | None]
    mask_shapes: list[tuple[int, ...] | None]
    shows_weights: bool
    averages: bool
    is_batched: bool


class MultiheadAttention(RandomLayer):
    """Attention in several heads, ``y = concatenate(O_1, ..., O_h) W_o^T + b_o``.

    Head ``i`` has ``O_i = softmax(Q_i K_i^T / sqrt(d) + mask) V_i`` with the ``i``-th ``d =
    embed_dim / num_heads`` features of ``Q = query W_q^T + b_q``, of ``K`` and of ``V``.

    Parameters
    ----------
    embed_dim : int
        Features of query and output.
    num_heads : int
        Divides ``embed_dim``.
    dropout : float, default 0.0
        Probability of a weight to be silenced in training, 0 to 1.
    bias : bool, default True
        False leaves the biases of all projections out.
    add_bias_kv : bool, default False
        Put a trained key and value behind those of the input.
    add_zero_attn : bool, default False
        Put a key and value of zeros behind those.
    kdim, vdim : int, optional
        Features of key and value; None is ``embed_dim``. The weights of the three projections are
        one parameter when all are equal, else three.
    batch_first : bool, default False
        Batched arrays are ``(batch, time, features)``, else ``(time, batch, features)``.
    block_size : int, optional
        Queries at a time where no weights are asked for: memory is then linear in tokens, see
        :class:`ScaledDotProductAttention`.
    device : str or Device, optional
        Where the parameters live; None is the default device.
    dtype : dtype, optional
        float32 (None) or float64.
    rng : Generator, int or None
        Draws the initial values as PyTorch does, and the key of the random stream of dropout.

    Attributes
    ----------
    in_proj_weight : Parameter, shape (3 * embed_dim, embed_dim), or None
    q_proj_weight, k_proj_weight, v_proj_weight : Parameter or None
        Of ``embed_dim`` rows; there when ``in_proj_weight`` is not.
    in_proj_bias : Parameter, shape (3 * embed_dim,), or None
    bias_k, bias_v : Parameter, shape (1, 1, embed_dim), or None
    out_proj : Linear

    Notes
    -----
    ``forward`` returns ``(attn_output, attn_output_weights)``, whose second is None without
    ``need_weights``; the gradient of either may be None. ``backward`` returns the gradients of
    query, key and value, three even where one array is all of them (its gradient is their sum), and
    of the masks that were given, None for bool ones. The derivative of attention is derived in
    :func:`scaled_dot_product_attention_forward`, with weights in
    :func:`weighted_attention_forward`.

    In masks True hides, as in PyTorch, where a float is added. A query that sees no key gives NaN
    with weights, and takes nothing without, as in PyTorch. ``is_causal`` is PyTorch's hint: without
    weights and key padding ``attn_mask`` is then not read, and query ``i`` sees keys up to ``i``.

    References
    ----------
    Vaswani et al., "Attention is all you need", NeurIPS 2017, section 3.2.2.

    Examples
    --------
    >>> import xbackprop as xb
    >>> layer = xb.nn.MultiheadAttention(4, 2, batch_first=True, rng=0)
    >>> x = xb.asarray([[[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]]])
    >>> output, weights = layer(x, x, x)
    >>> output.shape, weights.shape
    ((1, 2, 4), (1, 2, 2))
    """

    in_half = "half"

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        *,
        block_size: int | None = None,
        device: str | Device | None = None,
        dtype: Any = None,
        rng: RandomSource = None,
    ) -> None:
        name = type(self).__name__
        self.embed_dim = as_count(name, "embed_dim", embed_dim, 1)
        self.num_heads = as_count(name, "num_heads", num_heads, 1)
        if embed_dim % num_heads:
            raise ValueError(
                f"{name} expects num_heads to divide embed_dim; got embed_dim={embed_dim} and "
                f"num_heads={num_heads}"
            )
        self.kdim = embed_dim if kdim is None else as_count(name, "kdim", kdim, 0)
        self.vdim = embed_dim if vdim is None else as_count(name, "vdim", vdim, 0)
        self.dropout = as_number(name, "dropout", dropout)
        if not 0 <= self.dropout <= 1:
            raise ValueError(f"{name} expects dropout between 0 and 1; got {dropout}")
        self.add_zero_attn = add_zero_attn
        self.batch_first = batch_first
        self.block_size = block_size
        if block_size is not None:
            self.block_size = as_count(name, "block_size", block_size, 1)
        generator = as_generator(rng)
        self._make_parameters(bias, add_bias_kv, device, dtype, generator)
        super().__init__(device, generator)

    def _make_parameters(
        self, bias: bool, add_bias_kv: bool, device: Any, dtype: Any, rng: Any
    ) -> None:
        width, made = self.embed_dim, {"rng": rng, "dtype": dtype, "device": device}

        def glorot(rows: int, features: int) -> Parameter:
            return Parameter(xavier_uniform((rows, features), features, rows, **made))

        def zeros(length: int) -> Parameter:
            chosen = float_dtype(dtype)
            return Parameter(initial((length,), chosen, lambda: np.zeros(length), device))

        is_packed = self.kdim == self.vdim == width
        self.in_proj_weight = glorot(3 * width, width) if is_packed else None
        self.q_proj_weight = None if is_packed else glorot(width, width)
        self.k_proj_weight = None if is_packed else glorot(width, self.kdim)
        self.v_proj_weight = None if is_packed else glorot(width, self.vdim)
        self.in_proj_bias = zeros(3 * width) if bias else None
        self.bias_k: Parameter | None = None
        self.bias_v: Parameter | None = None
        if add_bias_kv:
            deviation = math.sqrt(1 / width)  # PyTorch counts width inputs and width outputs
            self.bias_k = Parameter(normal((1, 1, width), deviation, **made))
            self.bias_v = Parameter(normal((1, 1, width), deviation, **made))
        self.out_proj = Linear(width, width, bias, **made)
        if bias:
            self.out_proj.bias = zeros(width)

    def reset_parameters(self, rng: RandomSource = None) -> None:
        """Draw the initial values and the key of the random stream anew."""
        fresh = MultiheadAttention(
            self.embed_dim,
            self.num_heads,
            bias=self.in_proj_bias is not None,
            add_bias_kv=self.bias_k is not None,
            kdim=self.kdim,
            vdim=self.vdim,
            device=self.device,
            dtype=self.dtype,
            rng=rng,
        )
        self.load_state_dict({name: p.data for name, p in fresh.named_parameters()})
        self.load_extra_state(fresh.extra_state())

    def forward(
        self,
        query: Array,
        key: Array,
        value: Array,
        key_padding_mask: Array | None = None,
        need_weights: bool = True,
        attn_mask: Array | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[tuple[Array, Array | None], Any]:
        """Return what every query takes from the values, and how much from each."""
        widths = (self.embed_dim, self.kdim, self.vdim)
        like, axis = self.out_proj.weight.value, self._batch_axis
        inputs, is_batched = check_inputs(self, (query, key, value), widths, like, axis)
        if is_causal and attn_mask is None:
            raise ValueError(
                f"{describe_layer(self)} expects attn_mask beside is_causal, which is a hint of "
                "what is in it"
            )
        is_causal = is_causal and key_padding_mask is None and not need_weights
        batch, queries = inputs[0].shape[axis], inputs[0].shape[1 - axis]
        sizes = (batch, self.num_heads, queries, inputs[1].shape[1 - axis])
        masks = broadcast_masks(self, sizes, is_batched, key_padding_mask, attn_mask, inputs[0])
        if is_causal:
            masks[1] = None
        bias = None if self.in_proj_bias is None else self.in_proj_bias.value
        weights = [weight.value for weight in self._in_weights()]
        (q, k, v), projections = project(inputs, weights, bias)
        (output, shown), attention = self._attend(q, k, v, masks, need_weights, is_causal)
        output, out_proj = self.out_proj.forward(join_heads(output, self.batch_first))
        if shown is not None and average_attn_weights:
            shown = shown.mean(axis=1)
        if not is_batched:
            output = output.reshape(query.shape)
            shown = None if shown is None else shown.reshape(shown.shape[1:])
        shapes = [None if m is None else m.shape for m in (key_padding_mask, attn_mask)]
        saved = _Saved(projections, attention, out_proj, masks, shapes, need_weights,
                       average_attn_weights, is_batched)  # fmt: skip
        return (output, shown), saved

    def _attend(
        self,
        q: Array,
        k: Array,
        v: Array,
        masks: list[Array | None],
        need_weights: bool,
        is_causal: bool,
    ) -> Any:
        """Run attention in every head; return its output, the weights or None, and its saved."""
        q, k, v = (split_heads(x, self.num_heads, self.batch_first) for x in (q, k, v))
        merged = merge_masks([m for m in masks if m is not None], self._extra_keys(), q)
        bias_k, bias_v = (b if b is None else b.value for b in (self.bias_k, self.bias_v))
        k = with_extra_keys(k, bias_k, self.add_zero_attn)
        v = with_extra_keys(v, bias_v, self.add_zero_attn)
        kept, p = None, 0.0
        if self.training and self.dropout > 0:
            kept, p = self.draw_kept((*q.shape[:-1], k.shape[2]), self.dropout)
        scale = math.sqrt(self.num_heads / self.embed_dim)
        if need_weights:
            return weighted_attention_forward(q, k, v, scale, merged, kept, p)
        output, saved = scaled_dot_product_attention_forward(
            q, k, v, scale, merged, kept, p, is_causal, self.block_size
        )
        return (output, None), saved

    def backward(
        self, grad_output: tuple[Array | None, Array | None], saved: Any, *, input_grad: bool = True
    ) -> tuple[Array | None, ...] | None:
        """Add the parameters' gradients; return those of query, key, value and given masks."""
        grad_heads, grad_weights = self._backward_of_output(*grad_output, saved)
        if saved.shows_weights:
            grads = weighted_attention_backward(
                grad_heads, *saved.attention, grad_weights=grad_weights
            )
        else:
            grads = scaled_dot_product_attention_backward(grad_heads, *saved.attention)
        grad_q, grad_k, grad_v, grad_merged = grads
        keys = grad_k.shape[2] - self._extra_keys()
        for parameter, grad in ((self.bias_k, grad_k), (self.bias_v, grad_v)):
            if parameter is not None and parameter.requires_grad:
                parameter.accumulate(sum_rows(grad[:, :, keys]).reshape(parameter.shape))
        grad_heads = (grad_q, grad_k[:, :, :keys], grad_v[:, :, :keys])
        grad_inputs = self._backward_of_inputs(grad_heads, saved.projections, input_grad)
        if not input_grad:
            return None
        if not saved.is_batched:
            grad_inputs = [grad.squeeze(axis=self._batch_axis) for grad in grad_inputs]
        grad_masks = split_mask_grad(grad_merged, saved.masks, saved.mask_shapes, keys)
        return (*grad_inputs, *grad_masks)

    def _backward_of_output(
        self, grad_output: Array | None, grad_weights: Array | None, saved: _Saved
    ) -> tuple[Array, Array | None]:
        """Return the gradients of what every head gives, and of the weights of every head."""
        xp = get_array_module(saved.attention.q)
        if grad_weights is not None:
            grad_weights = grad_weights.astype(widened(grad_weights.dtype), copy=False)
            if not saved.is_batched:
                grad_weights = xp.expand_dims(grad_weights, 0)
            if saved.averages:
                grad_weights = xp.expand_dims(grad_weights, 1) / self.num_heads
        if grad_output is None:
            return xp.zeros_like(saved.attention.q), grad_weights
        if not saved.is_batched:
            grad_output = xp.expand_dims(grad_output, self._batch_axis)
        joined = self.out_proj.backward(grad_output, saved.out_proj)
        return split_heads(joined, self.num_heads, self.batch_first), grad_weights

    def _backward_of_inputs(
        self, grad_heads: tuple[Array, ...], saved: Any, input_grad: bool
    ) -> list[Any]:
        """Add the gradients of the projections; return those of query, key and value."""
        rows = [join_heads(grad, self.batch_first) for grad in grad_heads]
        weights, bias = self._in_weights(), self.in_proj_bias
        wanted = [weight.requires_grad for weight in weights]
        has_bias_grad = bias is not None and bias.requires_grad
        grad_inputs, grad_weights, grad_bias = project_backward(
            rows, saved, input_grad, wanted, has_bias_grad
        )
        for weight, grad in zip(weights, grad_weights, strict=True):
            if grad is not None:
                weight.accumulate(grad)
        if bias is not None and grad_bias is not None:
            bias.accumulate(grad_bias)
        return grad_inputs

    @property
    def _batch_axis(self) -> int:
        return 0 if self.batch_first else 1

    def _in_weights(self) -> list[Parameter]:
        """Return the weight of the projections of all inputs, or the weights of each."""
        weights = (self.in_proj_weight, self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        return [weight for weight in weights if weight is not None]

    def _extra_keys(self) -> int:
        return (self.bias_k is not None) + bool(self.add_zero_attn)

    def extra_repr(self) -> str:
        """Return the constructor arguments shown by ``repr``."""
        return (
            f"{self.embed_dim}, {self.num_heads}, dropout={self.dropout}, "
            f"bias={self.in_proj_bias is not None}, batch_first={self.batch_first}"
        )
