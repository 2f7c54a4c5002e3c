"""Data sets, tables, splits and batches: all on the host until a batch is made."""

from xbackprop.data.batches import batches
from xbackprop.data.builtin import load_dataset, load_digits
from xbackprop.data.errors import DataError
from xbackprop.data.mnist import load_mnist_5k
from xbackprop.data.splits import Split, train_test_split
from xbackprop.data.tables import load_table

__all__ = [
    "DataError",
    "Split",
    "batches",
    "load_dataset",
    "load_digits",
    "load_mnist_5k",
    "load_table",
    "train_test_split",
]
