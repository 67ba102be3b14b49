"""Images as the published classifiers take them.

Bicubic resampling is Pillow's, which averages over what it shrinks: OpenCV's is 2.7 gray levels off
on average, and predictions change.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from matcher.weights.pyramid import PUBLISHED_SIDE

MARGIN = 256 / 224
"""Shorter side before the center is cut out, over that of the square."""


def center_square(pixels: np.ndarray, side: int = PUBLISHED_SIDE) -> np.ndarray:
    """(side, side, 3) uint8 center of (H, W, 3) uint8 pixels whose shorter side was resized to
    `side` times 256 / 224."""
    height, width = pixels.shape[:2]
    shorter = round(side * MARGIN)
    scale = min(height, width)
    size = (max(shorter, shorter * width // scale), max(shorter, shorter * height // scale))
    resized = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
    left, top = round((size[0] - side) / 2), round((size[1] - side) / 2)
    return np.asarray(resized.crop((left, top, left + side, top + side)))
