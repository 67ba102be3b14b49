"""Images as the published classifiers take them.

Bicubic resampling is Pillow's, which averages over what it shrinks: OpenCV's is 2.7 gray levels off
on average, and predictions change.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from matcher.weights.pyramid import PUBLISHED_SIDE

MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)
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


def to_input(squares: np.ndarray) -> Tensor:
    """(B, 3, H, W) float32 that a network takes, of (B, H, W, 3) uint8."""
    x = torch.tensor(squares).permute(0, 3, 1, 2).float() / 255
    mean, deviation = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, DEVIATION))
    return (x - mean) / deviation
