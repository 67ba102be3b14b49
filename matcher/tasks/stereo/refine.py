"""From disparity at 1/4 to full size: choose among cells, compare at 1/2, choose again."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from matcher.tasks.stereo.config import StereoConfig
from matcher.tasks.stereo.features import ViewFeatures
from matcher.tasks.stereo.matching import RowMatches


class Refined(NamedTuple):
    """Full-size maps, (B, 1, H, W)."""

    disparity: Tensor
    occlusion: Tensor
    """logits"""


class Refinement(nn.Module):
    """Convex upsampling to 1/2, a residual from correlations there, convex upsampling to 1.

    Convex upsampling (Teed and Deng, RAFT, ECCV 2020) mixes the nine cells around with learned
    weights: at the edge of a thing it can take the disparity of one side alone.
    """

    def __init__(self, config: StereoConfig) -> None:
        super().__init__()
        self.reach = config.reach
        fine, width = config.fine_channels, config.refine_channels
        self.choose = nn.Sequential(
            nn.Conv2d(fine + config.channels, width, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, 9, 1),
        )
        steps = 2 * config.reach + 1
        self.context = nn.Sequential(
            nn.Conv2d(steps + fine + 3, width, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(inplace=True),
        )
        self.residual = nn.Conv2d(width, 1, 1)
        self.occlusion = nn.Conv2d(width, 4, 1)
        self.upsample = nn.Conv2d(width, 36, 1)
        for head in (self.residual, self.occlusion):
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, matches: RowMatches, coarse: Tensor, fine: ViewFeatures) -> Refined:
        """Refine.

        Args:
            matches: of the cells at 1/4.
            coarse: (B, C, h, w) features of the left view after attention.
            fine: whose `fine` holds both views at 1/2, left first.
        """
        left, right = fine.fine.chunk(2)
        parents = F.interpolate(coarse, scale_factor=2.0, mode="nearest")
        weights = self.choose(torch.cat([left, parents], dim=1)).softmax(dim=1)
        half = 2 * choose_cells(matches.disparity, weights)
        sure = choose_cells(matches.confidence, weights)
        known = half.detach()
        curve = correlations(left, right, known, self.reach)
        uneven = known - F.avg_pool2d(known, 3, 1, 1, count_include_pad=False)
        outside = (known > torch.arange(known.shape[-1], device=known.device)).to(known.dtype)
        hidden = self.context(torch.cat([curve, left, sure, uneven.tanh(), outside], dim=1))
        half = F.relu(half + self.residual(hidden))
        weights = self.upsample(hidden).unflatten(1, (9, 4)).softmax(dim=1)
        disparity = 2 * upsample(half, weights)
        return Refined(disparity, F.pixel_shuffle(self.occlusion(hidden), 2))


def neighbors(x: Tensor) -> Tensor:
    """(B, 9, h, w): each cell of (B, 1, h, w) and the eight around it, repeated at the border."""
    b, _, h, w = x.shape
    return F.unfold(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3).view(b, 9, h, w)


def choose_cells(x: Tensor, weights: Tensor) -> Tensor:
    """(B, 1, 2h, 2w) means of the cells of (B, 1, h, w) around each with (B, 9, 2h, 2w) weights."""
    around = F.interpolate(neighbors(x), scale_factor=2.0, mode="nearest")
    return (around * weights).sum(dim=1, keepdim=True)


def upsample(x: Tensor, weights: Tensor) -> Tensor:
    """(B, 1, 2h, 2w) of (B, 1, h, w) with (B, 9, 4, h, w) weights of the four pixels of a cell."""
    return F.pixel_shuffle((neighbors(x)[:, :, None] * weights).sum(dim=1), 2)


def correlations(left: Tensor, right: Tensor, disparity: Tensor, reach: int) -> Tensor:
    """(B, 2 reach + 1, h, w) likeness of both views at and around a disparity.

    Args:
        left, right: (B, F, h, w).
        disparity: (B, 1, h, w) in cells; cells that fall outside the right view give 0.
    """
    left, right = F.normalize(left, dim=1), F.normalize(right, dim=1)
    steps = range(-reach, reach + 1)
    return torch.stack(
        [(left * moved(right, disparity + step)).sum(dim=1) for step in steps], dim=1
    )


def moved(right: Tensor, disparity: Tensor) -> Tensor:
    """(B, F, h, w) map of the right view as the left one sees it at (B, 1, h, w) cells."""
    height, width = right.shape[-2:]
    column = torch.arange(width, device=right.device) - disparity[:, 0]
    row = torch.arange(height, device=right.device, dtype=right.dtype)[:, None]
    row = ((2 * row + 1) / height - 1).expand_as(column)
    grid = torch.stack([(2 * column + 1) / width - 1, row], dim=-1)
    return F.grid_sample(right, grid, align_corners=False)
