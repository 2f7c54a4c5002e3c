"""Histograms over time as pictures: a column per recorded update, darker where more numbers are."""

import base64
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from xbackprop.cli.report.axes import make_axis, power_text
from xbackprop.cli.report.lines import SMALL, draw_axes, svg
from xbackprop.observe.statistics import EDGES

_MOST_COLUMNS = 120
_PER_DECADE, _SMALLEST = 4, -8  # of EDGES
_SHOWN = 16  # bins above and below zero: four powers of ten; what is smaller is one bin with zero
_ZERO = len(EDGES) // 2  # the bin around zero
_COLOURS = {"outputs": (47, 125, 220), "gradients": (214, 104, 38)}  # on white and on black


def density_chart(rows: Sequence[tuple[int, dict[str, Any]]], kind: str, label: str) -> str:
    """Return a picture of histograms.

    Parameters
    ----------
    rows : sequence of tuple
        Updates with what :class:`xbackprop.observe.StatisticsRecorder` tells of an array.
    kind : {"outputs", "gradients"}
        What the numbers are.
    label : str
        For who cannot see it.

    Returns
    -------
    str
    """
    steps = [float(step) for step, _ in rows]
    largest = max(_distance(told) for _, told in rows)
    wanted = np.linspace(steps[0], steps[-1], min(_MOST_COLUMNS, len(rows)))
    chosen = np.searchsorted(steps, wanted + 1e-6, side="right") - 1
    heights = _cropped(np.stack([all_counts(rows[place][1]) for place in chosen]), largest)
    strength = np.sqrt(heights / heights.max(axis=1, keepdims=True))  # a few are seen among many
    picture = _shaded(strength.T[::-1], _COLOURS[kind])  # large numbers on top
    x_ticks = make_axis(steps, SMALL.left, SMALL.right, log=False).ticks(4, whole=True)
    width, height = SMALL.right - SMALL.left, SMALL.bottom - SMALL.top
    image = (
        f'<image class="density" x="{SMALL.left:g}" y="{SMALL.top:g}" width="{width:g}" '
        f'height="{height:g}" preserveAspectRatio="none" href="{picture}"/>'
    )
    return svg(SMALL, label, [*draw_axes(SMALL, x_ticks, _ticks(largest), "update"), image])


def all_counts(told: dict[str, Any]) -> np.ndarray:
    """Return the counts of all bins, empty ones too."""
    counts = np.zeros(len(EDGES) + 1)
    first, filled = told["first"], told["counts"]
    counts[first : first + len(filled)] = filled
    return counts


def _distance(told: dict[str, Any]) -> int:
    """Return how many bins lie between zero and the largest number."""
    return max(_ZERO - told["first"], told["first"] + len(told["counts"]) - 1 - _ZERO)


def _cropped(counts: np.ndarray, largest: int) -> np.ndarray:
    """Return counts of the bins that are shown: the middle one holds all that is smaller."""
    lowest = _lowest(largest)
    distance = np.arange(counts.shape[1]) - _ZERO
    below, above = (
        counts[:, (sign * distance >= lowest) & (sign * distance < lowest + _SHOWN)]
        for sign in (-1, 1)
    )
    middle = counts[:, np.abs(distance) < lowest].sum(axis=1, keepdims=True)
    return np.concatenate([below, middle, above], axis=1)


def _lowest(largest: int) -> int:
    return max(1, largest - _SHOWN + 1)


def _ticks(largest: int) -> list[tuple[float, str]]:
    """Return places and texts of zero and, on either side, of every other power of ten."""
    middle = (SMALL.top + SMALL.bottom) / 2
    bin_height = (SMALL.bottom - SMALL.top) / (2 * _SHOWN + 1)
    found = [(middle, "0")]
    upwards = range(largest // _PER_DECADE, 0, -2)
    for number in upwards:
        bins = _PER_DECADE * number - _lowest(largest) + 1.5  # from the middle to the power
        if bins < 3:
            break
        text = power_text(number + _SMALLEST)
        found += [(middle - bins * bin_height, text), (middle + bins * bin_height, f"-{text}")]
    return found


def _shaded(strength: np.ndarray, colour: tuple[int, int, int]) -> str:
    """Return numbers from 0 to 1 as a picture of one colour, clear where they are 0."""
    pixels = np.empty((*strength.shape, 4), np.uint8)
    pixels[..., :3] = colour
    pixels[..., 3] = np.rint(255 * strength)
    return png(pixels)


def png(pixels: np.ndarray) -> str:
    """Return a picture as a ``data:`` address.

    Parameters
    ----------
    pixels : numpy.ndarray of uint8, shape (height, width, channels)
        1 channel is grey, 3 are red, green and blue, and 4 have opacity as well.

    Returns
    -------
    str

    References
    ----------
    Portable Network Graphics Specification, second edition, W3C (2003), sections 5 and 9.
    """
    height, width, channels = pixels.shape
    kind = {1: 0, 3: 2, 4: 6}[channels]
    lines = np.zeros((height, 1 + width * channels), np.uint8)  # a line begins with its filter: 0
    lines[:, 1:] = pixels.reshape(height, -1)
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)),
        (b"IDAT", zlib.compress(lines.tobytes(), 9)),
        (b"IEND", b""),
    ]
    content = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts
    )
    return "data:image/png;base64," + base64.b64encode(content).decode()
