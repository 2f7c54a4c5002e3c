"""What tokenizers share: their interface, and the checks of texts and ids."""

from typing import Any, Protocol

import numpy as np

from xbackprop.data.arrays import as_host_array
from xbackprop.data.errors import quote


class Tokenizer(Protocol):
    """What tokenizers have in common."""

    @property
    def vocab_size(self) -> int:
        """Number of tokens; ids are 0 to ``vocab_size - 1``."""

    def encode(self, text: str) -> np.ndarray:
        """Return the ids of a text, int64 of shape (tokens,)."""

    def decode(self, ids: Any) -> str:
        """Return the text of ids."""

    def config(self) -> dict[str, Any]:
        """Return plain data from which :func:`tokenizer_from_config` makes an equal tokenizer."""


def check_text(text: object) -> None:
    """Refuse what is no text: another type, and halves of surrogate pairs."""
    if not isinstance(text, str):
        raise TypeError(f"A tokenizer expects a str; got {type(text).__name__}.")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"A tokenizer expects a text; got half a surrogate pair, {quote(text[error.start])}, "
            f"at position {error.start}."
        ) from error


def checked_ids(tokenizer: Tokenizer, ids: Any) -> np.ndarray:
    """Return ids as int64; refuse what no token has."""
    name = type(tokenizer).__name__
    array = as_host_array(ids, "ids", allow_empty=True)
    if array.ndim != 1:
        raise ValueError(f"{name} expects ids of shape (tokens,); got {array.shape}.")
    if array.size == 0:
        return array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} expects integer ids; got {array.dtype}.")
    wrong = (array < 0) | (array >= tokenizer.vocab_size)
    if wrong.any():
        position = int(np.argmax(wrong))
        raise ValueError(
            f"{name}: no token {array[position]} (at position {position}); "
            f"expected 0 to {tokenizer.vocab_size - 1}."
        )
    return array.astype(np.int64)
