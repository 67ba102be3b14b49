"""Files opened for reading: at once or not at all, whatever lies at the path."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader

import numpy as np

from matcher.errors import Code, ImageError, MatcherError, MemoryLimitError, missing, out_of_memory

MAX_BYTES = 2**30
MAX_PIXELS = 100_000_000
"""Pixels of an image file; larger ones are refused unless `max_pixels` says otherwise."""


def open_regular(path: str | os.PathLike[str]) -> BufferedReader:
    """A file opened to be read, if it is an ordinary one; never waits for the other end of a pipe.

    Raises:
        UsageError: there is no such file (E111).
        ImageError: a folder, a named pipe, a socket or a device, or not to be opened (E101).
    """
    path = os.fspath(path)
    try:
        # Opening can wait, or move a tape, so look first; and look again at what was opened.
        _require_regular(path, os.stat(path))
        file = open(path, "rb", opener=_open_at_once)
        _require_regular(path, os.fstat(file.fileno()))
    except (FileNotFoundError, NotADirectoryError):
        raise missing(path) from None
    except (OSError, ValueError) as error:
        raise ImageError(Code.UNREADABLE_IMAGE, path, f"cannot read: {error}") from error
    return file


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """The whole file, of at most `MAX_BYTES`.

    Raises:
        UsageError, ImageError: as `open_regular`; larger files (E103).
        MemoryLimitError: memory ends (E131).
    """
    with open_regular(path) as file, reading(os.fspath(path), Code.UNREADABLE_IMAGE, "cannot read"):
        size = os.fstat(file.fileno()).st_size
        if size > MAX_BYTES:
            raise ImageError(Code.LARGE_IMAGE, path, f"{size:,} bytes", f"limit {MAX_BYTES:,}")
        return file.read(size)  # Memory for what is asked for is taken first.


@contextmanager
def reading(
    path: str,
    code: Code = Code.DAMAGED_IMAGE,
    what: str = "damaged or cut off",
    remedy: str = "fetch it anew",
) -> Iterator[None]:
    """Whatever a decoder stumbles over is damage of the file, but for memory that ends."""
    with within_memory(path):
        try:
            yield
        except MatcherError:
            raise
        except Exception as error:
            if out_of_memory(error):
                raise
            detail = str(error) or type(error).__name__
            raise ImageError(code, path, f"{what} ({detail})", remedy) from error


@contextmanager
def within_memory(name: str) -> Iterator[None]:
    """Memory that ends meanwhile is an error of the image of that name (E131)."""
    try:
        yield
    except MatcherError:
        raise
    except Exception as error:
        if not out_of_memory(error):
            raise
        what, remedy = "out of memory while it is read", "give a smaller image"
        raise MemoryLimitError(Code.OUT_OF_MEMORY, name, what, remedy) from error


@contextmanager
def unchanged(*paths: str | os.PathLike[str]) -> Iterator[None]:
    """Refuse files (E107) that were replaced meanwhile, as their size and time of change tell: what
    is read of them later belongs to other images."""
    before = [_state(path) for path in paths]
    yield
    for path, state in zip(paths, before, strict=True):
        if _state(path) != state:
            what = "was replaced while it was used"
            raise ImageError(Code.CHANGED_IMAGE, path, what, "run the same words again")


def _state(path: str | os.PathLike[str]) -> tuple[int, int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def require_memory(count: int) -> None:
    """Raise MemoryError where there is no room for so many bytes: after a decoder has failed that
    does not tell why."""
    np.empty(count, np.uint8)


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _require_regular(path: str, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        what = "a folder" if stat.S_ISDIR(status.st_mode) else "not an ordinary file"
        raise ImageError(Code.UNREADABLE_IMAGE, path, what, "give an image")
