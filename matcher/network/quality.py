"""How likely each match is to be right, from what is at hand after the refinement.

A small network on seven figures a match, fitted to rendered pairs by `python -m eval.quality` with
the matcher frozen; its parameters lie beside the weights they belong to.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from matcher.images.preprocess import PreparedPair
from matcher.network.local_affine import FAR, NOISE, local_affines, nearest
from matcher.structures import Matches

RIGHT = 3.0
"""Pixels of the image from the truth up to which a match counts as right."""
FIGURES = (
    "score", "correlation", "converged", "moved", "off neighbors", "agreeing", "agreeing of all",
)  # fmt: skip
WIDTH = 16


class QualityHead(nn.Module):
    """(M, 7) figures of matches to (M,) probabilities."""

    mean: Tensor
    deviation: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(len(FIGURES)))
        self.register_buffer("deviation", torch.ones(len(FIGURES)))
        self.layers = nn.Sequential(nn.Linear(len(FIGURES), WIDTH), nn.Tanh(), nn.Linear(WIDTH, 1))

    def logits(self, figures: Tensor) -> Tensor:
        return self.layers((figures - self.mean) / self.deviation)[:, 0]

    def forward(self, figures: Tensor) -> Tensor:
        return self.logits(figures).sigmoid()


def figures_of(pair: PreparedPair, placed: Matches, refined: Matches) -> Tensor:
    """(M, 7) of `FIGURES`, none of which depends on the size of the images.

    Args:
        placed: as the network places them, in pixels of the upright images in full size.
        refined: the same after the refinement.
    """
    if refined.converged is None or refined.correlation is None:
        raise ValueError("the figures of matches need refined ones")
    scale0, scale1 = (float(each.scale.mean()) for each in pair)
    points0, points1 = refined.keypoints0 / scale0, refined.keypoints1 / scale1
    moved = (refined.keypoints1 - placed.keypoints1).norm(dim=1) / scale1
    off, agreeing = agreement(points0, points1)
    score = refined.scores.clamp(1e-4, 1 - 1e-4)
    columns = [
        score.logit(),
        refined.correlation,
        refined.converged.to(score.dtype),
        moved.log1p(),
        off.log1p(),
        agreeing,
        agreeing.mean().expand_as(agreeing) if len(agreeing) else agreeing,
    ]
    return torch.stack(columns, dim=1)


def agreement(points0: Tensor, points1: Tensor) -> tuple[Tensor, Tensor]:
    """How far each match is from where its neighbors would put it, and how many put it near.

    Args:
        points0, points1: (M, 2) pixels of the network.

    Returns:
        (M,) median of the distances in pixels, `FAR` without neighbors; (M,) share of the places
        of neighbors, 16 where there are enough, that lie within twice the error of the network.
    """
    count = len(points0)
    if count < 2:
        return points0.new_full((count,), FAR), points0.new_zeros(count)
    near = nearest(points0)
    index, squared = near
    affine = local_affines(points0, points1, near=near)
    itself = index == torch.arange(count, device=index.device)[:, None]
    usable = (squared < FAR**2) & ~itself
    there = points1[index] + (points0[:, None] - points0[index]) @ affine.transpose(1, 2)
    distance = (there - points1[:, None]).norm(dim=2).clamp(max=FAR)
    distance = torch.where(usable, distance, float("nan"))
    median = distance.nanmedian(dim=1).values.nan_to_num(FAR)
    agreeing = (distance < 2 * NOISE).sum(dim=1)
    return median, agreeing.to(median.dtype) / max(index.shape[1] - 1, 1)
