"""A tiny pair that tells whether weights still compute what they computed when they were saved.

Sums and shapes do not show a changed interpretation of the same numbers; what a model makes of two
fixed images does.
"""

from __future__ import annotations

import torch
from torch import Tensor

from matcher.network.model import FeatureMatcher
from matcher.structures import CoarseMatches

SIDE = 64
TOLERANCE = 1e-3
"""Largest difference, relative to the expected statistic where that exceeds 1."""


def selftest_pair(side: int = SIDE) -> tuple[Tensor, Tensor]:
    """Two (1, 1, side, side) images of one wavy pattern, the second moved by 8 pixels."""
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side + 8), indexing="ij")
    waves = (x * 0.37 + y * 0.11).sin() + (y * 0.53 - x * 0.07).sin() + (x * y * 0.013).sin()
    image = ((waves + 3) / 6)[None, None]
    return image[..., :side], image[..., 8:]


@torch.no_grad()
def activation_statistics(model: FeatureMatcher) -> list[float]:
    """Mean and deviation of every map that `model` makes of the pair, to four digits.

    They are the coarse and the fine features of the first image, both coarse maps after the
    transformer, and the heatmaps of every cell with the one at its place in the other image.
    """
    image0, image1 = selftest_pair(max(SIDE, model.config.canvas))
    cells = torch.arange((image0.shape[-1] // model.config.backbone.resolution[0]) ** 2)
    matches = CoarseMatches(torch.zeros_like(cells), cells, cells, torch.ones(len(cells)))
    output = model.forward_training(image0, image1, None, None, matches, limit=len(cells))
    maps = (*output.features0, output.coarse0, output.coarse1, output.log_heatmap.exp())
    return [float(f"{v:.4g}") for x in maps for v in (x.mean().item(), x.std().item())]


def largest_difference(statistics: list[float], expected: list[float]) -> float:
    """Between two lists of statistics; infinite where their lengths differ."""
    if len(statistics) != len(expected):
        return float("inf")
    pairs = zip(statistics, expected, strict=True)
    return max(abs(a - b) / max(1.0, abs(b)) for a, b in pairs)
