"""The training loss: what a model loses on a batch with ground truth."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from matcher.attention.record import AttentionRecorder
from matcher.network.model import FeatureMatcher
from matcher.structures import CoarseMatches, ImagePair, TrainingOutput
from matcher.training.config import LossConfig
from matcher.training.distillation import Distillation
from matcher.training.loss.dual_softmax import true_log_confidence
from matcher.training.loss.levels import cross_blocks, level_loss
from matcher.training.supervision import CoarseTargets, FineTargets, supervise


class LossTerms(NamedTuple):
    """Scalars of one step; `total` is what is minimized."""

    total: Tensor
    coarse: Tensor
    fine: Tensor
    heatmap: Tensor
    levels: Tensor
    teacher: Tensor


class TrainingLoss(NamedTuple):
    """Losses of a batch and what they were computed from."""

    terms: LossTerms
    correct: Tensor
    """bool, of the matches that the coarse loss took: the best partner of a cell is the true one"""
    coarse: CoarseTargets
    fine: FineTargets
    """Of the matches that were refined."""
    offset: Tensor


def training_loss(
    model: FeatureMatcher,
    pair: ImagePair,
    config: LossConfig,
    distillation: Distillation | None = None,
) -> TrainingLoss:
    """Losses of `model` on a batch that carries its geometry."""
    coarse, fine = supervise(
        pair, stride=model.stride, reach=float(model.reach), tolerance=config.tolerance
    )
    matches, fine = refinable(coarse, fine)
    with AttentionRecorder(cross_blocks(model) if config.level_weight else ()) as recorder:
        output = model.forward_training(
            pair.image0, pair.image1, pair.mask0, pair.mask1, matches, config.fine_samples
        )
    chosen = FineTargets(fine.offset[output.refined], fine.valid[output.refined])
    coarse_term, correct = coarse_loss(model, output, coarse, config)
    fine_term = fine_loss(output.offset, output.deviation, chosen)
    heatmap_term = heatmap_loss(output.log_heatmap, chosen)
    level_term = level_loss(recorder.calls, coarse, coarse_term.device)
    teacher_term = coarse_term.new_zeros(()) if distillation is None else distillation(output, pair)
    total = (
        config.coarse_weight * coarse_term
        + config.fine_weight * fine_term
        + config.heatmap_weight * heatmap_term
        + config.level_weight * level_term
        + config.teacher_weight * teacher_term
    )
    losses = LossTerms(total, coarse_term, fine_term, heatmap_term, level_term, teacher_term)
    return TrainingLoss(losses, correct, coarse, chosen, output.offset)


def coarse_loss(
    model: FeatureMatcher, output: TrainingOutput, targets: CoarseTargets, config: LossConfig
) -> tuple[Tensor, Tensor]:
    """The coarse loss, and a bool for each true match that it took: whether it is found."""
    maps = output.coarse0, output.coarse1, output.mask0, output.mask1
    matching = model.config.coarse
    if config.coarse == "positives" and matching.match_type == "dual_softmax":
        some = drawn(targets, config.coarse_samples)
        true, partner = true_log_confidence(*maps, matching.temperature, some)
        return positives_loss(true), partner == some.index1
    log_confidence = model.coarse.log_confidence(*maps)
    correct = found(log_confidence.detach(), targets)
    if config.coarse == "positives":
        return positives_loss(
            log_confidence[targets.batch, targets.index0, targets.index1]
        ), correct
    focal = focal_loss(log_confidence, targets, alpha=config.focal_alpha, gamma=config.focal_gamma)
    return focal, correct


def drawn(targets: CoarseTargets, limit: int) -> CoarseTargets:
    """At most `limit` of the true matches, drawn at random, in their order; 0: all."""
    count = targets.batch.numel()
    if not limit or count <= limit:
        return targets
    chosen = torch.randperm(count)[:limit].sort().values.to(targets.batch.device)
    batch, index0, index1 = (column[chosen] for column in targets[:3])
    return CoarseTargets(batch, index0, index1, targets.size0, targets.size1)


def refinable(coarse: CoarseTargets, fine: FineTargets) -> tuple[CoarseMatches, FineTargets]:
    """The true matches; one without target where there is none."""
    count, device = coarse.batch.numel(), coarse.batch.device
    if count:
        score = torch.ones(count, device=device)
        return CoarseMatches(coarse.batch, coarse.index0, coarse.index1, score), fine
    zero = torch.zeros(1, dtype=torch.int64, device=device)
    nothing = FineTargets(torch.zeros(1, 2, device=device), zero.bool())
    return CoarseMatches(zero, zero, zero, torch.zeros(1, device=device)), nothing


def positives_loss(true: Tensor) -> Tensor:
    """Mean negative log-confidence of (M,) true matches; 0 where there is none."""
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
