"""The terms of the training loss, as pure functions."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from matcher.training.supervision import CoarseTargets, FineTargets


class LossTerms(NamedTuple):
    """Scalars of one step; `total` is what is minimized."""

    total: Tensor
    coarse: Tensor
    fine: Tensor
    heatmap: Tensor
    levels: Tensor


def positives_loss(log_confidence: Tensor, targets: CoarseTargets) -> Tensor:
    """Mean negative log-confidence of the true matches; 0 where there is none.

    Args:
        log_confidence: (B, L, S).
        targets: M true matches.
    """
    true = log_confidence[targets.batch, targets.index0, targets.index1]
    return -true.sum() / max(true.numel(), 1)


def focal_loss(
    log_confidence: Tensor, targets: CoarseTargets, *, alpha: float = 0.25, gamma: float = 2.0
) -> Tensor:
    """LoFTR's dense focal loss: mean over true matches plus mean over all other valid pairs.

    Args:
        log_confidence: (B, L, S), -inf where a cell is masked.
        targets: M true matches.
        alpha: weight of both means.
        gamma: how much certain decisions are discounted.
    """
    valid = torch.isfinite(log_confidence)
    confidence = log_confidence.exp().clamp(1e-6, 1 - 1e-6)
    positive = torch.zeros_like(valid)
    positive[targets.batch, targets.index0, targets.index1] = True
    negative = valid & ~positive
    true = confidence[targets.batch, targets.index0, targets.index1]
    hit = -alpha * (1 - true) ** gamma * true.log()
    other = confidence[negative]
    miss = -alpha * other**gamma * torch.log1p(-other)
    return hit.sum() / max(hit.numel(), 1) + miss.sum() / max(miss.numel(), 1)


def fine_loss(offset: Tensor, deviation: Tensor, targets: FineTargets) -> Tensor:
    """LoFTR's refinement loss: squared error weighted by certainty, 0 where there is no target.

    The weights 1 / deviation are normalized to mean 1 and carry no gradient, so that certainty
    cannot be lowered to escape the loss.

    Args:
        offset: (M, 2) predicted, in half windows.
        deviation: (M,) standard deviation of the prediction.
        targets: of the same M matches.
    """
    certainty = 1.0 / deviation.detach().float().clamp(min=1e-3)
    certainty = certainty * targets.valid
    weight = certainty * targets.valid.sum() / certainty.sum().clamp(min=1e-6)
    # Chosen before the difference is taken: a target that is not finite must reach no gradient.
    known = torch.where(targets.valid[:, None], targets.offset, offset.detach().float())
    error = ((offset.float() - known) ** 2).sum(dim=1)
    return (error * weight).sum() / targets.valid.sum().clamp(min=1)


def heatmap_loss(log_heatmap: Tensor, targets: FineTargets) -> Tensor:
    """Mean cross-entropy of the heatmaps, 0 where there is no target.

    The true position is shared out bilinearly among the four samples around it, so that the mean
    of a perfect heatmap is exact. Where the squared error of the mean fades away with the error,
    this still tells every sample of the window whether it is the right one.

    Args:
        log_heatmap: (M, W, W) log-probabilities, rows are y.
        targets: of the same M matches.
    """
    side = log_heatmap.shape[-1]
    samples = torch.arange(side, device=log_heatmap.device)
    position = (targets.offset[targets.valid] + 1) * (side - 1) / 2
    x, y = (1 - (position[:, None] - samples[:, None]).abs()).clamp(min=0).unbind(dim=2)
    true = (y[:, :, None] * x[:, None, :] * log_heatmap[targets.valid]).sum()
    return -true / targets.valid.sum().clamp(min=1)


def found(log_confidence: Tensor, targets: CoarseTargets) -> Tensor:
    """(M,) bool: the best partner in image 1 of each matched cell is the true one."""
    best = log_confidence[targets.batch, targets.index0].argmax(dim=1)
    return best == targets.index1
