"""Pixels as networks take them that began on ImageNet."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)


def to_input(pixels: np.ndarray) -> Tensor:
    """(B, 3, H, W) float32 that a network takes, of (B, H, W, 3) uint8."""
    x = torch.tensor(pixels).permute(0, 3, 1, 2).float() / 255
    mean, deviation = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, DEVIATION))
    return (x - mean) / deviation
