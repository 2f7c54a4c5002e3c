"""Columns that stand under each other in a terminal, in any script."""

import unicodedata
from collections.abc import Iterator, Sequence


def aligned(rows: Sequence[Sequence[str]], left: int = 1) -> Iterator[str]:
    """Return rows as lines: the first ``left`` columns begin, the others end below each other.

    Parameters
    ----------
    rows : sequence of sequence of str
        Of equal lengths.
    left : int
        How many columns are words.

    Returns
    -------
    iterator of str
    """
    widths = [max(map(_wide, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            cell + gap if place < left else gap + cell
            for place, (cell, gap) in enumerate(
                (cell, " " * (width - _wide(cell))) for cell, width in zip(row, widths, strict=True)
            )
        ]
        yield "    " + "   ".join(cells).rstrip()


def _wide(text: str) -> int:
    """Return how many columns of a terminal a text takes; Chinese characters take two."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)
