"""The file format: safetensors with our header, and checksums that cover every bit.

Version 2. The metadata of the safetensors header holds ``format = "xbackprop"``; ``xbackprop``, one
JSON text with ``format_version``, ``checksums`` (SHA-256 of every tensor's bytes) and what the
caller adds; and ``checksum``, the SHA-256 of the 8 length bytes and the whole safetensors header
with the 64 digits of this entry replaced by zeros. Later versions keep that entry. Version 1 had
neither checksum; it stays readable.

A file is not trusted: its header is bounded before it is parsed, and memory for a tensor is taken
when the caller asks for it, who has compared the table of tensors with what it expects by then.
"""

import contextlib
import errno
import hashlib
import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

from xbackprop.training.atomic import write_atomically

FORMAT_VERSION = 2

# Room for some 30,000 tensors; both bounds together keep a parsed header below 100 MB.
LARGEST_HEADER_BYTES = 8 * 2**20
MOST_BRACKETS_AND_COMMAS = 400_000

_DTYPES = {
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


class CheckpointError(ValueError):
    """A file that is no checkpoint, is damaged, or is not one that this version can read."""


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


class Container:
    """An open file whose header and table have been checked, and whose tensors can be read.

    Parameters
    ----------
    name : str
        Path of the file.
    file : binary file
        Open at any place.
    header : dict
        Our JSON.
    table : dict of str to TensorEntry
        Every tensor.
    checksums : dict of str to str, or None
        Of every tensor; version 1 has none.

    Attributes
    ----------
    name, header, table
        As given.
    """

    def __init__(
        self,
        name: str,
        file: IO[bytes],
        header: dict[str, Any],
        table: dict[str, TensorEntry],
        checksums: dict[str, str] | None,
    ) -> None:
        self.name, self.header, self.table = name, header, table
        self._file, self._checksums = file, checksums

    def refusal(self, problem: object) -> CheckpointError:
        """Return the error that says what is wrong with this file."""
        return refusal(self.name, problem)

    def read(self, key: str) -> np.ndarray:
        """Return a tensor, freshly allocated.

        Parameters
        ----------
        key : str
            One of the table's.

        Returns
        -------
        numpy.ndarray

        Raises
        ------
        CheckpointError
            When its bytes are not those that were written.
        """
        entry = self.table[key]
        # Not by the library: it ends in a panic where memory runs out, and dies of a bus error on
        # a file that is cut short meanwhile.
        try:
            array = np.empty(entry.shape, entry.dtype)
        except ValueError as error:
            raise self.refusal(f"tensor {key!r}: {error}") from error
        raw = array.reshape(-1).view(np.uint8).data
        self._file.seek(entry.start)
        if self._file.readinto(raw) != array.nbytes:  # type: ignore[attr-defined]
            raise self.refusal(f"tensor {key!r} is cut short; the file changed while it was read")
        if self._checksums and hashlib.sha256(raw).hexdigest() != self._checksums[key]:
            raise self.refusal(f"tensor {key!r} is damaged: its checksum is another. Use a copy")
        return array


def write(
    path: str | os.PathLike[str], tensors: Mapping[str, np.ndarray], header: Mapping[str, Any]
) -> None:
    """Write a file; the same content gives the same bytes.

    Parameters
    ----------
    path : path
        Where to; an existing file is replaced in one move.
    tensors : mapping of str to numpy.ndarray
        In any memory order.
    header : mapping
        Plain data (JSON). ``format_version`` and ``checksums`` are added.

    Raises
    ------
    OSError
        When the disk refuses; names ``path``.
    TypeError
        When the header is not plain data.
    ValueError
        For what :func:`open_container` would refuse.
    """
    from safetensors.numpy import save as serialize

    for key, array in tensors.items():
        if array.dtype.newbyteorder("=") not in _DTYPES.values():
            raise ValueError(f"save: tensor {key!r} of dtype {array.dtype} has no place in a file")
    # safetensors writes a Fortran-ordered or strided array in the wrong order, silently.
    contiguous = {key: np.asarray(array, order="C") for key, array in tensors.items()}
    blob = memoryview(serialize(contiguous))
    head_size = 8 + int.from_bytes(blob[:8], "little")
    table = json.loads(bytes(blob[8:head_size]))
    checksums = {
        key: hashlib.sha256(blob[slice(*_span(entry, head_size))]).hexdigest()
        for key, entry in table.items()
    }
    try:
        text = json.dumps(
            {"format_version": FORMAT_VERSION, **header, "checksums": checksums}, default=_plain
        )
        head = seal({"format": "xbackprop", "checksum": "0" * 64, "xbackprop": text}, table)
        _check_head(head[:8], head[8:], len(head) + len(blob) - head_size)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"save: no reader would take this: {error}") from error
    with write_atomically(path) as file:
        file.write(head)
        file.write(blob[head_size:])


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


