"""Tokenizers: a text becomes whole numbers, and numbers a text."""

from xbackprop.data.tokenizers.base import Tokenizer
from xbackprop.data.tokenizers.byte_pairs import BytePairTokenizer
from xbackprop.data.tokenizers.characters import CharacterTokenizer
from xbackprop.data.tokenizers.config import tokenizer_from_config

__all__ = ["BytePairTokenizer", "CharacterTokenizer", "Tokenizer", "tokenizer_from_config"]
