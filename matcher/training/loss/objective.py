"""The training objective: what a model loses on a batch with ground truth."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from matcher.network.model import FeatureMatcher
from matcher.structures import CoarseMatches, FeatureMaps, ImagePair
from matcher.training.config import LossConfig
from matcher.training.loss import terms
from matcher.training.loss.levels import BlockSupervision
from matcher.training.loss.likelihood import true_log_confidence
from matcher.training.loss.terms import LossTerms
from matcher.training.supervision import CoarseTargets, FineTargets, supervise


class Objective(NamedTuple):
    """Losses of a batch and what they were computed from."""

    terms: LossTerms
    correct: Tensor
    """(M,) bool: the best partner of a matched cell is the true one"""
    coarse: CoarseTargets
    fine: FineTargets
    """Of the matches that were refined."""
    offset: Tensor


def objective(model: FeatureMatcher, pair: ImagePair, loss: LossConfig) -> Objective:
    """Losses of `model` on a batch that carries its geometry."""
    stride, fine_stride = model.config.backbone.resolution
    reach = model.fine.window // 2 * fine_stride
    coarse, fine = supervise(pair, stride=stride, reach=float(reach), tolerance=loss.tolerance)
    features0, features1 = extract_both(model, pair)
    mask0, mask1 = model.cell_mask(pair.mask0), model.cell_mask(pair.mask1)
    with BlockSupervision(model, coarse, pair.image0.shape[0], loss.block_weight > 0) as blocks:
        coarse0, coarse1 = model.attend(features0.coarse, features1.coarse, mask0, mask1)
    coarse_term, correct = coarse_loss(model, coarse0, coarse1, mask0, mask1, coarse, loss)
    cells, chosen = sample_matches(coarse, fine, loss.fine_samples)
    heat = model.fine.heat(features0.fine, features1.fine, coarse0, coarse1, *cells[:3])
    offset, deviation = model.fine.locate(heat)
    fine_term = terms.fine_loss(offset, deviation, chosen)
    heat_term = terms.heat_loss(heat, chosen)
    block_term = blocks.loss(coarse_term)
    total = (
        loss.coarse_weight * coarse_term
        + loss.fine_weight * fine_term
        + loss.heat_weight * heat_term
        + loss.block_weight * block_term
    )
    losses = LossTerms(total, coarse_term, fine_term, heat_term, block_term)
    return Objective(losses, correct, coarse, chosen, offset)


def coarse_loss(
    model: FeatureMatcher,
    coarse0: Tensor,
    coarse1: Tensor,
    mask0: Tensor | None,
    mask1: Tensor | None,
    targets: CoarseTargets,
    loss: LossConfig,
) -> tuple[Tensor, Tensor]:
    """The coarse loss and which of the true matches are found."""
    config = model.config.coarse
    if loss.coarse == "positives" and config.match_type == "dual_softmax":
        true, partner = true_log_confidence(
            coarse0, coarse1, mask0, mask1, config.temperature, targets
        )
        return -true.sum() / max(true.numel(), 1), partner == targets.index1
    log_confidence = model.coarse.log_confidence(coarse0, coarse1, mask0, mask1)
    correct = terms.found(log_confidence.detach(), targets)
    if loss.coarse == "positives":
        return terms.positives_loss(log_confidence, targets), correct
    return terms.focal_loss(
        log_confidence, targets, alpha=loss.focal_alpha, gamma=loss.focal_gamma
    ), correct


def extract_both(model: FeatureMatcher, pair: ImagePair) -> tuple[FeatureMaps, FeatureMaps]:
    """Features of both images, in one pass where their sizes agree."""
    if pair.image0.shape != pair.image1.shape:
        return model.extract(pair.image0), model.extract(pair.image1)
    both = model.extract(torch.cat([pair.image0, pair.image1]))
    halves = zip(both.coarse.chunk(2), both.fine.chunk(2), strict=True)
    features0, features1 = (FeatureMaps(*maps) for maps in halves)
    return features0, features1


def sample_matches(
    coarse: CoarseTargets, fine: FineTargets, limit: int
) -> tuple[CoarseMatches, FineTargets]:
    """At most `limit` true matches, drawn at random; one without target where there is none."""
    count = coarse.batch.numel()
    device = coarse.batch.device
    if count == 0:
        zero = torch.zeros(1, dtype=torch.int64, device=device)
        nothing = FineTargets(torch.zeros(1, 2, device=device), zero.bool())
        return CoarseMatches(zero, zero, zero, torch.zeros(1, device=device)), nothing
    if count > limit:
        index = torch.randperm(count)[:limit].sort().values.to(device)
    else:
        index = torch.arange(count, device=device)
    matches = CoarseMatches(
        coarse.batch[index],
        coarse.index0[index],
        coarse.index1[index],
        torch.ones(index.numel(), device=device),
    )
    return matches, FineTargets(fine.offset[index], fine.valid[index])
