"""Tokenizers: a text becomes whole numbers, and numbers a text."""

import json
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from xbackprop.data.arrays import as_host_array
from xbackprop.data.errors import DataError, quote

_BYTES = 256  # every byte is a token of its own, so no text has an unknown one

# Parts of a tokenizer's JSON, and of its model's, under which decoding may give another text.
_ALTER = ("normalizer", "post_processor", "truncation", "padding", "added_tokens")
_ALTER_MODEL = (
    "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback",
)  # fmt: skip


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
        return _text_of(self._points[_checked_ids(self, ids)])

    def config(self) -> dict[str, Any]:
        """Return ``{"type": "CharacterTokenizer", "characters": ...}``."""
        return {"type": type(self).__name__, "characters": _text_of(self._points)}


class BytePairTokenizer:
    """Tokens of several bytes each, those that a text has most often.

    Needs the package tokenizers (``pip install "xbackprop[text]"``). Bytes are the smallest tokens,
    so every text can be encoded, and ``decode(encode(text)) == text``. Equal texts give equal
    tokenizers.

    Parameters
    ----------
    text : str
        What pairs are counted in.
    vocab_size : int, default 512
        Tokens to end with, at least 256; fewer where the text has no more pairs to join.

    Raises
    ------
    DataError
        Without the package; says how to install it.
    ValueError
        For an empty text, and a ``vocab_size`` below 256.

    Notes
    -----
    As in GPT-2: a text is cut into words, numbers and signs, each with the space before it; within
    these the pair of neighbouring tokens that occurs most often becomes one token, again and again.
    ``decode`` of ids that end within a character shows U+FFFD for it.

    References
    ----------
    Sennrich, Haddow, Birch, "Neural machine translation of rare words with subword units",
    ACL 2016; Radford et al., "Language models are unsupervised multitask learners", 2019,
    section 2.2.
    """

    def __init__(self, text: str, vocab_size: int = 512) -> None:
        _check_text(text)
        if not text:
            raise ValueError("BytePairTokenizer expects a text; got an empty one.")
        if isinstance(vocab_size, bool) or not isinstance(vocab_size, int | np.integer):
            raise TypeError(
                f"BytePairTokenizer expects vocab_size to be a whole number; got {vocab_size!r}."
            )
        if vocab_size < _BYTES:
            raise ValueError(
                f"BytePairTokenizer expects vocab_size >= {_BYTES}, one token for each byte; "
                f"got {vocab_size}."
            )
        package = _import_package()
        levels = package.pre_tokenizers.ByteLevel
        self._tokenizer = package.Tokenizer(package.models.BPE())
        self._tokenizer.pre_tokenizer = levels(add_prefix_space=False)
        self._tokenizer.decoder = package.decoders.ByteLevel()
        trainer = package.trainers.BpeTrainer(
            vocab_size=int(vocab_size),
            initial_alphabet=sorted(levels.alphabet()),
            show_progress=False,
        )
        self._tokenizer.train_from_iterator([text], trainer)

    @classmethod
    def from_json(cls, text: str) -> "BytePairTokenizer":
        """Make the tokenizer that :meth:`config` told of.

        Parameters
        ----------
        text : str
            JSON of the package tokenizers, as :meth:`config` holds it.

        Returns
        -------
        BytePairTokenizer

        Raises
        ------
        ValueError
            For what is no JSON, and for a tokenizer of another kind: not every text would survive
            one.
        """
        package = _import_package()
        _check_byte_pairs(text, package.pre_tokenizers.ByteLevel.alphabet())
        made = cls.__new__(cls)
        try:
            made._tokenizer = package.Tokenizer.from_str(text)
        except Exception as error:  # the package raises no narrower class
            raise ValueError(f"BytePairTokenizer cannot be made of this JSON: {error}.") from error
        return made

    @property
    def vocab_size(self) -> int:
        """Number of tokens."""
        return int(self._tokenizer.get_vocab_size())

    def encode(self, text: str) -> np.ndarray:
        """Return the ids of a text.

        Parameters
        ----------
        text : str
            Any text.

        Returns
        -------
        numpy.ndarray of int64, shape (tokens,)
        """
        _check_text(text)
        return np.array(self._tokenizer.encode(text).ids, dtype=np.int64)

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
        listed = _checked_ids(self, ids).tolist()
        return str(self._tokenizer.decode(listed, skip_special_tokens=False))

    def config(self) -> dict[str, Any]:
        """Return ``{"type": "BytePairTokenizer", "json": ...}``."""
        return {"type": type(self).__name__, "json": self._tokenizer.to_str()}


