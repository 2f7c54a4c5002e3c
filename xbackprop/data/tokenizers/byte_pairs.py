"""Tokens of several bytes, learned from a text."""

import json
from typing import Any

import numpy as np

from xbackprop.data.errors import DataError, quote
from xbackprop.data.tokenizers.base import check_text, checked_ids

_BYTES = 256  # every byte is a token of its own, so no text has an unknown one

# Parts of a tokenizer's JSON, and of its model's, under which decoding may give another text.
_ALTER = ("normalizer", "post_processor", "truncation", "padding", "added_tokens")
_ALTER_MODEL = (
    "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback",
)  # fmt: skip


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
        check_text(text)
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
        check_text(text)
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
        listed = checked_ids(self, ids).tolist()
        return str(self._tokenizer.decode(listed, skip_special_tokens=False))

    def config(self) -> dict[str, Any]:
        """Return ``{"type": "BytePairTokenizer", "json": ...}``."""
        return {"type": type(self).__name__, "json": self._tokenizer.to_str()}


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
