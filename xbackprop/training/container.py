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
import os
from collections.abc import Iterator, Mapping
from typing import IO, Any

import numpy as np

from xbackprop.training.atomic import write_atomically
from xbackprop.training.header import (
    DTYPES,
    FORMAT_VERSION,
    LARGEST_HEADER_BYTES,
    Head,
    TensorEntry,
    check_head,
    seal,
    span,
)

_PIECE = 2**20  # of a tensor that is only compared with its checksum


class CheckpointError(ValueError):
    """A file that is no checkpoint, is damaged, or is not one that this version can read."""


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
        if self._checksums:
            self._compare(key, hashlib.sha256(raw))
        return array

    def verify(self, key: str) -> None:
        """Compare a tensor with its checksum, if it has one, without holding it."""
        if not self._checksums:
            return
        entry = self.table[key]
        self._file.seek(entry.start)
        left, digest = entry.nbytes, hashlib.sha256()
        while piece := self._file.read(min(left, _PIECE)):
            digest.update(piece)
            left -= len(piece)
        self._compare(key, digest)

    def _compare(self, key: str, digest: "hashlib._Hash") -> None:
        if self._checksums and digest.hexdigest() != self._checksums[key]:
            raise self.refusal(f"tensor {key!r} is damaged: its checksum is another. Use a copy")


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
        if array.dtype.newbyteorder("=") not in DTYPES.values():
            raise ValueError(f"save: tensor {key!r} of dtype {array.dtype} has no place in a file")
    # safetensors writes a Fortran-ordered or strided array in the wrong order, silently.
    contiguous = {key: np.asarray(array, order="C") for key, array in tensors.items()}
    blob = memoryview(serialize(contiguous))
    head_size = 8 + int.from_bytes(blob[:8], "little")
    table = json.loads(bytes(blob[8:head_size]))
    checksums = {
        key: hashlib.sha256(blob[slice(*span(entry, head_size))]).hexdigest()
        for key, entry in table.items()
    }
    try:
        text = json.dumps(
            {"format_version": FORMAT_VERSION, **header, "checksums": checksums}, default=_plain
        )
        head = seal({"format": "xbackprop", "checksum": "0" * 64, "xbackprop": text}, table)
        check_head(head[:8], head[8:], len(head) + len(blob) - head_size)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"save: no reader would take this: {error}") from error
    with write_atomically(path) as file:
        file.write(head)
        file.write(blob[head_size:])


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
        except ValueError as error:
            raise refusal(name, error) from error
        yield Container(name, file, *content)


def refusal(name: str, problem: object) -> CheckpointError:
    """Return the error for a file: one printable line, whatever stands in the file."""
    text = " ".join(str(problem).encode("utf-8", "backslashreplace").decode().split())
    return CheckpointError(f"{name}: {text if len(text) <= 2000 else text[:1999] + '…'}")


def _read_head(name: str, file: IO[bytes]) -> Head:
    from safetensors import SafetensorError, safe_open

    size = os.fstat(file.fileno()).st_size
    length = file.read(8)
    head_size = int.from_bytes(length, "little")
    if len(length) < 8 or head_size > size - 8:
        raise ValueError("not a readable checkpoint: cut short, or of another kind")
    # One byte more than is allowed is enough to be refused.
    content = check_head(length, file.read(min(head_size, LARGEST_HEADER_BYTES + 1)), size)
    try:
        with safe_open(name, framework="numpy"):  # judges offsets, holes and sizes
            return content
    except SafetensorError as error:
        raise ValueError(f"not a readable checkpoint: {error}") from error


def _plain(value: Any) -> Any:
    """Write NumPy's numbers as JSON's."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(
        f"save: cannot write {type(value).__name__} as plain data (JSON): {value!r}. "
        "Give numbers, text, lists and dicts."
    )
