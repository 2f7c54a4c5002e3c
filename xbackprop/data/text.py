"""Texts for language models: read, cut into tokens, and laid out in windows."""

import gzip
import os
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np

from xbackprop.data.arrays import as_host_array
from xbackprop.data.errors import DataError, quote
from xbackprop.data.files import check_path, explain_encoding, refuse_mistyped_name
from xbackprop.data.tokenizers import BytePairTokenizer, CharacterTokenizer, Tokenizer

_NAME = "shakespeare"
TEXT_NAMES = (_NAME,)
TEXT_EXTENSIONS = (".txt",)
_TOKENS = ("char", "bpe")


@dataclass(frozen=True, eq=False, repr=False)
class Corpus:
    """A text as windows of tokens, in a training and a test part.

    Parameters
    ----------
    x_train, x_test : numpy.ndarray of int64, shape (windows, context_length)
        Token ids, on the host.
    y_train, y_test : numpy.ndarray of int64, shape (windows, context_length)
        Of each token the one that follows it.
    tokenizer : Tokenizer
        Between text and ids.
    name : str
        The text's name, or its file's.
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    tokenizer: Tokenizer
    name: str

    def __repr__(self) -> str:
        return (
            f"Corpus({self.name!r}, {self.tokenizer.vocab_size} tokens, "
            f"x_train {self.x_train.shape}, x_test {self.x_test.shape})"
        )


def load_text(name_or_path: str | os.PathLike[str]) -> str:
    """Return a built-in text by its name, or the text of a file.

    Parameters
    ----------
    name_or_path : str or path
        ``"shakespeare"`` (1.1 MB of plays, which come with the package), or the path of a ``.txt``
        file in UTF-8.

    Returns
    -------
    str
        As it is in the file, line ends included; a byte order mark at its start is no text.

    Raises
    ------
    DataError
        For an unknown name, for a file that is missing, empty or cannot be read, and for bytes that
        are not UTF-8; names file, line and byte.

    References
    ----------
    ``SHAKESPEARE.md`` beside this file says where the plays are from.

    Examples
    --------
    >>> load_text("shakespeare")[:14]
    'First Citizen:'
    """
    if isinstance(name_or_path, str) and name_or_path == _NAME:
        packaged = resources.files(__package__).joinpath("shakespeare.txt.gz")
        return gzip.decompress(packaged.read_bytes()).decode("ascii")
    if isinstance(name_or_path, str | os.PathLike):
        refuse_mistyped_name(name_or_path, "text", TEXT_NAMES, TEXT_EXTENSIONS)
    path = check_path(name_or_path, TEXT_EXTENSIONS)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from error
    except UnicodeDecodeError as error:
        raise explain_encoding(path) from error
    if not text:
        raise DataError(f"{path}: is empty. Expected a text.")
    return text


def token_windows(tokens: Any, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Lay tokens out in windows that do not overlap, each with the tokens that follow.

    Parameters
    ----------
    tokens : array_like of int, shape (tokens,)
        On the host.
    length : int
        Tokens in a window.

    Returns
    -------
    x, y : numpy.ndarray of int64, shape (windows, length)
        ``y[i, t]`` is the token after ``x[i, t]``. There are ``(tokens - 1) // length`` windows;
        what is left over at the end is dropped.

    Raises
    ------
    TypeError
        For tokens that are not integers, or lie on a device.
    ValueError
        For a length below 1, another shape, and too few tokens for one window.

    Examples
    --------
    >>> x, y = token_windows([5, 6, 7, 8, 9, 10], 2)
    >>> x.tolist(), y.tolist()
    ([[5, 6], [7, 8]], [[6, 7], [8, 9]])
    """
    array = as_host_array(tokens, "tokens", allow_empty=True)
    if isinstance(length, bool) or not isinstance(length, int | np.integer):
        raise TypeError(f"token_windows expects length to be a whole number; got {length!r}.")
    if length < 1:
        raise ValueError(f"token_windows expects length >= 1; got {length}.")
    if array.ndim != 1:
        raise ValueError(f"token_windows expects tokens of shape (tokens,); got {array.shape}.")
    if len(array) <= length:
        raise ValueError(
            f"token_windows expects more than {length} tokens, a window and the token after it; "
            f"got {len(array)}."
        )
    if array.dtype.kind not in "iu":
        raise TypeError(f"token_windows expects integer tokens; got {array.dtype}.")
    count = (len(array) - 1) // length
    x = array[: count * length].reshape(count, length)
    y = array[1 : count * length + 1].reshape(count, length)
    return x.astype(np.int64), y.astype(np.int64)


def load_corpus(
    name_or_path: str | os.PathLike[str],
    *,
    tokens: str = "char",
    vocab_size: int | None = None,
    context_length: int,
    test_size: float = 0.1,
) -> Corpus:
    """Load a text as what a language model is trained on.

    Parameters
    ----------
    name_or_path : str or path
        As for :func:`load_text`.
    tokens : {"char", "bpe"}, default "char"
        One token for each character (:class:`CharacterTokenizer`, of all characters of the text),
        or byte pairs (:class:`BytePairTokenizer`, trained on the training part).
    vocab_size : int, optional
        Of byte pairs; None is 512. Characters have as many as there are, and refuse it.
    context_length : int
        Tokens in a window.
    test_size : float, default 0.1
        Share of the text that is held out, between 0 and 1: its last characters.

    Returns
    -------
    Corpus
        The two parts are cut into windows apart, so no token of the test part is a target of
        training.

    Raises
    ------
    DataError
        Whatever is wrong with the text; a text too small for a window of each part; options out of
        range.

    Examples
    --------
    >>> load_corpus("shakespeare", context_length=64)
    Corpus('shakespeare', 65 tokens, x_train (15685, 64), x_test (1742, 64))
    """
    if tokens not in _TOKENS:
        raise DataError(f"tokens expects one of {', '.join(_TOKENS)}; got {quote(tokens)}.")
    if tokens == "char" and vocab_size is not None:
        raise DataError("vocab_size is of byte pairs: leave it out, or choose tokens='bpe'.")
    if not isinstance(test_size, float | np.floating) or not 0 < test_size < 1:
        raise DataError(f"test_size expects a share between 0 and 1; got {test_size!r}.")
    text = load_text(name_or_path)
    name = os.path.basename(os.fspath(name_or_path))
    cut = len(text) - max(1, round(len(text) * test_size))
    try:
        tokenizer: Tokenizer
        if tokens == "char":
            tokenizer = CharacterTokenizer(text)
        else:
            tokenizer = BytePairTokenizer(text[:cut], 512 if vocab_size is None else vocab_size)
    except DataError:
        raise
    except ValueError as error:
        raise DataError(f"{name}: {error}") from error
    x_train, y_train = _part(name, "training", tokenizer.encode(text[:cut]), context_length)
    x_test, y_test = _part(name, "test", tokenizer.encode(text[cut:]), context_length)
    return Corpus(x_train, y_train, x_test, y_test, tokenizer, name)


def _part(
    name: str, part: str, tokens: np.ndarray, context_length: int
) -> tuple[np.ndarray, np.ndarray]:
    try:
        return token_windows(tokens, context_length)
    except ValueError as error:
        raise DataError(
            f"{name}: the {part} part does not fit context_length={context_length}: {error}"
        ) from error