@contextlib.contextmanager
def open_container(path: str | os.PathLike[str]) -> Iterator[Container]:
    """Open a file and check its header; read no tensor yet.

    Parameters
    ----------
    path : path
        The file.

    Yields
    ------
    Container

    Raises
    ------
    CheckpointError
        When it is no file of ours, is damaged, or has a newer format.
    OSError
        When it cannot be opened or read.
    """
    name = os.fsdecode(path)
    if not os.path.isfile(name):
        raise FileNotFoundError(errno.ENOENT, "no such file", name)
    with open(name, "rb") as file:
        try:
            content = _read_head(name, file)
        except (ValueError, RecursionError) as error:
            raise refusal(name, error) from error
        yield Container(name, file, *content)


def refusal(name: str, problem: object) -> CheckpointError:
    """Return the error for a file: one printable line, whatever stands in the file."""
    text = " ".join(str(problem).encode("utf-8", "backslashreplace").decode().split())
    return CheckpointError(f"{name}: {text if len(text) <= 2000 else text[:1999] + '…'}")


Content = tuple[dict[str, Any], dict[str, TensorEntry], dict[str, str] | None]


def _read_head(name: str, file: IO[bytes]) -> Content:
    from safetensors import SafetensorError, safe_open

    size = os.fstat(file.fileno()).st_size
    length = file.read(8)
    head_size = int.from_bytes(length, "little")
    if len(length) < 8 or head_size > size - 8:
        raise ValueError("not a readable checkpoint: cut short, or of another kind")
    # One byte more than is allowed is enough to be refused.
    content = _check_head(length, file.read(min(head_size, LARGEST_HEADER_BYTES + 1)), size)
    try:
        with safe_open(name, framework="numpy"):  # judges offsets, holes and sizes
            return content
    except SafetensorError as error:
        raise ValueError(f"not a readable checkpoint: {error}") from error


def _check_head(length: bytes, raw: bytes, size: int) -> Content:
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
    version = header.get("format_version")
    if type(version) is not int or not 1 <= version <= FORMAT_VERSION:
        raise ValueError(
            f"format version {version!r}; this xbackprop reads versions 1 to {FORMAT_VERSION}. "
            "Read it with the release that wrote it, or a later one"
        )
    has_checksums = "checksum" in metadata, "checksums" in header
    # Nothing that ever had checksums is read without them, whatever it says of its version.
    if has_checksums != (version > 1, version > 1) or len(entries) != (version > 1):
        raise ValueError(f"damaged: format version {version}, and the checksums of another")
    table = {key: _table_entry(key, entry, 8 + len(raw)) for key, entry in tree.items()}
    checksums = header.pop("checksums", None)
    if version > 1 and (not isinstance(checksums, dict) or checksums.keys() != table.keys()):
        raise ValueError("the checksums are those of other tensors")
    if any(entry.start + _nbytes(entry) > size for entry in table.values()):
        raise ValueError("not a readable checkpoint: cut short")
    return header, table, checksums


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
        tree = json.loads(text, object_pairs_hook=_unique)
    except RecursionError:
        raise ValueError("not a readable checkpoint: its header is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"not a readable checkpoint: its header: {error}") from error
    if not isinstance(tree, dict):
        raise ValueError("not a readable checkpoint: its header is no JSON object")
    return tree


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    tree = dict(pairs)
    if len(tree) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return tree


def _table_entry(key: str, entry: Any, head_size: int) -> TensorEntry:
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"not a readable checkpoint: tensor {key!r} has no dtype, shape or place")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise ValueError(f"tensor {key!r} has dtype {str(dtype)[:20]!r}; no model has that")
    for numbers in (shape, offsets):
        if not isinstance(numbers, list) or not all(
            type(number) is int and 0 <= number < 2**63 for number in numbers
        ):
            raise ValueError(f"not a readable checkpoint: tensor {key!r} has no shape or place")
    if len(offsets) != 2:
        raise ValueError(f"not a readable checkpoint: tensor {key!r} has no place")
    start, end = _span(entry, head_size)
    found = TensorEntry(_DTYPES[dtype], tuple(shape), start)
    if end - start != _nbytes(found):
        raise ValueError(f"not a readable checkpoint: tensor {key!r} has another size than shape")
    return found


def _span(entry: Mapping[str, Any], head_size: int) -> tuple[int, int]:
    start, end = entry["data_offsets"]
    return head_size + start, head_size + end


def _nbytes(entry: TensorEntry) -> int:
    return math.prod(entry.shape) * entry.dtype.itemsize


def _checksum(length: bytes, raw: bytes, entry: re.Match[bytes]) -> str:
    start, end = entry.span(1)
    digest = hashlib.sha256(length)
    for part in (raw[:start], b"0" * (end - start), raw[end:]):
        digest.update(part)
    return digest.hexdigest()


def _plain(value: Any) -> Any:
    """Write NumPy's numbers as JSON's."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(
        f"save: cannot write {type(value).__name__} as plain data (JSON): {value!r}. "
        "Give numbers, text, lists and dicts."
    )
