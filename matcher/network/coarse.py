"""Matching of coarse cells: dual-softmax or Sinkhorn, then threshold, border and mutual best.

Training asks for log-confidences of all (B, L, S) pairs of cells. Inference with the dual-softmax
never holds that matrix: it streams (`matcher.network.dual_softmax`) or scores only the blocks that
coarser levels find alike (`matcher.network.routing`).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from matcher.config import CoarseConfig
from matcher.network.dual_softmax import Best, sparse_dual_softmax, stream_dual_softmax
from matcher.network.routing import CellTree, levels_for, route
from matcher.network.sinkhorn import sinkhorn
from matcher.structures import CoarseMatches

logger = logging.getLogger(__name__)
ROUTED_PAIRS = 1 << 22
"""Pairs of cells from which scoring only the blocks of `route` is faster than scoring them all, as
measured on a CPU: 20 ms both; with 22 million pairs, of two images of 640 x 480, 48 and 122 ms."""


class CoarseMatcher(nn.Module):
    """Matches between the cells of two coarse maps."""

    def __init__(self, config: CoarseConfig) -> None:
        super().__init__()
        self.config = config
        self.bin_score = (
            nn.Parameter(torch.tensor(1.0)) if config.match_type == "sinkhorn" else None
        )

    def log_confidence(
        self, coarse0: Tensor, coarse1: Tensor, mask0: Tensor | None, mask1: Tensor | None
    ) -> Tensor:
        """(B, L, S) log-confidence in fp32 of every pair of cells, -inf where a cell is masked.

        Args:
            coarse0: (B, C, h0, w0); coarse1: (B, C, h1, w1).
            mask0: (B, h0, w0) bool of valid cells, None means everywhere; mask1 likewise.
        """
        x0, x1 = self.tokens(coarse0), self.tokens(coarse1)
        with torch.autocast(x0.device.type, enabled=False):
            similarity = x0.float() @ x1.float().transpose(1, 2)
        valid = _pair_mask(x0, x1, mask0, mask1)
        if self.bin_score is not None:
            iterations = self.config.sinkhorn_iterations
            scores = sinkhorn(similarity, self.bin_score, iterations, valid)[:, :-1, :-1]
        else:
            if valid is not None:
                similarity = similarity.masked_fill(~valid, torch.finfo(torch.float32).min)
            scores = similarity.log_softmax(dim=1) + similarity.log_softmax(dim=2)
        return scores if valid is None else scores.masked_fill(~valid, -math.inf)

    @torch.no_grad()
    def match(
        self,
        coarse0: Tensor,
        coarse1: Tensor,
        mask0: Tensor | None = None,
        mask1: Tensor | None = None,
        threshold: float | None = None,
    ) -> CoarseMatches:
        """Mutual best cells above the threshold, inside the border; arguments as above.

        `threshold` replaces the configured one.
        """
        threshold = self.config.threshold if threshold is None else threshold
        size0, size1 = coarse0.shape[-2:], coarse1.shape[-2:]
        parts = []
        for b in range(coarse0.shape[0]):
            m0, m1 = (None if mask is None else mask[b] for mask in (mask0, mask1))
            # Similarities are fp32 under mixed precision too.
            with torch.autocast(coarse0.device.type, enabled=False):
                best = self._best(coarse0[b : b + 1], coarse1[b : b + 1], m0, m1, threshold)
            allowed0 = inside_border(size0, m0, self.config.border, coarse0.device)
            allowed1 = inside_border(size1, m1, self.config.border, coarse1.device)
            parts.append(mutual_best(best, allowed0, allowed1, threshold))
        batch = torch.cat([torch.full_like(p[0], b) for b, p in enumerate(parts)])
        index0, index1, score = (torch.cat(column) for column in zip(*parts, strict=True))
        return CoarseMatches(batch, index0, index1, score)

    def tokens(self, coarse: Tensor) -> Tensor:
        """(B, C, h, w) to (B, L, C), scaled so that a product is a similarity."""
        scale = coarse.shape[1] ** -0.5
        if self.config.match_type == "dual_softmax":
            scale /= math.sqrt(self.config.temperature)
        return coarse.flatten(2).transpose(1, 2).float() * scale

    def _is_routed(self, size0: Sequence[int], size1: Sequence[int]) -> bool:
        routing = self.config.routing if self.bin_score is None else "exact"
        many = math.prod(size0) * math.prod(size1) >= ROUTED_PAIRS
        return routing == "routed" or (routing == "auto" and many)

    def tree(self, coarse: Tensor, mask: Tensor | None, levels: int) -> CellTree:
        """Tree of the tokens of a (1, C, h, w) map with an (h, w) mask."""
        cells = self.tokens(coarse)[0].unflatten(0, coarse.shape[-2:])
        return CellTree.build(cells, mask, levels)

    def _best(
        self,
        coarse0: Tensor,
        coarse1: Tensor,
        mask0: Tensor | None,
        mask1: Tensor | None,
        threshold: float,
    ) -> Best:
        """Best partners of one pair: (1, C, h, w) maps, (h, w) masks.

        Among all cells, or among the blocks of cells that coarser levels find alike.
        """
        sizes = coarse0.shape[-2:], coarse1.shape[-2:]
        if self._is_routed(*sizes):
            levels = levels_for(*sizes)
            tree0, tree1 = self.tree(coarse0, mask0, levels), self.tree(coarse1, mask1, levels)
            return sparse_dual_softmax(tree0, tree1, *route(tree0, tree1), threshold)
        x0, x1 = self.tokens(coarse0)[0], self.tokens(coarse1)[0]
        if self.bin_score is not None:
            return self._best_by_sinkhorn(x0, x1, mask0, mask1, self.bin_score)
        m0, m1 = (None if mask is None else mask.flatten() for mask in (mask0, mask1))
        return stream_dual_softmax(x0, x1, m0, m1, threshold)

    def _best_by_sinkhorn(
        self, x0: Tensor, x1: Tensor, mask0: Tensor | None, mask1: Tensor | None, bin_score: Tensor
    ) -> Best:
        need = 3 * 4 * (x0.shape[0] + 1) * (x1.shape[0] + 1) / 2**30
        if need > 1:
            logger.warning(
                "Sinkhorn holds %d x %d scores: about %.1f GB", x0.shape[0], x1.shape[0], need
            )
        m0, m1 = (None if mask is None else mask[None] for mask in (mask0, mask1))
        valid = _pair_mask(x0[None], x1[None], m0, m1)
        iterations = self.config.sinkhorn_iterations
        scores = sinkhorn((x0 @ x1.T)[None], bin_score, iterations, valid)[0].exp()
        confidence = scores[:-1, :-1]
        if self.config.prefilter:
            binned0 = scores[:-1].argmax(dim=1) == x1.shape[0]
            binned1 = scores[:, :-1].argmax(dim=0) == x0.shape[0]
            confidence = confidence.masked_fill(binned0[:, None] | binned1[None], 0.0)
        return Best(*confidence.max(dim=1), *confidence.max(dim=0))


def mutual_best(
    best: Best, allowed0: Tensor, allowed1: Tensor, threshold: float
) -> tuple[Tensor, Tensor, Tensor]:
    """(index0, index1, score) of the allowed cells that are each other's best."""
    rows = torch.arange(best.index0.shape[0], device=best.index0.device)
    keep = (best.index1[best.index0] == rows) & (best.score0 > threshold)
    keep &= allowed0 & allowed1[best.index0]
    index0 = keep.nonzero()[:, 0]
    return index0, best.index0[index0], best.score0[index0]


