"""A tokenizer made anew of its plain data."""

from collections.abc import Mapping
from typing import Any

from xbackprop.data.errors import quote
from xbackprop.data.tokenizers.base import Tokenizer
from xbackprop.data.tokenizers.byte_pairs import BytePairTokenizer
from xbackprop.data.tokenizers.characters import CharacterTokenizer


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