def tokenizer_from_config(config: Mapping[str, Any]) -> Tokenizer:
    """Make the tokenizer whose ``config()`` this is.

    Parameters
    ----------
    config : mapping
        Plain data, perhaps read from a file.

    Returns
    -------
    CharacterTokenizer or BytePairTokenizer

    Raises
    ------
    ValueError
        For what no tokenizer returned.
    DataError
        For byte pairs without the package tokenizers.
    """
    makers = {
        "CharacterTokenizer": ("characters", _of_characters),
        "BytePairTokenizer": ("json", BytePairTokenizer.from_json),
    }
    given = dict(config) if isinstance(config, Mapping) else {}
    name = given.pop("type", None)
    key, make = makers.get(name, ("", None)) if isinstance(name, str) else ("", None)
    if make is None or list(given) != [key] or not isinstance(given[key], str):
        raise ValueError(
            f"Expected the config() of a tokenizer ({' or '.join(makers)}); got {quote(config)}."
        )
    return make(given[key])


def _of_characters(characters: str) -> Tokenizer:
    made = CharacterTokenizer(characters)
    if made.config()["characters"] != characters:
        raise ValueError(
            "CharacterTokenizer expects characters that are sorted and different; "
            f"got {quote(characters)}."
        )
    return made


def _check_text(text: object) -> None:
    if not isinstance(text, str):
        raise TypeError(f"A tokenizer expects a str; got {type(text).__name__}.")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"A tokenizer expects a text; got half a surrogate pair, {quote(text[error.start])}, "
            f"at position {error.start}."
        ) from error


def _code_points(text: str) -> np.ndarray:
    _check_text(text)
    return np.frombuffer(text.encode("utf-32-le"), dtype="<u4")


def _text_of(points: np.ndarray) -> str:
    return points.astype("<u4").tobytes().decode("utf-32-le")


def _checked_ids(tokenizer: Tokenizer, ids: Any) -> np.ndarray:
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


def _import_package() -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise DataError(
            "Byte-pair tokens need the package tokenizers, which cannot be imported "
            f"({error}). This installs it: pip install 'xbackprop[text]'"
        ) from error
    return tokenizers


def _check_byte_pairs(text: str, alphabet: list[str]) -> None:
    """Refuse the JSON of a tokenizer under which not every text survives, or that lacks ids."""
    try:
        parts = json.loads(text)
        model, before = parts["model"], parts["pre_tokenizer"]
        kinds = [model["type"], before["type"], parts["decoder"]["type"]]
        alters = before["add_prefix_space"] is not False or any(
            place.get(key)
            for place, keys in ((parts, _ALTER), (model, _ALTER_MODEL))
            for key in keys
        )
        ids = sorted(model["vocab"].values())
        lacks = not model["vocab"].keys() >= set(alphabet) or ids != list(range(len(ids)))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError("BytePairTokenizer expects the JSON of one; got another text.") from error
    if kinds != ["BPE", "ByteLevel", "ByteLevel"] or alters or lacks:
        raise ValueError(
            "BytePairTokenizer expects byte-level pairs and nothing that changes a text; got a "
            f"tokenizer of {', '.join(quote(kind) for kind in kinds)}."
        )
