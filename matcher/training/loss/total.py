"""The training loss: what a model loses on a batch with ground truth."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from matcher.attention.record import AttentionRecorder
from matcher.network.model import FeatureMatcher
from matcher.structures import CoarseMatches, ImagePair, TrainingOutput
from matcher.training.config import LossConfig
from matcher.training.loss import terms
from matcher.training.loss.dual_softmax import true_log_confidence
from matcher.training.loss.levels import cross_blocks, level_loss
from matcher.training.loss.terms import LossTerms
from matcher.training.supervision import CoarseTargets, FineTargets, supervise


class TrainingLoss(NamedTuple):
    """Losses of a batch and what they were computed from."""

    terms: LossTerms
    correct: Tensor
    """(M,) bool: the best partner of a matched cell is the true one"""
    coarse: CoarseTargets
    fine: FineTargets
    """Of the matches that were refined."""
    offset: Tensor


def training_loss(model: FeatureMatcher, pair: ImagePair, config: LossConfig) -> TrainingLoss:
    """Losses of `model` on a batch that carries its geometry."""
    stride, fine_stride = model.config.backbone.resolution
    reach = model.fine.window // 2 * fine_stride
    coarse, fine = supervise(pair, stride=stride, reach=float(reach), tolerance=config.tolerance)
    matches, fine = refinable(coarse, fine)
    with AttentionRecorder(cross_blocks(model) if config.level_weight else ()) as recorder:
        output = model.forward_training(
            pair.image0, pair.image1, pair.mask0, pair.mask1, matches, config.fine_samples
        )
    chosen = FineTargets(fine.offset[output.refined], fine.valid[output.refined])
    coarse_term, correct = coarse_loss(model, output, coarse, config)
    fine_term = terms.fine_loss(output.offset, output.deviation, chosen)
    heatmap_term = terms.heatmap_loss(output.log_heatmap, chosen)
    level_term = level_loss(recorder.calls, coarse, coarse_term.device)
    total = (
        config.coarse_weight * coarse_term
        + config.fine_weight * fine_term
        + config.heatmap_weight * heatmap_term
        + config.level_weight * level_term
    )
    losses = LossTerms(total, coarse_term, fine_term, heatmap_term, level_term)
    return TrainingLoss(losses, correct, coarse, chosen, output.offset)


def coarse_loss(
    model: FeatureMatcher, output: TrainingOutput, targets: CoarseTargets, config: LossConfig
) -> tuple[Tensor, Tensor]:
    """The coarse loss, and (M,) bool of the true matches that are found."""
    maps = output.coarse0, output.coarse1, output.mask0, output.mask1
    matching = model.config.coarse
    if config.coarse == "positives" and matching.match_type == "dual_softmax":
        true, partner = true_log_confidence(*maps, matching.temperature, targets)
        return -true.sum() / max(true.numel(), 1), partner == targets.index1
    log_confidence = model.coarse.log_confidence(*maps)
    correct = terms.found(log_confidence.detach(), targets)
    if config.coarse == "positives":
        return terms.positives_loss(log_confidence, targets), correct
    focal = terms.focal_loss(
        log_confidence, targets, alpha=config.focal_alpha, gamma=config.focal_gamma
    )
    return focal, correct


def refinable(coarse: CoarseTargets, fine: FineTargets) -> tuple[CoarseMatches, FineTargets]:
    """The true matches; one without target where there is none."""
    count, device = coarse.batch.numel(), coarse.batch.device
    if count:
        score = torch.ones(count, device=device)
        return CoarseMatches(coarse.batch, coarse.index0, coarse.index1, score), fine
    zero = torch.zeros(1, dtype=torch.int64, device=device)
    nothing = FineTargets(torch.zeros(1, 2, device=device), zero.bool())
    return CoarseMatches(zero, zero, zero, torch.zeros(1, device=device)), nothing
