"""Files that appear whole or not at all, also through a kill or a full disk; their hashes; texts.

Whether a file is intact is told in two ways: by a hash in its name (shards, checkpoints) or by one
in a file beside it (downloads).

HDF5 never writes to disk itself: it can crash the process on a full disk.
"""

from __future__ import annotations

import hashlib
import io
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from matcher.errors import Code, StorageError, UsageError, missing, unwritable

if TYPE_CHECKING:
    import h5py


def write_atomically(path: Path | str, data: bytes) -> None:
    """Publish `data` as `path`: all of it or nothing, also through a kill or a full disk.

    Raises:
        StorageError: it cannot be written (E401).
    """
    needs = f"needs {len(data) / 1e6:.1f} MB in a folder that can be written"
    with _published(Path(path), lambda: needs + _free(Path(path))) as part, part.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _published(path: Path, remedy: Callable[[], str]) -> Iterator[Path]:
    """A file to write that becomes `path` at the end, or what that links to, and disappears where
    that fails (E401)."""
    place = _place_of(path)
    part = place.parent / f".quadmatch-{os.getpid()}-{secrets.token_hex(4)}.part"
    try:
        yield part
        os.replace(part, place)
        sync_directory(place.parent)
    except OSError as error:
        raise unwritable(path, error, remedy()) from error
    finally:
        # Gone if all went well; after a failure its folder may be no folder at all.
        with suppress(OSError):
            part.unlink()


def _free(path: Path) -> str:
    try:
        return f", {shutil.disk_usage(path.parent).free / 1e6:.1f} MB free"
    except OSError:
        return ""


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, where they are not there yet.

    Raises:
        StorageError: it cannot be made (E401).
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        what = f"cannot make the folder: {error.strerror or error}"
        raise StorageError(Code.UNWRITABLE, folder, what, "choose another place") from error


def require_writable(targets: Iterable[Path | str]) -> None:
    """Make the folders of files, and try whether these can be written there.

    Raises:
        StorageError: one cannot, or a folder, a pipe or a device has its name (E401).
    """
    for folder in dict.fromkeys(_place_of(target).parent for target in targets):
        make_folder(folder)
        probe = folder / f".quadmatch-{os.getpid()}-probe.part"
        try:
            probe.write_bytes(b"probe")
            probe.unlink()
        except OSError as error:
            raise unwritable(folder, error, "choose another place") from error


def _place_of(target: Path | str) -> Path:
    """Where a file goes: to what a link leads to, never to a folder, a pipe or a device (E401)."""
    if os.path.exists(target) and not os.path.isfile(target):
        what = "is in the way: no ordinary file"
        raise StorageError(Code.UNWRITABLE, target, what, "choose another place")
    try:
        place = Path(os.path.realpath(target))
    except OSError as error:  # The folder that one is in is gone.
        raise unwritable(target, error, "choose another place") from error
    try:
        place.lstat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:  # Such as a name that is too long.
        raise unwritable(target, error, "choose another name") from error
    return place


def replaced(path: Path | str) -> str:
    """What to say behind the name of a file that is about to be written."""
    return " (replaced)" if os.path.exists(path) else ""


def check_targets(targets: Iterable[Path | str], inputs: Iterable[Path | str]) -> None:
    """Whether files can go where they shall, before work begins; makes their folders.

    Raises:
        UsageError: one would replace an input or another of them (E205).
        StorageError: as `require_writable`.
    """
    targets = list(targets)
    taken = {os.path.realpath(path): "an input" for path in inputs}
    for target in targets:
        place = os.fspath(_place_of(target))
        for path, owner in taken.items():
            # Hard links and disks that do not tell capitals apart have two names for a file.
            both = os.path.exists(path) and os.path.exists(place)
            if path == place or (both and os.path.samefile(path, place)):
                what = f"would replace {owner}"
                raise UsageError(Code.UNSAFE_VALUE, target, what, "choose another name")
        taken[place] = "another result"
    require_writable(targets)


Lock = Literal["system", "soft"]


@contextmanager
def only_writer(
    folder: Path, remedy: str, seconds: float = 0.5, lock: Lock = "system"
) -> Iterator[None]:
    """Be the only process that writes to a folder, which is made where it is not there.

    The lock goes with the process, however that ends; processes that it forks have none.

    Args:
        remedy: what whoever comes second should do.
        seconds: to wait for another process that is about to end.
        lock: ``soft`` takes a file for the lock, for network disks without locks. That of a process
            that was killed is taken over on the same machine; on others someone must remove it.

    Raises:
        UsageError: another process writes to it (E207).
        StorageError: the folder cannot be written (E401).
    """
    from filelock import FileLock, SoftFileLock, Timeout

    make_folder(folder)
    kind, name = (FileLock, "lock") if lock == "system" else (SoftFileLock, "lock.soft")
    held, holder = kind(folder / name, timeout=seconds), folder / "lock.pid"
    try:
        held.acquire()
    except Timeout:
        what = f"another process writes to it{_process_in(holder)}"
        if lock == "soft":
            remedy += f"; if it was killed on another machine, remove {folder / name}"
        raise UsageError(Code.FOLDER_IN_USE, folder, what, remedy) from None
    except OSError as error:
        what = f"cannot be locked: {error.strerror}"
        raise StorageError(Code.UNWRITABLE, folder, what) from error
    try:
        write_atomically(holder, str(os.getpid()).encode())
        yield
    finally:
        with suppress(OSError):  # Whatever took its place.
            holder.unlink()
        held.release()


def _process_in(holder: Path) -> str:
    try:
        return f" (process {int(holder.read_text())})"
    except (OSError, ValueError):
        return ""


def read_text(path: Path | str, what: str = "file", remedy: str = "") -> str:
    """The text of a list that a user gives, without a mark of its encoding.

    Raises:
        UsageError: no such file (E111), or not readable as UTF-8 (E112).
    """
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise missing(path, f"no such {what}") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = f"cannot be read as text: {error}"
        raise UsageError(Code.UNREADABLE_LIST, path, reason, remedy) from error


def sha256_of(path: Path | str) -> str:
    """Hexadecimal SHA-256 of a file."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_directory(folder: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class FaultTolerantFile(io.FileIO):
    """A file that takes everything. After an error of the disk, which is kept, nothing is written
    and what cannot be read is zero."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "xb+")
        self.error: OSError | None = None

    def check(self) -> None:
        """Raise the error that was kept."""
        if self.error is not None:
            raise self.error

    def write(self, data: memoryview | bytes) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        view = memoryview(data).cast("B")
        done = 0
        while self.error is None and done < len(view):
            try:
                done += super().write(view[done:]) or 0
            except OSError as error:
                self.error = error
        return len(view)

    def readinto(self, buffer: memoryview) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        count = super().readinto(buffer) or 0
        buffer[count:] = bytes(len(buffer) - count)
        return len(buffer)

    def truncate(self, size: int | None = None) -> int:
        try:
            return super().truncate(size)
        except OSError as error:
            self.error = self.error or error
            return size or 0


@contextmanager
def hdf5_published(path: Path) -> Iterator[tuple[h5py.File, FaultTolerantFile]]:
    """A new HDF5 file that appears as `path` when all of it is on the disk, and else not at all.

    Call `FaultTolerantFile.check` now and then to stop early.

    Raises:
        StorageError: it cannot be written (E401).
    """
    import h5py

    with _published(path, lambda: "free some space, or choose another place") as part:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FaultTolerantFile(part) as disk:
            with h5py.File(disk, "w") as file:
                yield file, disk
            disk.check()
            os.fsync(disk.fileno())
