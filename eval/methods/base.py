"""What every evaluated method is and may be told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np

from matcher.errors import CheckpointError, Code, UsageError
from matcher.files import sha256_of
from matcher.options import PredictorOptions
from matcher.structures import Matches
from matcher.validation.checked import Name, Positive, checked

Settings = dict[str, str | int | float | bool | None]


@checked()
class MethodOptions(PredictorOptions):
    """What every method may be told: options of this project's matcher, and those of others."""

    offline: bool = True
    max_side: Positive | None = None
    keypoints: Positive = 4096
    """Most keypoints an image of the methods with detectors."""
    ratio: float = 0.85
    """Largest ratio of the distances to the nearest and the second nearest descriptor."""
    xfeat: Name | None = None
    """File of XFeat's weights, an .npz with its batch norms folded into the convolutions."""
    aliked: Name | None = None
    """File of ALIKED-n16's weights, an .npz of its state dict."""
    stretch: bool | None = False
    """Images are seen as they are."""
    padded: bool = False
    """Pad images to squares, as the published evaluation of MegaDepth does."""


class Method(Protocol):
    """A matcher and everything that decides what it answers."""

    @property
    def name(self) -> str: ...

    @property
    def settings(self) -> Settings:
        """All that its answers depend on; another value means other predictions."""
        ...

    @property
    def weights_sha256(self) -> str | None: ...

    @property
    def device(self) -> str:
        """What it computes on."""
        ...

    def __call__(self, image0: np.ndarray, image1: np.ndarray) -> Matches:
        """Match (H, W, 3) uint8 RGB images, in their pixels, center of the first (0, 0)."""
        ...


class MethodUnavailableError(UsageError):
    """A method that is known but cannot run here, such as for want of its weights (E210)."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(Code.MISSING_EXTRA, name, f"unavailable: {why}")
        self.why = why

    def __reduce__(self) -> tuple[type, tuple[str, str]]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return type(self), (self.subject, self.why)


@contextmanager
def unchanged(path: Path | str) -> Iterator[str]:
    """SHA-256 of weights that are read meanwhile.

    Raises:
        CheckpointError: they cannot be read (E501), or were replaced meanwhile, as a training does
            (E503).
    """
    before = _hash_of(path)
    yield before
    if _hash_of(path) != before:
        what = "was replaced while it was read"
        raise CheckpointError(Code.WRONG_HASH, path, what, "run again, or evaluate a copy")


def _hash_of(path: Path | str) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        what = f"cannot be read: {error.strerror or error}"
        raise CheckpointError(Code.DAMAGED_WEIGHTS, path, what) from error
