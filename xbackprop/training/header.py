"""The header of a file: bounded before it is parsed, under a checksum, and of one reading only."""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

FORMAT_VERSION = 2

# Room for some 30,000 tensors; both bounds together keep a parsed header below 100 MB.
LARGEST_HEADER_BYTES = 8 * 2**20
MOST_BRACKETS_AND_COMMAS = 400_000

DTYPES = {
    "BOOL": np.dtype(np.bool_),
    "I8": np.dtype(np.int8),
    "U8": np.dtype(np.uint8),
    "I16": np.dtype("<i2"),
    "U16": np.dtype("<u2"),
    "I32": np.dtype("<i4"),
    "U32": np.dtype("<u4"),
    "I64": np.dtype("<i8"),
    "U64": np.dtype("<u8"),
    "F16": np.dtype("<f2"),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
}
_CHECKSUM_ENTRY = re.compile(rb'"checksum":"([0-9a-f]{64})"')


@dataclass(frozen=True)
class TensorEntry:
    """What the table of a file says about a tensor.

    Parameters
    ----------
    dtype : numpy.dtype
        As the array will have it.
    shape : tuple of int
        As the array will have it.
    start : int
        Where its bytes begin in the file.
    """

    dtype: np.dtype
    shape: tuple[int, ...]
    start: int

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


Head = tuple[dict[str, Any], dict[str, TensorEntry], dict[str, str] | None]


def check_head(length: bytes, raw: bytes, size: int) -> Head:
    """Return our header, the table and the checksums; ValueError where they are none.

    Parameters
    ----------
    length : bytes
        The first 8 bytes of a file.
    raw : bytes
        The header; one that is too long may be cut.
    size : int
        Of the whole file.
    """
    if len(raw) > LARGEST_HEADER_BYTES:
        raise ValueError(
            f"not a readable checkpoint: its header is longer than {LARGEST_HEADER_BYTES} bytes"
        )
    if not raw.startswith(b"{"):  # as the format asks, and the library does not check
        raise ValueError("not a readable checkpoint: its header does not begin with a brace")
    tree = _parse(raw)
    metadata = tree.pop("__metadata__", {})
    if not isinstance(metadata, dict) or metadata.get("format") != "xbackprop":
        raise ValueError("a safetensors file, but not one of xbackprop")
    entries = list(_CHECKSUM_ENTRY.finditer(raw))
    if len(entries) == 1 and _checksum(length, raw, entries[0]) != metadata.get("checksum"):
        raise ValueError("its header is damaged: the checksum is another. Use a copy")
    header = _parse(metadata.get("xbackprop", ""))
    version = _check_version(metadata, header, len(entries))
    table = {key: _table_entry(key, entry, 8 + len(raw)) for key, entry in tree.items()}
    checksums = header.pop("checksums", None)
    if version > 1 and (not isinstance(checksums, dict) or checksums.keys() != table.keys()):
        raise ValueError("the checksums are those of other tensors")
    if any(entry.start + entry.nbytes > size for entry in table.values()):
        raise ValueError("not a readable checkpoint: cut short")
    return header, table, checksums


def _check_version(metadata: dict[str, Any], header: dict[str, Any], num_entries: int) -> int:
    version = header.get("format_version")
    if type(version) is not int or not 1 <= version <= FORMAT_VERSION:
        raise ValueError(
            f"format version {version!r}; this xbackprop reads versions 1 to {FORMAT_VERSION}. "
            "Read it with the release that wrote it, or a later one"
        )
    # Nothing that ever had checksums is read without them, whatever it says of its version.
    has_checksums = ("checksum" in metadata, "checksums" in header, num_entries == 1)
    if has_checksums != (version > 1,) * 3 or num_entries > 1:
        raise ValueError(f"damaged: format version {version}, and the checksums of another")
    return version


def seal(metadata: Mapping[str, str], table: Mapping[str, Any]) -> bytes:
    """Return length and header of a safetensors file, with the digits of ``checksum`` filled in.

    Parameters
    ----------
    metadata : mapping of str to str
        In this order: the library would write them in another one each time.
    table : mapping
        As in the file.

    Returns
    -------
    bytes
    """
    tree = {"__metadata__": dict(metadata), **table}
    raw = json.dumps(tree, ensure_ascii=False, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)  # so that tensors are aligned, as the format asks
    length = len(raw).to_bytes(8, "little")
    entry = _CHECKSUM_ENTRY.search(raw)
    if entry is not None:
        start, end = entry.span(1)
        raw = raw[:start] + _checksum(length, raw, entry).encode() + raw[end:]
    return length + raw


def _parse(raw: bytes | Any) -> dict[str, Any]:
    """Parse a JSON object, bounded in memory, and with one reading only."""
    try:
        text = raw.decode() if isinstance(raw, bytes) else raw
    except UnicodeDecodeError:
        text = None
    if not isinstance(text, str):
        raise ValueError("not a readable checkpoint: its header is no text in UTF-8")
    count = sum(map(text.count, "[{,"))
    if count > MOST_BRACKETS_AND_COMMAS:
        raise ValueError(
            f"not a readable checkpoint: its header has {count} brackets and commas, more than "
            f"{MOST_BRACKETS_AND_COMMAS}"
        )
    try:
        tree = json.loads(text, object_pairs_hook=unique_keys)
    except RecursionError:
        raise ValueError("not a readable checkpoint: its header is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"not a readable checkpoint: its header: {error}") from error
    if not isinstance(tree, dict):
        raise ValueError("not a readable checkpoint: its header is no JSON object")
    return tree


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of JSON, whose keys may stand once each; for ``object_pairs_hook``."""
    tree = dict(pairs)
    if len(tree) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return tree


def _table_entry(key: str, entry: Any, head_size: int) -> TensorEntry:
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"not a readable checkpoint: tensor {key!r} has no dtype, shape or place")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(f"tensor {key!r} has dtype {str(dtype)[:20]!r}; no model has that")
    for numbers in (shape, offsets):
        if not isinstance(numbers, list) or not all(
            type(number) is int and 0 <= number < 2**63 for number in numbers
        ):
            raise ValueError(f"not a readable checkpoint: tensor {key!r} has no shape or place")
    if len(offsets) != 2:
        raise ValueError(f"not a readable checkpoint: tensor {key!r} has no place")
    start, end = span(entry, head_size)
    found = TensorEntry(DTYPES[dtype], tuple(shape), start)
    if end - start != found.nbytes:
        raise ValueError(f"not a readable checkpoint: tensor {key!r} has another size than shape")
    return found


def span(entry: Mapping[str, Any], head_size: int) -> tuple[int, int]:
    """Return where a tensor of the table begins and ends in the file."""
    start, end = entry["data_offsets"]
    return head_size + start, head_size + end


def _checksum(length: bytes, raw: bytes, entry: re.Match[bytes]) -> str:
    start, end = entry.span(1)
    digest = hashlib.sha256(length)
    for part in (raw[:start], b"0" * (end - start), raw[end:]):
        digest.update(part)
    return digest.hexdigest()
