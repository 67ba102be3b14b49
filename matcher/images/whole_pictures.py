"""Pillow's decoders told to refuse what is cut off."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock

from PIL import ImageFile


@dataclass
class Decoders:
    """Those of this process that are at work, and whether Pillow was to fill what is cut off."""

    lock: Lock = field(default_factory=Lock)
    count: int = 0
    filled: bool = False


_AT_WORK = Decoders()


@contextmanager
def whole_pictures() -> Iterator[None]:
    """Meanwhile Pillow refuses a picture that is cut off, also where the process has told it to
    fill the rest with gray (`ImageFile.LOAD_TRUNCATED_IMAGES`), as packages do on import."""
    with _AT_WORK.lock:
        _AT_WORK.filled |= ImageFile.LOAD_TRUNCATED_IMAGES
        _AT_WORK.count += 1
        ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        yield
    finally:
        with _AT_WORK.lock:
            _AT_WORK.count -= 1
            if not _AT_WORK.count:
                ImageFile.LOAD_TRUNCATED_IMAGES |= _AT_WORK.filled
                _AT_WORK.filled = False
