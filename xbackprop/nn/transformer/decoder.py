"""The decoder: attention of the target's tokens to each other and to a memory, and its stack."""

from typing import Any

from xbackprop.backend.array_module import Array
from xbackprop.backend.device import Device
from xbackprop.initializers import RandomSource, as_generator
from xbackprop.module import Module
from xbackprop.nn.attention import MultiheadAttention
from xbackprop.nn.containers.sequence import reset_children
from xbackprop.nn.dropout import Dropout
from xbackprop.nn.linear import Linear
from xbackprop.nn.normalization import LayerNorm
from xbackprop.nn.transformer.stack import Stack
from xbackprop.nn.transformer.sublayers import (
    add_gradients,
    attend,
    attend_backward,
    chain,
    chain_backward,
    count_given,
    make_activation,
    residual_backward,
    residual_forward,
)


class TransformerDecoderLayer(Module):
    """Three sums, of the target with itself, with a memory and with a hidden layer.

    ``a = norm1(x + attention(x))``, ``b = norm2(a + attention(a, memory))`` and ``y = norm3(b +
    f(b))``, where ``f(b) = linear2(activation(linear1(b)))``; with ``norm_first`` each is of
    the form ``x + part(norm(x))``, and the memory is taken as it is.

    Parameters
    ----------
    d_model, nhead, dim_feedforward, dropout, activation, layer_norm_eps, batch_first, norm_first, \
bias
        As :class:`TransformerEncoderLayer` takes them.
    device : str or Device, optional
        Where the parameters live; None is the default device.
    dtype : dtype, optional
        float32 (None) or float64.
    rng : Generator, int or None
        Draws the initial values as PyTorch does, and the keys of dropout.

    Notes
    -----
    ``forward`` takes ``tgt_mask``, ``memory_mask``, ``tgt_key_padding_mask`` and
    ``memory_key_padding_mask`` as :class:`MultiheadAttention` takes its masks, in which True hides,
    and the hints ``tgt_is_causal`` and ``memory_is_causal``. ``backward`` returns the gradients of
    ``tgt``, of ``memory`` and of the masks up to the last given one. That of ``memory``, which is
    key and value at once, is the sum of both. Sums are differentiated in
    :class:`TransformerEncoderLayer`.

    References
    ----------
    Vaswani et al., "Attention is all you need", NeurIPS 2017, section 3.1.

    Examples
    --------
    >>> import xbackprop as xb
    >>> layer = xb.nn.TransformerDecoderLayer(4, 2, 8, rng=0)
    >>> tgt, memory = xb.asarray([[1.0, 0.0, 0.0, 2.0]]), xb.asarray([[0.0, 1.0, 3.0, 0.0]] * 3)
    >>> layer.eval()(tgt, memory).shape
    (1, 4)
    """

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: str | Module = "relu",
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        *,
        device: str | Device | None = None,
        dtype: Any = None,
        rng: RandomSource = None,
    ) -> None:
        chosen = make_activation(type(self).__name__, activation)
        place: dict[str, Any] = {"device": device, "dtype": dtype}
        generator = as_generator(rng)
        drawn: dict[str, Any] = {**place, "rng": generator}
        heads: dict[str, Any] = {**drawn, "dropout": dropout, "bias": bias}
        heads["batch_first"] = batch_first
        self.self_attn = MultiheadAttention(d_model, nhead, **heads)
        self.multihead_attn = MultiheadAttention(d_model, nhead, **heads)
        self.linear1 = Linear(d_model, dim_feedforward, bias, **drawn)
        self.dropout = Dropout(dropout, device=device, rng=generator)
        self.linear2 = Linear(dim_feedforward, d_model, bias, **drawn)
        self.norm_first = norm_first
        self.norm1 = LayerNorm(d_model, layer_norm_eps, bias=bias, **place)
        self.norm2 = LayerNorm(d_model, layer_norm_eps, bias=bias, **place)
        self.norm3 = LayerNorm(d_model, layer_norm_eps, bias=bias, **place)
        self.dropout1 = Dropout(dropout, device=device, rng=generator)
        self.dropout2 = Dropout(dropout, device=device, rng=generator)
        self.dropout3 = Dropout(dropout, device=device, rng=generator)
        self.activation = chosen

    def reset_parameters(self, rng: RandomSource = None) -> None:
        """Draw the initial values anew, and new keys for the dropouts."""
        reset_children(tuple(self.children()), rng)

    def forward(
        self,
        tgt: Array,
        memory: Array,
        tgt_mask: Array | None = None,
        memory_mask: Array | None = None,
        tgt_key_padding_mask: Array | None = None,
        memory_key_padding_mask: Array | None = None,
        tgt_is_causal: bool = False,
        memory_is_causal: bool = False,
    ) -> tuple[Array, Any]:
        """Return what every token becomes beside the others and the memory."""
        branches = (
            attend(
                self.self_attn, self.dropout1, None, tgt_mask, tgt_key_padding_mask, tgt_is_causal
            ),
            attend(
                self.multihead_attn,
                self.dropout2,
                memory,
                memory_mask,
                memory_key_padding_mask,
                memory_is_causal,
            ),
            chain(*self._feed_forward()),
        )
        x, saved = tgt, []
        for norm, branch in zip(self._norms(), branches, strict=True):
            x, part_saved = residual_forward(x, norm, self.norm_first, branch)
            saved.append(part_saved)
        masks = (tgt_mask, memory_mask, tgt_key_padding_mask, memory_key_padding_mask)
        return x, (saved, count_given(*masks))

    def backward(self, grad_output: Array, saved: Any, *, input_grad: bool = True) -> Any:
        """Go back through the three sums; return the gradients of both inputs and given masks."""
        parts, count = saved
        branches = (
            attend_backward(self.self_attn, self.dropout1, of_itself=True),
            attend_backward(self.multihead_attn, self.dropout2, of_itself=False),
            chain_backward(*self._feed_forward()),
        )
        grad: Any = grad_output
        others: list[Any] = []
        backwards = zip(self._norms(), branches, parts, strict=True)
        for position, (norm, branch, part_saved) in reversed(list(enumerate(backwards))):
            wanted = input_grad or position > 0
            grad, of_others = residual_backward(
                grad, part_saved, norm, self.norm_first, branch, wanted
            )
            others.append(of_others)
        if not input_grad:
            return None
        _, (of_memory, memory_mask, memory_padding), (_, tgt_mask, tgt_padding) = others
        of_masks = (tgt_mask, memory_mask, tgt_padding, memory_padding)
        return (grad, of_memory, *of_masks[:count])

    def _norms(self) -> tuple[LayerNorm, ...]:
        return self.norm1, self.norm2, self.norm3

    def _feed_forward(self) -> tuple[Module, ...]:
        return self.linear1, self.activation, self.dropout, self.linear2, self.dropout3


