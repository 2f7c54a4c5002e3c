"""The encoder: attention of all tokens to all, and the stack of its layers."""

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


class TransformerEncoderLayer(Module):
    """Two sums, ``h = norm1(x + attention(x))`` and ``y = norm2(h + f(h))``.

    ``f(h) = linear2(activation(linear1(h)))``; with ``norm_first`` it is ``h = x +
    attention(norm1(x))`` and ``y = h + f(norm2(h))``.

    Parameters
    ----------
    d_model : int
        Features of a token.
    nhead : int
        Heads of attention; divides ``d_model``.
    dim_feedforward : int, default 2048
        Features of the hidden layer.
    dropout : float, default 0.1
        Probability, in training, of the attention's weights, the hidden features and what each part
        adds to be silenced.
    activation : {"relu", "gelu"} or Module, default "relu"
        Of the hidden layer. A function is refused: it has no backward.
    layer_norm_eps : float, default 1e-5
        Added to the variances.
    batch_first : bool, default False
        Batched arrays are ``(batch, time, d_model)``, else ``(time, batch, d_model)``.
    norm_first : bool, default False
        Normalize what goes into the parts instead of the sums.
    bias : bool, default True
        Of linear maps and normalizations.
    device : str or Device, optional
        Where the parameters live; None is the default device.
    dtype : dtype, optional
        float32 (None) or float64.
    rng : Generator, int or None
        Draws the initial values as PyTorch does, and the keys of dropout.

    Notes
    -----
    ``forward`` takes ``src_mask`` and ``src_key_padding_mask`` as :class:`MultiheadAttention` takes
    its masks, in which True hides, and the hint ``is_causal``. ``backward`` returns the gradient of
    ``src`` and, where masks were given, a tuple with theirs up to the last given one.

    A sum passes its gradient on to both sides. With ``norm_first`` and ``G = dLoss/dy``:
    ``dLoss/dh = G + norm2.backward(f.backward(G)) =: H`` and ``dLoss/dx = H +
    norm1.backward(attention.backward(H))``; without, ``norm2.backward(G)`` takes the place of
    ``G``.

    Where PyTorch neither trains nor records gradients it may take a fast path, in which padded
    tokens become zeros. Here they are computed as the others, as PyTorch does with gradients.

    References
    ----------
    Vaswani et al., "Attention is all you need", NeurIPS 2017, section 3.1.
    Xiong et al., "On layer normalization in the transformer architecture", ICML 2020, for
    ``norm_first``.

    Examples
    --------
    >>> import xbackprop as xb
    >>> layer = xb.nn.TransformerEncoderLayer(4, 2, 8, batch_first=True, rng=0)
    >>> layer.eval()(xb.asarray([[[1.0, 0.0, 0.0, 2.0], [0.0, 1.0, 3.0, 0.0]]])).shape
    (1, 2, 4)
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
        self.self_attn = MultiheadAttention(
            d_model, nhead, dropout, bias, batch_first=batch_first, **drawn
        )
        self.linear1 = Linear(d_model, dim_feedforward, bias, **drawn)
        self.dropout = Dropout(dropout, device=device, rng=generator)
        self.linear2 = Linear(dim_feedforward, d_model, bias, **drawn)
        self.norm_first = norm_first
        self.norm1 = LayerNorm(d_model, layer_norm_eps, bias=bias, **place)
        self.norm2 = LayerNorm(d_model, layer_norm_eps, bias=bias, **place)
        self.dropout1 = Dropout(dropout, device=device, rng=generator)
        self.dropout2 = Dropout(dropout, device=device, rng=generator)
        self.activation = chosen

    def reset_parameters(self, rng: RandomSource = None) -> None:
        """Draw the initial values anew, and new keys for the dropouts."""
        reset_children(tuple(self.children()), rng)

    def forward(
        self,
        src: Array,
        src_mask: Array | None = None,
        src_key_padding_mask: Array | None = None,
        is_causal: bool = False,
    ) -> tuple[Array, Any]:
        """Return what every token becomes beside the others."""
        attention = attend(
            self.self_attn, self.dropout1, None, src_mask, src_key_padding_mask, is_causal
        )
        hidden, attention_saved = residual_forward(src, self.norm1, self.norm_first, attention)
        feed_forward = chain(*self._feed_forward())
        output, saved = residual_forward(hidden, self.norm2, self.norm_first, feed_forward)
        return output, (attention_saved, saved, count_given(src_mask, src_key_padding_mask))

    def backward(self, grad_output: Array, saved: Any, *, input_grad: bool = True) -> Any:
        """Go back through both sums; return the gradients of ``src`` and of given masks."""
        attention_saved, feed_forward_saved, masks = saved
        feed_forward = chain_backward(*self._feed_forward())
        grad, _ = residual_backward(
            grad_output, feed_forward_saved, self.norm2, self.norm_first, feed_forward
        )
        attention = attend_backward(self.self_attn, self.dropout1, of_itself=True)
        grad, others = residual_backward(
            grad, attention_saved, self.norm1, self.norm_first, attention, input_grad
        )
        return (grad, *others[1:][:masks]) if masks and input_grad else grad

    def _feed_forward(self) -> tuple[Module, ...]:
        return self.linear1, self.activation, self.dropout, self.linear2, self.dropout2


class TransformerEncoder(Stack):
    """A stack of encoder layers, ``y = norm(layer_n(... layer_1(x)))``.

    Parameters
    ----------
    encoder_layer : Module
        Copied ``num_layers`` times with its values; it stays as it is itself. Usually a
        :class:`TransformerEncoderLayer`.
    num_layers : int
        1 or more.
    norm : Module, optional
        Applied after the last layer.
    enable_nested_tensor, mask_check : bool, default True
        PyTorch's, without effect: they choose and guard its fast path, see Notes.
    rng : Generator, int or None
        Draws a key for the dropout of every copy, as copies with one key would drop the same.

    Notes
    -----
    All layers have the values of ``encoder_layer`` at first, as in PyTorch; ``reset_parameters``
    draws each its own. ``forward`` takes ``mask`` and ``src_key_padding_mask`` for all layers, so
    that their gradients are sums over the layers. ``is_causal=None`` lets PyTorch look whether the
    mask is causal, which chooses a kernel; here it is False.

    With padding, PyTorch's fast path (in evaluation, without gradients) leaves padded tokens zero
    in every layer, so that the stack gives zeros there or what ``norm`` makes of them. Here they
    are computed as the others, as PyTorch does with gradients.

    References
    ----------
    Vaswani et al., "Attention is all you need", NeurIPS 2017, section 3.1.

    Examples
    --------
    >>> import xbackprop as xb
    >>> layer = xb.nn.TransformerEncoderLayer(4, 2, 8, rng=0)
    >>> encoder = xb.nn.TransformerEncoder(layer, 2, xb.nn.LayerNorm(4), rng=0)
    >>> len(encoder.layers)
    2
    """

    def __init__(
        self,
        encoder_layer: Module,
        num_layers: int,
        norm: Module | None = None,
        enable_nested_tensor: bool = True,
        mask_check: bool = True,
        *,
        rng: RandomSource = None,
    ) -> None:
        self.enable_nested_tensor = enable_nested_tensor
        self.mask_check = mask_check
        super().__init__(encoder_layer, num_layers, norm, rng)

    def forward(
        self,
        src: Array,
        mask: Array | None = None,
        src_key_padding_mask: Array | None = None,
        is_causal: bool | None = None,
    ) -> tuple[Array, Any]:
        """Pass ``src`` through all layers."""
        x, saved = src, [count_given(mask, src_key_padding_mask)]
        for layer in self.layers:
            x, layer_saved = layer.forward(
                x,
                src_mask=mask,
                src_key_padding_mask=src_key_padding_mask,
                is_causal=bool(is_causal),
            )
            saved.append(layer_saved)
        return self.last_forward(x, saved)

    def backward(self, grad_output: Array, saved: Any, *, input_grad: bool = True) -> Any:
        """Go back through all layers; return the gradients of ``src`` and of given masks."""
        grad, saved = self.last_backward(grad_output, saved)
        count = saved[0]
        of_masks: list[Array | None] = [None] * count
        for position in range(self.num_layers - 1, -1, -1):
            wanted = input_grad or position > 0
            grads = self.layers[position].backward(grad, saved.pop(), input_grad=wanted)
            grad, *others = grads if count and wanted else (grads,)
            of_masks = [add_gradients(*pair) for pair in zip(of_masks, others, strict=False)]
        return (grad, *of_masks) if count and input_grad else grad
