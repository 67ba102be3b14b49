"""A tiny pair that tells whether weights still compute what they computed when they were saved.

Sums and shapes do not show a changed interpretation of the same numbers; what a model makes of two
fixed images does.
"""

from __future__ import annotations

import torch
from torch import Tensor

from matcher.network.model import FeatureMatcher

SIDE = 64
TOLERANCE = 1e-3
"""Largest difference, relative to the reading where that exceeds 1."""


def canary_pair(side: int = SIDE) -> tuple[Tensor, Tensor]:
    """Two (1, 1, side, side) images of one wavy pattern, the second moved by 8 pixels."""
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side + 8), indexing="ij")
    waves = (x * 0.37 + y * 0.11).sin() + (y * 0.53 - x * 0.07).sin() + (x * y * 0.013).sin()
    image = ((waves + 3) / 6)[None, None]
    return image[..., :side], image[..., 8:]


@torch.no_grad()
def readings(model: FeatureMatcher) -> list[float]:
    """Mean and deviation of every map that `model` makes of the pair, to four digits."""
    image0, image1 = canary_pair(max(SIDE, model.config.canvas))
    features0, features1 = model.extract(image0), model.extract(image1)
    coarse0, coarse1 = model.attend(features0.coarse, features1.coarse)
    cells = torch.arange(coarse0.shape[-1] * coarse0.shape[-2])
    first = torch.zeros_like(cells)
    heat = model.fine.heat(features0.fine, features1.fine, coarse0, coarse1, first, cells, cells)
    maps = (features0.coarse, features0.fine, coarse0, coarse1, heat.exp())
    return [float(f"{v:.4g}") for each in maps for v in (each.mean().item(), each.std().item())]


def largest_difference(found: list[float], expected: list[float]) -> float:
    """Between two lists of readings; infinite where their lengths differ."""
    if len(found) != len(expected):
        return float("inf")
    pairs = zip(found, expected, strict=True)
    return max(abs(a - b) / max(1.0, abs(b)) for a, b in pairs)
