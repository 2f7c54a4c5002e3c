"""A disk that fails at any point of a save: the old file loads, and the error names the path."""

import builtins
import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import xbackprop as xb
from xbackprop.training.atomic import remove_leftovers

nn = xb.nn

pytestmark = pytest.mark.skipif(os.name != "posix", reason="folders are synced on POSIX only")

ERRORS = (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS, errno.EACCES)


class Disk:
    """Counts every call to the disk, and lets one of them fail."""

    def __init__(self, folder: Path, fails_at: int | None = None, number: int = errno.EIO) -> None:
        self.folder, self.fails_at, self.number = folder, fails_at, number
        self.calls: list[str] = []

    def call(self, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        self.calls.append(name)
        if len(self.calls) - 1 != self.fails_at:
            return function(*arguments)
        if name == "write":  # as a disk does that becomes full on the way
            function(bytes(arguments[0])[: len(arguments[0]) // 2])
        if name in ("close", "close folder"):  # the descriptor is gone all the same
            function(*arguments)
        raise OSError(self.number, os.strerror(self.number))

    def install(self, patch: pytest.MonkeyPatch) -> None:
        plain_open, os_open, os_close = builtins.open, os.open, os.close
        folders: set[int] = set()

        def opened(path: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
            if Path(path).parent != self.folder or "x" not in mode:
                return plain_open(path, mode, *arguments, **options)
            return File(self, self.call("open", plain_open, path, mode))

        def opened_folder(path: Any, *arguments: Any, **options: Any) -> int:
            descriptor: int = self.call("open folder", os_open, path, *arguments)
            folders.add(descriptor)
            return descriptor

        def closed(descriptor: int) -> None:
            if descriptor in folders:
                folders.remove(descriptor)
                self.call("close folder", os_close, descriptor)
            else:
                os_close(descriptor)

        patch.setattr(builtins, "open", opened)
        patch.setattr(os, "open", opened_folder)
        patch.setattr(os, "close", closed)
        for name in ("fsync", "replace"):
            original = getattr(os, name)
            patch.setattr(
                os, name, lambda *a, name=name, original=original: self.call(name, original, *a)
            )


class File:
    """A file whose every call goes through the disk."""

    def __init__(self, disk: Disk, file: Any) -> None:
        self._disk, self._file = disk, file

    def __enter__(self) -> "File":
        return self

    def __exit__(self, *exception: Any) -> None:
        self.close()

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._file, name)
        if name == "closed" or (name == "close" and self._file.closed):
            return value
        return lambda *arguments: self._disk.call(name, value, *arguments)


def make(seed: int) -> nn.Module:
    return nn.Sequential(nn.Linear(5, 4), nn.Dropout(0.5), nn.Linear(4, 2), rng=seed)


def assert_is(path: Path, seed: int) -> None:
    loaded, expected = xb.load(path).model, make(seed)
    for received, wanted in (
        (loaded.state_dict(), expected.state_dict()),
        (loaded.extra_state(), expected.extra_state()),
    ):
        assert {k: v.tobytes() for k, v in received.items()} == {
            k: v.tobytes() for k, v in wanted.items()
        }


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    xb.save(path, make(1))
    return path


def points(path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the calls of a save, in order."""
    disk = Disk(path.parent)
    with monkeypatch.context() as patch:
        disk.install(patch)
        xb.save(path, make(1))
    return disk.calls


def test_save_calls_the_disk_in_this_order(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert points(path, monkeypatch) == [
        "open", "write", "write", "flush", "fileno", "fsync", "close", "replace",
        "open folder", "fsync", "close folder",
    ]  # fmt: skip


@pytest.mark.parametrize("number", ERRORS, ids=[errno.errorcode[number] for number in ERRORS])
def test_every_failing_call_leaves_a_whole_file_and_names_it(
    number: int, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = points(path, monkeypatch)
    replaced_at = calls.index("replace")
    for point in range(len(calls)):
        xb.save(path, make(1))
        old = path.read_bytes()
        disk = Disk(path.parent, point, number)
        with monkeypatch.context() as patch:
            disk.install(patch)
            with pytest.raises(OSError, match=r"model\.safetensors") as caught:
                xb.save(path, make(2))
        assert len(disk.calls) > point
        assert (caught.value.errno, caught.value.filename) == (number, str(path)), calls[point]
        assert caught.value.strerror == os.strerror(number)
        assert list(path.parent.iterdir()) == [path], calls[point]
        if point <= replaced_at:
            assert path.read_bytes() == old, calls[point]
            assert_is(path, 1)
        else:  # the new file was whole and in its place; only durability is in doubt
            assert_is(path, 2)


def test_first_save_that_fails_leaves_nothing(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = tmp_path / "new"
    new.mkdir()
    for point in range(points(path, monkeypatch).index("replace") + 1):
        disk = Disk(new, point)
        with monkeypatch.context() as patch:
            disk.install(patch)
            with pytest.raises(OSError, match="new/it"):
                xb.save(new / "it", make(2))
        assert list(new.iterdir()) == []


def test_disk_that_refuses_to_clean_up_as_well(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> None:
        raise OSError(errno.EROFS, "read-only")

    disk = Disk(path.parent, 1, errno.ENOSPC)
    with monkeypatch.context() as patch:
        disk.install(patch)
        patch.setattr(os, "unlink", fail)
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)) as caught:
            xb.save(path, make(2))
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(path))
    assert_is(path, 1)
    (left,) = set(path.parent.iterdir()) - {path}
    assert remove_leftovers(path.parent) == [left]
    assert list(path.parent.iterdir()) == [path]


SAVE_UNDER_A_LIMIT = """
import resource, sys
import xbackprop as xb
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    xb.save(sys.argv[1], xb.nn.Linear(200, 200, rng=0))
except OSError as error:
    print(error.errno, error.filename)
"""


def test_kernel_that_refuses_to_write_more(path: Path) -> None:
    """No stand-in for a disk: the size of files is limited, so that `write` itself fails."""
    command = [sys.executable, "-c", SAVE_UNDER_A_LIMIT, str(path)]
    environment = {**os.environ, "XBACKPROP_DEVICE": "cpu"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(errno.EFBIG), str(path)], done.stderr
    assert list(path.parent.iterdir()) == [path]
    assert_is(path, 1)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may do anything")
def test_folder_that_may_not_be_written(path: Path) -> None:
    path.parent.chmod(0o500)
    try:
        with pytest.raises(PermissionError) as caught:
            xb.save(path, make(2))
    finally:
        path.parent.chmod(0o700)
    assert caught.value.filename == str(path)
    assert_is(path, 1)


def test_reading_errors_stay_errors_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file") as caught:
        xb.load(tmp_path / "nothing")
    assert caught.value.filename == str(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError):
        xb.load(tmp_path)
