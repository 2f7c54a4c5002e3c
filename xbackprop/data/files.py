"""Files that are asked for: whether there is one, of the right kind, in UTF-8."""

import difflib
import os
from collections.abc import Iterable
from pathlib import Path

from xbackprop.data.errors import DataError, quote


def check_path(path: str | os.PathLike[str], extensions: tuple[str, ...]) -> Path:
    """Return the path of a file that exists and has one of the extensions."""
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"Expected the path of a file; got {type(path).__name__}.")
    checked = Path(path)
    valid = " or ".join(extensions)
    if checked.is_dir():
        raise DataError(f"{checked}: is a directory. Expected a {valid} file.")
    if not checked.exists():
        raise DataError(f"{checked}: no such file.{_suggest_file(checked, extensions)}")
    if checked.suffix.lower() not in extensions:
        received = f"extension {quote(checked.suffix)}" if checked.suffix else "no extension"
        raise DataError(f"{checked}: {received}. Expected a {valid} file.")
    return checked


def _suggest_file(path: Path, extensions: tuple[str, ...]) -> str:
    try:
        names = [entry.name for entry in path.parent.iterdir() if entry.suffix in extensions]
    except (OSError, ValueError):
        return ""
    close = difflib.get_close_matches(path.name, names, n=1)
    return f" Did you mean {str(path.with_name(close[0]))!r}?" if close else ""


def refuse_mistyped_name(
    name_or_path: str | os.PathLike[str],
    kind: str,
    names: Iterable[str],
    extensions: tuple[str, ...],
) -> None:
    """Raise for what is no path (no folder, no extension, nothing there) and none of the names."""
    path = Path(name_or_path)
    if path.name != str(name_or_path) or path.suffix or path.exists():
        return
    known = tuple(names)
    close = difflib.get_close_matches(str(name_or_path).lower(), known, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise DataError(
        f"Unknown {kind} {str(name_or_path)!r}. Expected one of the built-in ones "
        f"({', '.join(known)}) or the path of a {' or '.join(extensions)} file.{hint}"
    )


def explain_encoding(path: Path) -> DataError:
    """Return the error for a file that is not UTF-8: where its first wrong byte stands."""
    with open(path, "rb") as file:
        for line, raw in enumerate(file, 1):
            if line == 1 and raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
                return DataError(f"{path}, line 1: this is UTF-16. Save the file as UTF-8.")
            try:
                raw.decode("utf-8")
            except UnicodeDecodeError as error:
                return DataError(
                    f"{path}, line {line}, byte {error.start + 1} of the line: "
                    f"0x{raw[error.start]:02x} is not UTF-8. Save the file as UTF-8."
                )
    return DataError(f"{path}: not UTF-8. Save the file as UTF-8.")
