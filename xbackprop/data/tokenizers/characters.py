"""One token for each character of a text."""

from typing import Any

import numpy as np

from xbackprop.data.errors import quote
from xbackprop.data.tokenizers.base import check_text, checked_ids


class CharacterTokenizer:
    r"""One token for each character.

    Parameters
    ----------
    text : str
        Its characters, sorted by code point, are the vocabulary. Only text of these can be encoded.

    Raises
    ------
    ValueError
        For a text without a character.

    Examples
    --------
    >>> tokenizer = CharacterTokenizer("to be or not to be")
    >>> tokenizer.encode("bet")
    array([1, 2, 6])
    >>> tokenizer.decode([5, 4, 1, 2])
    'robe'
    """

    def __init__(self, text: str) -> None:
        self._points = np.unique(_code_points(text))  # numbers: a search in them is one call
        if not self._points.size:
            raise ValueError("CharacterTokenizer expects a text; got an empty one.")

    @property
    def vocab_size(self) -> int:
        """Number of different characters."""
        return len(self._points)

    def encode(self, text: str) -> np.ndarray:
        """Return the number of each character.

        Parameters
        ----------
        text : str
            Of known characters.

        Returns
        -------
        numpy.ndarray of int64, shape (characters,)

        Raises
        ------
        ValueError
            For an unknown character; names it and its position.
        """
        points = _code_points(text)
        ids = np.searchsorted(self._points, points)
        unknown = self._points[np.minimum(ids, len(self._points) - 1)] != points
        if unknown.any():
            position = int(np.argmax(unknown))
            raise ValueError(
                f"CharacterTokenizer: unknown character {quote(text[position])} at position "
                f"{position}. Expected the {self.vocab_size} characters of the text that the "
                "tokenizer was made from."
            )
        return ids.astype(np.int64)

    def decode(self, ids: Any) -> str:
        """Return the text of ids.

        Parameters
        ----------
        ids : array_like of int, shape (tokens,)
            On the host.

        Returns
        -------
        str
        """
        return _text_of(self._points[checked_ids(self, ids)])

    def config(self) -> dict[str, Any]:
        """Return ``{"type": "CharacterTokenizer", "characters": ...}``."""
        return {"type": type(self).__name__, "characters": _text_of(self._points)}


def _code_points(text: str) -> np.ndarray:
    check_text(text)
    return np.frombuffer(text.encode("utf-32-le"), dtype="<u4")


def _text_of(points: np.ndarray) -> str:
    return points.astype("<u4").tobytes().decode("utf-32-le")
