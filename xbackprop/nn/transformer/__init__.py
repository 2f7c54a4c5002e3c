"""Transformers as PyTorch has them: encoder, decoder, and both."""

from xbackprop.nn.transformer.decoder import TransformerDecoder, TransformerDecoderLayer
from xbackprop.nn.transformer.encoder import TransformerEncoder, TransformerEncoderLayer
from xbackprop.nn.transformer.transformer import Transformer

__all__ = [
    "Transformer",
    "TransformerDecoder",
    "TransformerDecoderLayer",
    "TransformerEncoder",
    "TransformerEncoderLayer",
]
