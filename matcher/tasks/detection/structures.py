"""The values that flow through detection.

Inside, boxes (x0, y0, x1, y1) count pixels from the corner of the first one, as COCO's files do; a
`Detections` has them in the project's convention, where its center is at (0, 0).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from matcher.structures import TensorFields


@dataclass(frozen=True)
class DetectionBatch(TensorFields):
    """Images of several sizes, each in the top left corner, and their true boxes."""

    images: Tensor
    """(B, 3, H, W) normalized, 0 outside of an image"""
    mask: Tensor
    """(B, H, W) bool of pixels that belong to an image"""
    boxes: Tensor
    """(N, 4) float32 pixels, corner origin"""
    classes: Tensor
    """(N,) int64"""
    index: Tensor
    """(N,) int64: the image of each box"""

    @classmethod
    def collate(cls, items: Sequence[DetectionBatch]) -> DetectionBatch:
        """One batch of several, padded to the largest of them."""
        size = [max(item.images.shape[d] for item in items) for d in (2, 3)]
        starts = np.cumsum([0, *(item.images.shape[0] for item in items)])
        return cls(
            torch.cat([padded(item.images, size) for item in items]),
            torch.cat([padded(item.mask, size) for item in items]),
            torch.cat([item.boxes for item in items]),
            torch.cat([item.classes for item in items]),
            torch.cat([item.index + start for item, start in zip(items, starts, strict=False)]),
        )


@dataclass(frozen=True)
class Detections:
    """What was found in an image, best first."""

    boxes: np.ndarray
    """(N, 4) float32 x0, y0, x1, y1: pixels of the image, the center of the first at (0, 0)"""
    labels: tuple[str, ...]
    """Names of their classes"""
    scores: np.ndarray
    """(N,) float32 in [0, 1]"""
    indices: np.ndarray
    """(N,) int64 numbers of their classes, from 0"""
    size: tuple[int, int]
    """(width, height) of the image, upright"""

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def corner_boxes(self) -> np.ndarray:
        """(N, 4) the boxes with the origin at the corner of the first pixel, as COCO has them."""
        return self.boxes + np.float32(0.5)

    def above(self, threshold: float) -> Detections:
        """Those with a score above `threshold`."""
        kept = self.scores > threshold
        labels = tuple(label for label, keep in zip(self.labels, kept, strict=True) if keep)
        return Detections(
            self.boxes[kept], labels, self.scores[kept], self.indices[kept], self.size
        )


def padded(x: Tensor, size: Sequence[int]) -> Tensor:
    """(..., H, W) of at least as many rows and columns as given, 0 to the right and below."""
    height, width = x.shape[-2:]
    out = x.new_zeros(*x.shape[:-2], *size)
    out[..., :height, :width] = x
    return out
