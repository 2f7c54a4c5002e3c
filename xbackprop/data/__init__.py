"""Data sets, tables, texts, splits and batches: all on the host until a batch is made."""

from xbackprop.backend.staging import stream_to_device
from xbackprop.data.batches import batches
from xbackprop.data.builtin import load_dataset, load_digits
from xbackprop.data.errors import DataError
from xbackprop.data.mnist import load_mnist_5k
from xbackprop.data.splits import Split, train_test_split
from xbackprop.data.tables import load_table
from xbackprop.data.text import Corpus, load_corpus, load_text, token_windows
from xbackprop.data.tokenizers import (
    BytePairTokenizer,
    CharacterTokenizer,
    Tokenizer,
    tokenizer_from_config,
)

__all__ = [
    "BytePairTokenizer",
    "CharacterTokenizer",
    "Corpus",
    "DataError",
    "Split",
    "Tokenizer",
    "batches",
    "load_corpus",
    "load_dataset",
    "load_digits",
    "load_mnist_5k",
    "load_table",
    "load_text",
    "stream_to_device",
    "token_windows",
    "tokenizer_from_config",
    "train_test_split",
]
