"""The transformer: an encoder of the source, and a decoder that reads what it makes of it."""

import math
from typing import Any

import numpy as np

from xbackprop.backend.array_module import Array
from xbackprop.backend.device import Device
from xbackprop.initializers import (
    RandomSource,
    as_generator,
    float_dtype,
    initial,
    xavier_uniform,
)
from xbackprop.module import Module, describe_layer
from xbackprop.nn.containers.sequence import check_module, reset_children
from xbackprop.nn.normalization import LayerNorm
from xbackprop.nn.transformer.decoder import TransformerDecoder, TransformerDecoderLayer
from xbackprop.nn.transformer.encoder import TransformerEncoder, TransformerEncoderLayer
from xbackprop.nn.transformer.sublayers import count_given


class Transformer(Module):
    """An encoder and a decoder, ``y = decoder(tgt, encoder(src))``.

    Parameters
    ----------
    d_model : int, default 512
        Features of a token.
    nhead : int, default 8
        Heads of attention; divides ``d_model``.
    num_encoder_layers, num_decoder_layers : int, default 6
        1 or more.
    dim_feedforward : int, default 2048
        Features of the hidden layers.
    dropout : float, default 0.1
        As in :class:`TransformerEncoderLayer`.
    activation : {"relu", "gelu"} or Module, default "relu"
        Every layer has a copy of a module.
    custom_encoder, custom_decoder : Module, optional
        Take the place of the encoder or decoder, are called as they are, and give gradients as they
        do. Their matrices are drawn anew too, as in PyTorch.
    layer_norm_eps : float, default 1e-5
        Added to the variances.
    batch_first : bool, default False
        Batched arrays are ``(batch, time, d_model)``, else ``(time, batch, d_model)``.
    norm_first : bool, default False
        As in :class:`TransformerEncoderLayer`.
    bias : bool, default True
        Of linear maps and normalizations.
    device : str or Device, optional
        Where the parameters live; None is the default device.
    dtype : dtype, optional
        float32 (None) or float64.
    rng : Generator, int or None
        Draws the initial values, Glorot's for all that has more than one axis, as PyTorch does, and
        the keys of dropout.

    Attributes
    ----------
    encoder : TransformerEncoder
    decoder : TransformerDecoder

    Notes
    -----
    ``forward`` takes ``src_mask``, ``tgt_mask``, ``memory_mask``, ``src_key_padding_mask``,
    ``tgt_key_padding_mask`` and ``memory_key_padding_mask`` as :class:`MultiheadAttention` takes
    its masks, in which True hides, and the hints ``src_is_causal``, ``tgt_is_causal`` and
    ``memory_is_causal``. ``backward`` returns the gradients of ``src``, ``tgt`` and of the masks up
    to the last given one. The memory's gradient, a sum over the decoder's layers, is what the
    encoder goes back with. Embeddings, positions and the last linear map are not part of it.

    References
    ----------
    Vaswani et al., "Attention is all you need", NeurIPS 2017.

    Examples
    --------
    >>> import xbackprop as xb
    >>> model = xb.nn.Transformer(4, 2, 1, 1, 8, rng=0).eval()
    >>> model(xb.asarray([[1.0, 0.0, 0.0, 2.0]] * 3), xb.asarray([[0.0, 1.0, 3.0, 0.0]])).shape
    (1, 4)
    """

    def __init__(
        self,
        d_model: int = 512,
        nhead: int = 8,
        num_encoder_layers: int = 6,
        num_decoder_layers: int = 6,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: str | Module = "relu",
        custom_encoder: Module | None = None,
        custom_decoder: Module | None = None,
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        *,
        device: str | Device | None = None,
        dtype: Any = None,
        rng: RandomSource = None,
    ) -> None:
        generator = as_generator(rng)
        place: dict[str, Any] = {"device": device, "dtype": dtype}
        sizes: Any = (d_model, nhead, dim_feedforward, dropout, activation, layer_norm_eps,
                      batch_first, norm_first, bias)  # fmt: skip

        def make(stack: Any, layer: Any, count: int) -> Any:
            norm = LayerNorm(d_model, layer_norm_eps, bias=bias, **place)
            return stack(layer(*sizes, **place, rng=generator), count, norm, rng=generator)

        for name, custom in (("encoder", custom_encoder), ("decoder", custom_decoder)):
            if custom is not None:
                check_module(type(self).__name__, f"custom_{name}", custom)
        if custom_encoder is None:
            custom_encoder = make(TransformerEncoder, TransformerEncoderLayer, num_encoder_layers)
        if custom_decoder is None:
            custom_decoder = make(TransformerDecoder, TransformerDecoderLayer, num_decoder_layers)
        self.encoder, self.decoder = custom_encoder, custom_decoder
        self.d_model = d_model
        self.nhead = nhead
        self.batch_first = batch_first
        self._draw(generator)

    def reset_parameters(self, rng: RandomSource = None) -> None:
        """Draw the initial values anew, and new keys for the dropouts."""
        generator = as_generator(rng)
        reset_children((self.encoder, self.decoder), generator)
        self._draw(generator)

    def _draw(self, generator: Any) -> None:
        """Draw Glorot's values for all that has more than one axis."""
        values = {}
        for name, parameter in self.named_parameters():
            if len(parameter.shape) > 1:
                rows, features, *window = parameter.shape
                fans = (features * math.prod(window), rows * math.prod(window))
                at: dict[str, Any] = {"dtype": parameter.dtype, "device": parameter.device}
                values[name] = xavier_uniform(parameter.shape, *fans, rng=generator, **at)
        self.load_state_dict(values, strict=False)

    def forward(
        self,
        src: Array,
        tgt: Array,
        src_mask: Array | None = None,
        tgt_mask: Array | None = None,
        memory_mask: Array | None = None,
        src_key_padding_mask: Array | None = None,
        tgt_key_padding_mask: Array | None = None,
        memory_key_padding_mask: Array | None = None,
        src_is_causal: bool | None = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
    ) -> tuple[Array, Any]:
        """Return what the target's tokens become beside each other and the source."""
        self._check_inputs(src, tgt)
        memory, encoder_saved = self.encoder.forward(
            src,
            mask=src_mask,
            src_key_padding_mask=src_key_padding_mask,
            is_causal=src_is_causal,
        )
        output, decoder_saved = self.decoder.forward(
            tgt,
            memory,
            tgt_mask=tgt_mask,
            memory_mask=memory_mask,
            tgt_key_padding_mask=tgt_key_padding_mask,
            memory_key_padding_mask=memory_key_padding_mask,
            tgt_is_causal=tgt_is_causal,
            memory_is_causal=memory_is_causal,
        )
        count = count_given(src_mask, tgt_mask, memory_mask, src_key_padding_mask,
                            tgt_key_padding_mask, memory_key_padding_mask)  # fmt: skip
        return output, [count, encoder_saved, decoder_saved]

    def backward(
        self, grad_output: Array, saved: Any, *, input_grad: bool = True
    ) -> tuple[Array | None, ...] | None:
        """Go back through the decoder, and with the memory's gradient through the encoder."""
        count, encoder_saved, decoder_saved = saved
        grad_tgt, grad_memory, *of_decoder = self.decoder.backward(grad_output, decoder_saved)
        grads = self.encoder.backward(grad_memory, encoder_saved, input_grad=input_grad)
        if not input_grad:
            return None
        grad_src, *of_encoder = grads if isinstance(grads, tuple) else (grads,)
        src_mask, src_padding = (*of_encoder, None, None)[:2]
        tgt_mask, memory_mask, tgt_padding, memory_padding = (*of_decoder, *[None] * 4)[:4]
        of_masks = (src_mask, tgt_mask, memory_mask, src_padding, tgt_padding, memory_padding)
        return (grad_src, grad_tgt, *of_masks[:count])

    def _check_inputs(self, src: Any, tgt: Any) -> None:
        """Refuse what is not of as many samples of ``d_model`` features."""
        like = next(self.parameters()).value
        for name, x in (("src", src), ("tgt", tgt)):
            self.check_device(name, x, like)
        axis = 0 if self.batch_first else 1
        if (
            src.ndim not in (2, 3)
            or tgt.ndim != src.ndim
            or (src.shape[-1], tgt.shape[-1]) != (self.d_model, self.d_model)
            or (src.ndim == 3 and src.shape[axis] != tgt.shape[axis])
        ):
            lead = "batch, {}, " if self.batch_first else "{}, batch, "
            src_shape, tgt_shape = (f"({lead.format(t)}{self.d_model})" for t in "ST")
            raise ValueError(
                f"{describe_layer(self)} expects src of shape {src_shape} and tgt of shape "
                f"{tgt_shape}, or both without batch; got {src.shape} and {tgt.shape}"
            )

    @staticmethod
    def generate_square_subsequent_mask(
        sz: int, device: str | Device | None = None, dtype: Any = None
    ) -> Array:
        """Return a mask to add, ``-inf`` where a token would see a later one and 0 elsewhere.

        Parameters
        ----------
        sz : int
            Number of tokens.
        device : str or Device, optional
            Where the mask lives; None is the default device.
        dtype : dtype, optional
            float32 (None) or float64.

        Returns
        -------
        array, shape (sz, sz)

        Examples
        --------
        >>> import xbackprop as xb
        >>> xb.nn.Transformer.generate_square_subsequent_mask(2, device="cpu")
        array([[  0., -inf],
               [  0.,   0.]], dtype=float32)
        """
        chosen = float_dtype(dtype)
        return initial((sz, sz), chosen, lambda: np.triu(np.full((sz, sz), -np.inf), 1), device)
