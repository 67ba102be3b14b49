"""Fingerprints of images and their masks: the contents, not what their names or dates say."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from matcher.batch.image_names import Root
from matcher.batch.masks import Masks
from matcher.errors import Code, ImageError, UsageError
from matcher.images.opening import MAX_BYTES, open_regular

BYTES = 32
MISSING = bytes(BYTES)


@dataclass(frozen=True)
class ImageFiles:
    """The images of a collection as they were when they were looked at."""

    digest: np.ndarray
    """(n, 32) uint8 SHA-256 of the contents, with those of the mask; zero if missing"""
    masks: tuple[str | None, ...] | None = None
    """(n,) their files; None: none has one"""

    @staticmethod
    def of(
        names: Sequence[str], root: Root, *, readers: int = 2, masks: Masks | None = None
    ) -> ImageFiles:
        """Read all files, with so many threads; a name that leads out of the root is refused
        (E114)."""
        paths = [root.path(name) if root.status(name) else None for name in names]
        of_images = None if masks is None else tuple(map(masks.path, names))
        both = zip(paths, of_images or [None] * len(paths), strict=True)
        with ThreadPoolExecutor(readers) as pool:
            found = pool.map(lambda p: MISSING if p[0] is None else fingerprint(*p), both)
            digest = np.frombuffer(b"".join(found), np.uint8)
        return ImageFiles(digest.reshape(-1, BYTES), of_images)

    @property
    def missing(self) -> np.ndarray:
        """(n,) bool"""
        return np.asarray(~self.digest.any(axis=1))

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.digest.tobytes()).hexdigest()

    def differs(self, other: ImageFiles) -> np.ndarray:
        """(n,) bool"""
        return np.asarray((self.digest != other.digest).any(axis=1))

    def mask(self, image: int) -> str | None:
        """The file of the mask of an image; None where it has none."""
        return None if self.masks is None else self.masks[image]

    def require_same(self, image: int, path: str) -> None:
        """Refuse the image in a file (E107) that is not the one that was looked at."""
        if fingerprint(path, self.mask(image)) != self.digest[image].tobytes():
            what, remedy = "was replaced while the collection ran", "run the same words again"
            raise ImageError(Code.CHANGED_IMAGE, path, what, remedy)


def fingerprint(path: str | os.PathLike[str], mask: str | None = None) -> bytes:
    """SHA-256 of an image, or of both where it has a mask."""
    digest = _fingerprint(path)
    if mask is None or digest == MISSING:
        return digest
    return hashlib.sha256(digest + _fingerprint(mask)).digest()


def _fingerprint(path: str | os.PathLike[str]) -> bytes:
    """SHA-256 of a file; of what keeps it from being read where it is none, or too large."""
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_BYTES:
                return hashlib.sha256(f"{size} bytes".encode()).digest()
            return hashlib.file_digest(file, "sha256").digest()
    except UsageError:
        return MISSING
    except (ImageError, OSError):
        return hashlib.sha256(b"cannot be read").digest()
