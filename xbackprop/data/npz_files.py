"""Read the arrays of an .npz archive without ever unpickling anything."""

import math
import warnings
import zipfile
from pathlib import Path
from typing import IO

import numpy as np

from xbackprop.data.errors import DataError, quote

_SPLIT_NAMES = ("x_train", "y_train", "x_test", "y_test")
_EXPECTED = "Expected the arrays X and y, or x_train, y_train, x_test and y_test"


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """Read the data arrays of an .npz file.

    Parameters
    ----------
    path : Path
        The file. Only the arrays asked for are read; others in it are left alone.

    Returns
    -------
    dict of str to numpy.ndarray
        With the keys ``x`` and ``y``, or ``x_train``, ``y_train``, ``x_test`` and ``y_test``;
        in the file either case will do.

    Raises
    ------
    DataError
        For files that are no archive or cut short, missing arrays, and arrays of objects, which
        only unpickling (running code from the file) could read.
    """
    try:
        archive = zipfile.ZipFile(path)
    except Exception as error:  # zipfile raises many kinds on damaged archives
        raise DataError(f"{path}: {_explain_archive(path)}") from error
    with archive:
        members = _find_arrays(path, archive)
        return {name: _read_array(path, archive, info) for name, info in members.items()}


def _explain_archive(path: Path) -> str:
    with open(path, "rb") as file:
        start = file.read(6)
    if start == b"\x93NUMPY":
        return "this is a single .npy array. Save with np.savez(path, X=..., y=...)."
    if not start:
        return "the file is empty; expected an .npz archive."
    return "not an .npz archive, or cut short. Write it anew with np.savez(path, X=..., y=...)."


def _find_arrays(path: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
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
    names = [info.filename.removesuffix(".npy") for info in archive.infolist()]
    listed = ", ".join(quote(name) for name in names[:20]) or "none"
    raise DataError(f"{path}: {_EXPECTED}; the file holds {listed}.")


def _read_array(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    where = f"{path}, array {quote(info.filename.removesuffix('.npy'))}"
    try:
        with archive.open(info) as file:
            version = np.lib.format.read_magic(file)
            shape, is_fortran, dtype = _read_header(file, version)
            if dtype.kind in "biufU" and not dtype.hasobject:
                _check_size(shape, dtype, info.file_size - file.tell())
                flat = np.frombuffer(file.read(), dtype)
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
    raise DataError(
        f"{where}: expected numbers (or text as labels); got dtype {quote(str(dtype))}."
    )


def _read_header(
    file: IO[bytes], version: tuple[int, int]
) -> tuple[tuple[int, ...], bool, np.dtype]:
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ValueError(f"format version {version[0]}.{version[1]}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of headers written by Python 2
        shape, is_fortran, dtype = readers[version](file)
    return shape, is_fortran, dtype


def _check_size(shape: tuple[int, ...], dtype: np.dtype, available: int) -> None:
    """Believe no header: one that claims a terabyte would be allocated first and missed later."""
    claimed = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or claimed != available:
        raise ValueError(f"its header claims {claimed} bytes, the file has {available}")


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 100 else text[:99] + "…"
