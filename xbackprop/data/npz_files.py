"""Read the arrays of an .npz archive without ever unpickling anything."""

import io
import math
import os
import warnings
import zipfile
from pathlib import Path
from typing import IO

import numpy as np

from xbackprop.data.errors import DataError, quote

_SPLIT_NAMES = ("x_train", "y_train", "x_test", "y_test")

# What a table may take: deflate shrinks zeros a thousandfold, so that a small file could ask for
# any amount of memory. Data that compresses better than this can be saved with np.savez.
_FREE_BYTES, _MOST_BYTES_PER_BYTE = 64 * 2**20, 100

_LONGEST_HEADER = 10_000  # of an array, as NumPy bounds it
_CHUNK = 2**18
_LONGEST_READ = 2**20  # also of the list of members: some 20,000 of them
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)

_EXPECTED = "Expected the arrays X and y, or x_train, y_train, x_test and y_test"


def read_npz(path: Path, *, needs_target: bool = True) -> dict[str, np.ndarray]:
    """Read the data arrays of an .npz file.

    Parameters
    ----------
    path : Path
        The file. Only the arrays asked for are read; others in it are left alone.
    needs_target : bool
        False also takes a file with ``X`` and no ``y``.

    Returns
    -------
    dict of str to numpy.ndarray
        With the keys ``x`` and ``y``, or ``x_train``, ``y_train``, ``x_test`` and ``y_test``;
        in the file either case will do.

    Raises
    ------
    DataError
        For files that are no archive or cut short, missing arrays, arrays out of proportion to the
        file, and arrays of objects, which only unpickling (running code from the file) could read.
    """
    with _BoundedReader(io.FileIO(path)) as file:
        try:
            archive = zipfile.ZipFile(file)
        except Exception as error:  # zipfile raises many kinds on damaged archives
            raise DataError(f"{path}: {_explain_archive(path)}") from error
        left = _FREE_BYTES + _MOST_BYTES_PER_BYTE * os.fstat(file.fileno()).st_size
        arrays = {}
        for name, info in _find_arrays(path, archive, needs_target).items():
            arrays[name] = _read_array(path, archive, info, left)
            left -= _cost(arrays[name].shape, arrays[name].dtype)
        return arrays


class _BoundedReader(io.BufferedReader):
    """A file that is read in pieces: zipfile takes the list of members in one, however long."""

    def read(self, size: int | None = -1) -> bytes:
        left = os.fstat(self.fileno()).st_size - self.tell()
        if (left if size is None or size < 0 else min(size, left)) > _LONGEST_READ:
            raise ValueError("the list of its members is too long")
        return super().read(size)


def _explain_archive(path: Path) -> str:
    with open(path, "rb") as file:
        start = file.read(6)
    if start == b"\x93NUMPY":
        return "this is a single .npy array. Save with np.savez(path, X=..., y=...)."
    if not start:
        return "the file is empty; expected an .npz archive."
    return "not an .npz archive, or cut short. Write it anew with np.savez(path, X=..., y=...)."


def _find_arrays(
    path: Path, archive: zipfile.ZipFile, needs_target: bool
) -> dict[str, zipfile.ZipInfo]:
    present: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        if not info.filename.endswith(".npy"):
            continue
        name = info.filename.removesuffix(".npy").lower()
        if name in present:
            raise DataError(f"{path}: array {quote(name)} is in the file twice, but for the case.")
        present[name] = info
    for wanted in (("x", "y"), _SPLIT_NAMES):
        if all(name in present for name in wanted):
            other = _SPLIT_NAMES if wanted == ("x", "y") else ("x", "y")
            if any(name in present for name in other):
                raise DataError(f"{path}: holds both forms. {_EXPECTED}, not both.")
            return {name: present[name] for name in wanted}
    if not needs_target and "x" in present:
        return {"x": present["x"]}
    names = [info.filename.removesuffix(".npy") for info in archive.infolist()]
    listed = ", ".join(quote(name) for name in names[:20]) or "none"
    raise DataError(f"{path}: {_EXPECTED}; the file holds {listed}.")


def _read_array(
    path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo, most_bytes: int
) -> np.ndarray:
    where = f"{path}, array {quote(info.filename.removesuffix('.npy'))}"
    if info.compress_type not in _METHODS:
        raise DataError(f"{where}: compressed in another way than np.savez_compressed does it.")
    try:
        with archive.open(info) as file:
            start = file.read(16 + _LONGEST_HEADER)
            shape, is_fortran, dtype, offset = _read_header(start)
            if dtype.kind in "biufU" and not dtype.hasobject:
                _check_size(shape, dtype, info.file_size - offset)
                if _cost(shape, dtype) <= most_bytes:
                    flat = _read_flat(start[offset:], file, info.file_size - offset).view(dtype)
                    _check_text(flat)
                    return flat.reshape(shape, order="F" if is_fortran else "C")
    except MemoryError:
        raise
    except Exception as error:  # damaged bytes raise from zlib, zipfile, numpy, struct
        raise DataError(f"{where}: damaged or cut short ({_one_line(error)}).") from error
    if dtype.hasobject:
        raise DataError(
            f"{where}: holds Python objects, which only unpickling could read, and unpickling runs "
            "code from the file. Save arrays of numbers."
        )
    if dtype.kind not in "biufU":
        raise DataError(
            f"{where}: expected numbers (or text as labels); got dtype {quote(str(dtype))}."
        )
    raise DataError(
        f"{where}: shape {shape} of {dtype} is out of proportion to the file, which it would "
        f"outgrow more than {_MOST_BYTES_PER_BYTE} times. Save it with np.savez, uncompressed."
    )


def _read_header(start: bytes) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """Return what the first bytes of an array say of it, and where its values begin."""
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    file = io.BytesIO(start)
    version = np.lib.format.read_magic(file)
    if version not in readers:
        raise ValueError(f"format version {version[0]}.{version[1]}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of headers written by Python 2
            shape, is_fortran, dtype = readers[version](file)
    except (MemoryError, RecursionError):  # of the parser's stack, in so short a text
        raise ValueError("its header is nested too deeply") from None
    return shape, is_fortran, dtype, file.tell()


def _check_size(shape: tuple[int, ...], dtype: np.dtype, available: int) -> None:
    """Believe no header: one that claims a terabyte would be allocated first and missed later."""
    claimed = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or claimed != available:
        raise ValueError(f"its header claims {claimed} bytes, the file has {available}")


def _cost(shape: tuple[int, ...], dtype: np.dtype) -> int:
    """Return the bytes of an array and of the two float32 copies that a split takes."""
    return math.prod(shape) * (dtype.itemsize + 8)


def _read_flat(start: bytes, file: IO[bytes], size: int) -> np.ndarray:
    """Read bytes piece by piece: what an archive claims is not asked for at once."""
    flat = np.empty(size, np.uint8)
    filled, piece = 0, start
    while filled < size:
        if not piece or len(piece) > size - filled:
            raise ValueError("it has another size than the archive claims")
        flat[filled : filled + len(piece)] = np.frombuffer(piece, np.uint8)
        filled += len(piece)
        piece = file.read(_CHUNK)
    return flat


def _check_text(array: np.ndarray) -> None:
    if array.dtype.kind == "U" and array.size:
        letters = array.view(np.dtype(np.uint32).newbyteorder(array.dtype.byteorder))
        if letters.max() > 0x10FFFF:
            raise ValueError("it holds what is no letter")


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 100 else text[:99] + "…"
