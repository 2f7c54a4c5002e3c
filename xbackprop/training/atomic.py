"""Writing a file so that under its name there is always a whole one: the old or the new."""

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import IO

_PREFIX, _SUFFIX = ".xbackprop-", ".tmp"

# A file system that cannot sync a folder says one of these; the new file is in its place then.
_NOT_SUPPORTED = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP)


@contextlib.contextmanager
def write_atomically(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Open a file that appears under its name only when it is whole and on the disk.

    Parameters
    ----------
    path : path
        Where to; an existing file is replaced in one move.

    Yields
    ------
    binary file

    Raises
    ------
    OSError
        When the disk refuses; ``filename`` is ``path``. The old file is then still there, unless
        all that failed was making the finished rename durable.
    """
    target = Path(path)
    try:
        with _temporary_beside(target) as (file, temporary):
            yield file
            file.flush()
            os.fsync(file.fileno())
            file.close()
            os.replace(temporary, target)
        _sync_folder(target.parent)
    except OSError as error:
        if error.errno is None:  # without a number the name would take the message's place
            error.strerror = str(error)
        error.filename = os.fspath(target)
        del error.filename2  # of a rename: None would be printed
        raise


@contextlib.contextmanager
def _temporary_beside(target: Path) -> Iterator[tuple[IO[bytes], Path]]:
    """Open a file that is gone at the end, unless it was renamed."""
    if not target.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, f"no such folder: {target.parent}")
    # Beside the target, for a rename cannot cross file systems. "x": never another's file, and made
    # with the permissions that the process gives to new files.
    temporary = target.parent / f"{_PREFIX}{secrets.token_hex(8)}{_SUFFIX}"
    file = open(temporary, "xb")  # noqa: SIM115  (closed below, whatever happens)
    try:
        with file:
            yield file, temporary
    except BaseException:
        with contextlib.suppress(OSError):  # what went wrong first is what matters
            os.unlink(temporary)
        raise


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable, where the platform can open folders and sync them."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NOT_SUPPORTED:
            raise
    finally:
        os.close(descriptor)


def remove_leftovers(folder: str | os.PathLike[str]) -> list[Path]:
    """Delete what killed processes left half-written in a folder.

    Parameters
    ----------
    folder : path
        Nobody may be writing into it: the caller holds its lock.

    Returns
    -------
    list of Path
        What was deleted.
    """
    leftovers = sorted(Path(folder).glob(f"{_PREFIX}*{_SUFFIX}"))
    for path in leftovers:
        path.unlink(missing_ok=True)
    return leftovers
