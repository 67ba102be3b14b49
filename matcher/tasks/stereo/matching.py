"""From features to disparity: similarity along rows, agreement of both views, the best column.

The left cell in column x may match a right cell in a column up to x, or the dustbin that stands
for "hidden in the right view". Letters: R = B h rows, w columns.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from matcher.tasks.stereo.config import StereoConfig

LEAST = 1e-30
"""Probability below which a loss does not tell one from another."""


class RowMatches(NamedTuple):
    """Where each left cell lies in the right view."""

    probability: Tensor
    """(B, h, w, w + 1) of the right cells of the row, the dustbin last"""
    disparity: Tensor
    """(B, 1, h, w) in cells"""
    confidence: Tensor
    """(B, 1, h, w) probability within the window that gave the disparity"""


class RowMatching(nn.Module):
    """Normalized features to `RowMatches`, with a learned temperature and dustbin."""

    def __init__(self, config: StereoConfig) -> None:
        super().__init__()
        self.window = config.window
        self.log_scale = nn.Parameter(torch.tensor(math.log(12.0)))
        self.dustbin = nn.Parameter(torch.tensor(2.0))

    def forward(self, left: Tensor, right: Tensor, mask: Tensor | None = None) -> RowMatches:
        """(B, C, h, w) maps of both views; (B, h, w) bool of cells inside the images."""
        left, right = (F.normalize(x, dim=1) for x in (left, right))
        rows = (x.permute(0, 2, 3, 1).flatten(0, 1) for x in (left, right))
        scores = torch.bmm(next(rows), next(rows).mT) * self.log_scale.exp()
        inside = None if mask is None else mask.flatten(0, 1)
        probability = assign(scores, self.dustbin, inside).unflatten(0, (len(left), -1))
        disparity, confidence = best_disparity(probability, self.window)
        return RowMatches(probability, disparity[:, None], confidence[:, None])


def assign(scores: Tensor, dustbin: Tensor, inside: Tensor | None) -> Tensor:
    """Probabilities of the left cells of each row over the right cells and the dustbin.

    Both views choose, the left cell among right cells and the right cell among left ones, each
    with a dustbin; a match is as probable as that both choose it (dual softmax: Sun et al.,
    LoFTR, CVPR 2021). What the right cell denies goes to the dustbin of the left one, so that a
    wrong match whose right cell has a better partner is told as occluded.

    Args:
        scores: (R, w, w) of left against right columns.
        dustbin: () score of having no partner.
        inside: (R, w) bool of columns inside the images, or None.

    Returns:
        (R, w, w + 1), the dustbin last; each left cell's sum to 1, and those of right columns
        beyond the left one or outside are 0.
    """
    width = scores.shape[-1]
    allowed = torch.ones(width, width, dtype=torch.bool, device=scores.device).tril()
    if inside is not None:
        allowed = allowed & inside[:, None, :] & inside[:, :, None]
    scores = scores.masked_fill(~allowed, -torch.inf)
    nowhere = dustbin.expand(scores.shape[0], width)
    by_left = torch.cat([scores, nowhere[:, :, None]], dim=2).softmax(dim=2)
    by_right = torch.cat([scores, nowhere[:, None]], dim=1).softmax(dim=1)[:, :-1]
    chosen, absent = by_left[:, :, :-1], by_left[:, :, -1:]
    # A sum of denials, not 1 minus the rest: small probabilities keep their digits and gradient.
    absent = absent + (chosen * (1 - by_right)).sum(dim=2, keepdim=True)
    return torch.cat([chosen * by_right, absent], dim=2)


def best_disparity(probability: Tensor, window: int) -> tuple[Tensor, Tensor]:
    """(..., w) disparity in cells and its probability, of (..., w, w + 1) probabilities.

    The mean over the most probable right column and `window` columns on each side of it: a mean
    over the whole row would lie between two surfaces where both are likely.
    """
    right = probability[..., :-1]
    width = right.shape[-1]
    column = torch.arange(width, device=right.device)
    best = right.argmax(dim=-1, keepdim=True)
    near = best + torch.arange(-window, window + 1, device=right.device)
    inside = (near >= 0) & (near < width)
    weight = right.gather(-1, near.clamp(0, width - 1)) * inside
    total = weight.sum(dim=-1)
    found = (weight * near).sum(dim=-1) / total.clamp(min=1e-12)
    found = torch.where(total > 1e-12, found, column.to(found.dtype))
    return (column - found).clamp(min=0), total


def expected_log_probability(probability: Tensor, disparity: Tensor) -> Tensor:
    """(B, h, w) log-probability at the true column, between its two cells.

    Args:
        probability: (B, h, w, w + 1).
        disparity: (B, h, w) in cells; columns outside are moved to the border.
    """
    width = probability.shape[2]
    column = torch.arange(width, device=disparity.device) - disparity
    column = column.clamp(0, width - 1)
    before = column.floor().long()
    part = column - before
    after = (before + 1).clamp(max=width - 1)
    first, second = (probability.gather(3, i[..., None])[..., 0] for i in (before, after))
    return torch.lerp(first, second, part).clamp(min=LEAST).log()
