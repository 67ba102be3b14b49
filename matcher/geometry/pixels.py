"""THE pixel convention.

The center of the top-left pixel is (0, 0). Coordinates are (x, y), sizes (width, height). The
scale of a resized image is original size / network size, so that

    original = (network + 0.5) scale - 0.5.
"""

from __future__ import annotations

import math
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

Points = TypeVar("Points", Tensor, np.ndarray)

COLMAP_ORIGIN = 0.5
"""COLMAP puts (0, 0) at the outer corner of the top-left pixel."""

EXIF_STEPS: dict[int, tuple[bool, bool, bool]] = {
    1: (False, False, False),
    2: (False, True, False),
    3: (False, True, True),
    4: (False, False, True),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}
"""EXIF orientation to (swap x and y, mirror stored x, mirror stored y)."""


MIN_SIDE = 32
"""Images that the network would see with a shorter side give no match."""
STRIP = 4
"""Images longer than this many times their width are limited by their area."""


class Window(NamedTuple):
    """Whole pixels of an image, the right and the bottom one excluded."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def area(self) -> int:
        return (self.right - self.left) * (self.bottom - self.top)


def network_size(width: int, height: int, max_side: int | None) -> tuple[int, int]:
    """(width, height) at which the network sees an image; it is never enlarged.

    The longer side is shrunk to `max_side`. A strip keeps more, or nothing of it would be left:
    its shorter side is shrunk no further than to a quarter of `max_side` while its area is at
    most that of a square of `max_side`. No shorter side is shrunk below `MIN_SIDE`.

    Args:
        width, height: of the image, in pixels.
        max_side: None for no limit.
    """
    if max_side is None:
        return width, height
    long, short = max(width, height), min(width, height)
    ratio = max_side / long
    if long > STRIP * short:
        by_area = max_side / math.sqrt(long * short)
        ratio = max(ratio, min(by_area, max_side / STRIP / short))
    ratio = min(1.0, max(ratio, MIN_SIDE / short))
    return max(1, round(width * ratio)), max(1, round(height * ratio))


def resize_scale(original: tuple[int, int], network: tuple[int, int]) -> tuple[float, float]:
    """(x, y) scale between two sizes (width, height) of an image."""
    return original[0] / network[0], original[1] / network[1]


def network_to_original(points: Points, scale: Points) -> Points:
    """(..., 2) pixels of the resized image to those of the original; (..., 2) `scale`."""
    return (points + 0.5) * scale - 0.5


def original_to_network(points: Points, scale: Points) -> Points:
    """(..., 2) pixels of the original image to those of the resized one; (..., 2) `scale`."""
    return (points + 0.5) / scale - 0.5


def to_colmap(points: Points) -> Points:
    """Our (..., 2) pixels in COLMAP's convention."""
    return points + COLMAP_ORIGIN


def from_colmap(points: Points) -> Points:
    """COLMAP's (..., 2) pixels in our convention."""
    return points - COLMAP_ORIGIN


def upright_to_stored(points: Tensor, orientation: int, size: tuple[int, int]) -> Tensor:
    """(..., 2) pixels of an image turned by EXIF, 1 to 8, to those of it as stored at `size`."""
    swap, mirror_x, mirror_y = EXIF_STEPS[orientation]
    x, y = points.flip(-1).unbind(-1) if swap else points.unbind(-1)
    sides = [size[0] - 1 - x if mirror_x else x, size[1] - 1 - y if mirror_y else y]
    return torch.stack(sides, dim=-1)


def stored_to_upright(points: Tensor, orientation: int, size: tuple[int, int]) -> Tensor:
    """The way back of `upright_to_stored`; `size` is that of the image as stored."""
    swap, mirror_x, mirror_y = EXIF_STEPS[orientation]
    x, y = points.unbind(-1)
    sides = [size[0] - 1 - x if mirror_x else x, size[1] - 1 - y if mirror_y else y]
    return torch.stack(sides[::-1] if swap else sides, dim=-1)


def turn_orientation(orientation: int, quarters: int) -> int:
    """The EXIF orientation that turns upright, then by so many quarters counterclockwise."""
    stored = np.arange(6).reshape(2, 3)
    wanted = np.rot90(turn_upright(stored, orientation), quarters)
    return next(o for o in EXIF_STEPS if np.array_equal(turn_upright(stored, o), wanted))


def turn_upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """A stored (H, W, ...) image as its EXIF orientation wants it seen."""
    swap, mirror_x, mirror_y = EXIF_STEPS[orientation]
    image = image[:: -1 if mirror_y else 1, :: -1 if mirror_x else 1]
    return np.ascontiguousarray(image.swapaxes(0, 1) if swap else image)
