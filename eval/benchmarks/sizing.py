"""Sizes at which pairs are matched, and points carried between sizes of an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from matcher.geometry.pixels import network_to_original, resize_scale
from matcher.validation.checked import checked, invalid

Side = Annotated[int, Field(ge=1, le=100_000)]
"""Of an image as it is matched, in pixels."""
PUBLISHED_STEP = 8
"""The published evaluation cuts sides to multiples of this."""


@dataclass(frozen=True)
class Convention:
    """How an evaluation scales points, whether it pads, and in whose pixels thresholds count."""

    name: str
    pixel_centers: bool = True
    """Points scale as (x + 0.5) s - 0.5; otherwise as x s."""
    pads: bool = False
    """With a largest side, images are resized to exactly that side, cut to multiples of 8 and
    padded to squares."""
    threshold_image: Literal["matched image", "image of K"] = "matched image"
    """Whose pixels the threshold of a pose counts."""

    def convert(
        self, points: np.ndarray, source: tuple[int, int], target: tuple[int, int]
    ) -> np.ndarray:
        """(..., 2) pixels of an image of size `source` as those of it at size `target`."""
        scale = np.array(resize_scale(target, source))
        points = np.asarray(points, dtype=np.float64)
        return network_to_original(points, scale) if self.pixel_centers else points * scale

    def conversion(self, source: tuple[int, int], target: tuple[int, int]) -> np.ndarray:
        """(3, 3) affine matrix of `convert`; it turns intrinsics and homographies too."""
        matrix = np.diag([*resize_scale(target, source), 1.0])
        matrix[:2, 2] = self.convert(np.zeros(2), source, target)
        return matrix


EXACT = Convention("exact")
PUBLISHED = Convention("published", pixel_centers=False, pads=True, threshold_image="image of K")
"""The published LoFTR evaluation."""
CONVENTIONS = (EXACT, PUBLISHED)


@checked("benchmark.")
class Sizing:
    """How an image is resized before it is matched."""

    max_side: Side | None = None
    """Shrink so that the longer side is at most this."""
    min_side: Side | None = None
    """Resize so that the shorter side is this."""
    size: tuple[Side, Side] | None = None
    """Resize to exactly (width, height)."""
    convention: Convention = EXACT

    def __post_init__(self) -> None:
        names = ("max_side", "min_side", "size")
        given = {name: value for name in names if (value := getattr(self, name)) is not None}
        if len(given) > 1:
            raise invalid("benchmark.size", given, "one of size, max_side and min_side")

    def target(self, size: tuple[int, int]) -> tuple[int, int]:
        """The size (width, height) at which an image of `size` is matched."""
        if self.size is not None:
            return self.size
        factor = 1.0
        if self.min_side is not None:
            factor = self.min_side / min(size)
        elif self.max_side is not None:
            factor = self.max_side / max(size)
            factor = factor if self.convention.pads else min(1.0, factor)
        width, height = (max(1, round(side * factor)) for side in size)
        if self.pads:
            width, height = (
                max(PUBLISHED_STEP, side // PUBLISHED_STEP * PUBLISHED_STEP)
                for side in (width, height)
            )
        return width, height

    @property
    def pads(self) -> bool:
        """Whether images are cut to multiples of 8 and padded to squares."""
        return self.convention.pads and self.max_side is not None

    def describe(self) -> str:
        if self.size is not None:
            text = f"{self.size[0]}x{self.size[1]}"
        elif self.min_side is not None:
            text = f"short side {self.min_side}"
        elif self.max_side is not None:
            text = f"long side {'' if self.convention.pads else 'at most '}{self.max_side}"
        else:
            text = "as stored"
        if self.pads:
            text += f", multiples of {PUBLISHED_STEP}, padded"
        return text if self.convention.pixel_centers else f"{text}, points scale as x s"