class TransformerDecoder(Stack):
    """A stack of decoder layers, ``y = norm(layer_n(... layer_1(x, memory), memory))``.

    Parameters
    ----------
    decoder_layer : Module
        Copied ``num_layers`` times with its values; it stays as it is itself. Usually a
        :class:`TransformerDecoderLayer`.
    num_layers : int
        1 or more.
    norm : Module, optional
        Applied after the last layer.
    rng : Generator, int or None
        Draws a key for the dropout of every copy, as copies with one key would drop the same.

    Notes
    -----
    All layers have the values of ``decoder_layer`` at first, as in PyTorch; ``reset_parameters``
    draws each its own. Every layer reads the memory and the masks, so that their gradients are sums
    over the layers. ``tgt_is_causal=None`` lets PyTorch look whether the mask is causal, which
    chooses a kernel; here it is False. A layer with a module for its activation keeps it in the
    copies; PyTorch 2.13's copies compute with ReLU then.

    References
    ----------
    Vaswani et al., "Attention is all you need", NeurIPS 2017, section 3.1.

    Examples
    --------
    >>> import xbackprop as xb
    >>> layer = xb.nn.TransformerDecoderLayer(4, 2, 8, rng=0)
    >>> decoder = xb.nn.TransformerDecoder(layer, 2, xb.nn.LayerNorm(4), rng=0)
    >>> len(decoder.layers)
    2
    """

    def __init__(
        self,
        decoder_layer: Module,
        num_layers: int,
        norm: Module | None = None,
        *,
        rng: RandomSource = None,
    ) -> None:
        super().__init__(decoder_layer, num_layers, norm, rng)

    def forward(
        self,
        tgt: Array,
        memory: Array,
        tgt_mask: Array | None = None,
        memory_mask: Array | None = None,
        tgt_key_padding_mask: Array | None = None,
        memory_key_padding_mask: Array | None = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
    ) -> tuple[Array, Any]:
        """Pass ``tgt`` through all layers beside the memory."""
        masks = {
            "tgt_mask": tgt_mask,
            "memory_mask": memory_mask,
            "tgt_key_padding_mask": tgt_key_padding_mask,
            "memory_key_padding_mask": memory_key_padding_mask,
        }
        hints = {"tgt_is_causal": bool(tgt_is_causal), "memory_is_causal": memory_is_causal}
        x, saved = tgt, [count_given(*masks.values())]
        for layer in self.layers:
            x, layer_saved = layer.forward(x, memory, **masks, **hints)
            saved.append(layer_saved)
        return self.last_forward(x, saved)

    def backward(self, grad_output: Array, saved: Any, *, input_grad: bool = True) -> Any:
        """Go back through all layers; return the gradients of both inputs and given masks."""
        grad, saved = self.last_backward(grad_output, saved)
        of_others: list[Array | None] = [None] * (1 + saved[0])
        for position in range(self.num_layers - 1, -1, -1):
            wanted = input_grad or position > 0
            grads = self.layers[position].backward(grad, saved.pop(), input_grad=wanted)
            if not wanted:
                return None
            grad, *others = grads
            of_others = [add_gradients(*pair) for pair in zip(of_others, others, strict=True)]
        return (grad, *of_others)