def inside_border(
    size: tuple[int, int] | torch.Size, mask: Tensor | None, border: int, device: torch.device
) -> Tensor:
    """(L,) bool of the cells that may match: at least `border` cells from the edge of the valid
    part of a map of `size` (h, w), valid under the (h, w) `mask`."""
    valid = torch.ones(*size, dtype=torch.bool, device=device) if mask is None else mask
    allowed = valid
    for axis, side in enumerate(size):
        place = torch.arange(side, device=device)
        there = valid.any(dim=1 - axis)
        first = torch.where(there, place, side).amin(dim=0) + border
        last = torch.where(there, place, -1).amax(dim=0) - border
        inside = (place >= first) & (place <= last)
        allowed = allowed & inside.unsqueeze(1 - axis)
    return allowed.flatten()


def _pair_mask(x0: Tensor, x1: Tensor, mask0: Tensor | None, mask1: Tensor | None) -> Tensor | None:
    """(B, L, S) bool of the pairs of valid cells, None if all are."""
    if mask0 is None and mask1 is None:
        return None
    sides = []
    for x, mask in ((x0, mask0), (x1, mask1)):
        everywhere = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        sides.append(everywhere if mask is None else mask.flatten(1))
    return sides[0][:, :, None] & sides[1][:, None, :]
