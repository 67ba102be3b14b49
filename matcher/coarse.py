"""Matching of coarse cells: dual-softmax or Sinkhorn, then threshold, border and mutual best.

Training asks for log-confidences of all (B, L, S) pairs of cells. Inference with the dual-softmax
streams over blocks of rows and never holds that matrix.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from matcher.config import CoarseConfig
from matcher.structures import CoarseMatches

logger = logging.getLogger(__name__)

BLOCK_ELEMENTS = 1_000_000
"""Similarities held at a time while streaming: 4 MB in fp32."""
FEW_CANDIDATES = 0.05
"""Threshold from which one pass is enough: at most twenty candidates a row."""
LOG_RANGE = 60.0
"""Sums whose logarithms differ by less can be added in fp32."""


class Best(NamedTuple):
    """Best partner of every cell of one pair."""

    score0: Tensor
    """(L,) highest confidence in the row of each cell of image 0"""
    index0: Tensor
    """(L,) its column, the lowest where several are equal"""
    score1: Tensor
    """(S,) highest confidence in the column of each cell of image 1"""
    index1: Tensor
    """(S,) its row, the lowest where several are equal"""


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
        x0, x1 = self._tokens(coarse0), self._tokens(coarse1)
        with torch.autocast(x0.device.type, enabled=False):
            similarity = x0.float() @ x1.float().transpose(1, 2)
        valid = _pair_mask(x0, x1, mask0, mask1)
        if self.bin_score is not None:
            return sinkhorn(similarity, self.bin_score, self.config.sinkhorn_iterations, valid)[
                :, :-1, :-1
            ]
        if valid is None:
            return similarity.log_softmax(dim=1) + similarity.log_softmax(dim=2)
        similarity = similarity.masked_fill(~valid, torch.finfo(torch.float32).min)
        log_confidence = similarity.log_softmax(dim=1) + similarity.log_softmax(dim=2)
        return log_confidence.masked_fill(~valid, -math.inf)

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
            m0 = None if mask0 is None else mask0[b]
            m1 = None if mask1 is None else mask1[b]
            best = self._best(coarse0[b : b + 1], coarse1[b : b + 1], m0, m1, threshold)
            allowed0 = inside_border(size0, m0, self.config.border, coarse0.device)
            allowed1 = inside_border(size1, m1, self.config.border, coarse1.device)
            parts.append(mutual_best(best, allowed0, allowed1, threshold))
        batch = torch.cat([torch.full_like(p[0], b) for b, p in enumerate(parts)])
        index0, index1, score = (torch.cat(column) for column in zip(*parts, strict=True))
        return CoarseMatches(batch, index0, index1, score)

    def _tokens(self, coarse: Tensor) -> Tensor:
        """(B, C, h, w) to (B, L, C), scaled so that a product is a similarity."""
        scale = coarse.shape[1] ** -0.5
        if self.config.match_type == "dual_softmax":
            scale /= math.sqrt(self.config.temperature)
        return coarse.flatten(2).transpose(1, 2).float() * scale

    def _best(
        self,
        coarse0: Tensor,
        coarse1: Tensor,
        mask0: Tensor | None,
        mask1: Tensor | None,
        threshold: float,
    ) -> Best:
        """Best partners of one pair; features (1, C, h, w), masks (h, w)."""
        x0, x1 = self._tokens(coarse0)[0], self._tokens(coarse1)[0]
        # Similarities are fp32 under mixed precision too.
        with torch.autocast(x0.device.type, enabled=False):
            if self.bin_score is not None:
                return self._best_by_sinkhorn(x0, x1, mask0, mask1, self.bin_score)
            m0 = None if mask0 is None else mask0.flatten()
            m1 = None if mask1 is None else mask1.flatten()
            return stream_dual_softmax(x0, x1, m0, m1, threshold)

    def _best_by_sinkhorn(
        self,
        x0: Tensor,
        x1: Tensor,
        mask0: Tensor | None,
        mask1: Tensor | None,
        bin_score: Tensor,
    ) -> Best:
        need = 3 * 4 * (x0.shape[0] + 1) * (x1.shape[0] + 1) / 2**30
        if need > 1:
            logger.warning(
                "Sinkhorn holds %d x %d scores: about %.1f GB", x0.shape[0], x1.shape[0], need
            )
        valid = _pair_mask(x0[None], x1[None], _batched(mask0), _batched(mask1))
        scores = sinkhorn((x0 @ x1.T)[None], bin_score, self.config.sinkhorn_iterations, valid)[
            0
        ].exp()
        confidence = scores[:-1, :-1]
        if self.config.prefilter:
            binned0 = scores[:-1].argmax(dim=1) == x1.shape[0]
            binned1 = scores[:, :-1].argmax(dim=0) == x0.shape[0]
            confidence = confidence.masked_fill(binned0[:, None] | binned1[None], 0.0)
        score0, index0 = confidence.max(dim=1)
        score1, index1 = confidence.max(dim=0)
        return Best(score0, index0, score1, index1)


def mutual_best(
    best: Best, allowed0: Tensor, allowed1: Tensor, threshold: float
) -> tuple[Tensor, Tensor, Tensor]:
    """(index0, index1, score) of the allowed cells that are each other's best."""
    rows = torch.arange(best.index0.shape[0], device=best.index0.device)
    keep = (best.index1[best.index0] == rows) & (best.score0 > threshold)
    keep &= allowed0 & allowed1[best.index0]
    index0 = keep.nonzero()[:, 0]
    return index0, best.index0[index0], best.score0[index0]


class _Sums(NamedTuple):
    """Of the similarities of each cell with all cells of the other image."""

    largest: Tensor
    log: Tensor
    """log of the sum of exp(similarity - largest), at least 0"""


class _Candidates(NamedTuple):
    """Pairs of cells that may be matches, row by row."""

    index0: Tensor
    index1: Tensor
    score: Tensor


def stream_dual_softmax(
    x0: Tensor,
    x1: Tensor,
    mask0: Tensor | None,
    mask1: Tensor | None,
    threshold: float = 0.0,
) -> Best:
    """Best partners under the dual-softmax, over blocks of rows.

    A confidence is at most the softmax of its row. So where the threshold leaves few candidates a
    row, one pass finds them all, and their confidences when all columns are summed. Otherwise, and
    for similarities whose range is too wide for sums without a maximum of each column, two passes
    are made: maxima and sums of rows and columns, then the best of each.

    Args:
        x0: (L, C) features, scaled; x1: (S, C).
        mask0: (L,) bool of valid cells or None; mask1: (S,).
        threshold: confidences up to it do not matter; cells that cannot exceed it get 0.
    """
    best = Best(*_nothing_best(x0), *_nothing_best(x1))
    rows, columns = _valid(x0, mask0), _valid(x1, mask1)
    if not (len(rows) and len(columns)):
        return best
    x0, x1 = x0[rows].float(), x1[columns].float()
    candidates = _candidates(x0, x1, threshold) if threshold >= FEW_CANDIDATES else None
    if candidates is None:
        some = _stream_best(x0, x1, *_stream_sums(x0, x1))
    else:
        some = Best(
            *_best_candidate(candidates.index0, candidates.index1, candidates.score, len(x0)),
            *_best_candidate(candidates.index1, candidates.index0, candidates.score, len(x1)),
        )
    best.score0[rows], best.index0[rows] = some.score0, columns[some.index0]
    best.score1[columns], best.index1[columns] = some.score1, rows[some.index1]
    return best


def _nothing_best(x: Tensor) -> tuple[Tensor, Tensor]:
    zeros = torch.zeros(len(x), device=x.device)
    return zeros, zeros.long()


def _valid(x: Tensor, mask: Tensor | None) -> Tensor:
    return torch.arange(len(x), device=x.device) if mask is None else mask.nonzero()[:, 0]


def _similarity_blocks(x0: Tensor, x1: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Rows and their (rows, S) similarities, block after block in the same memory: new memory for
    each would leave gaps between what is kept, and no block fits into the gap of another."""
    step = min(len(x0), max(1, BLOCK_ELEMENTS // len(x1)))
    memory = x0.new_empty(step, len(x1))
    for start in range(0, len(x0), step):
        some = x0[start : start + step]
        yield (
            slice(start, start + len(some)),
            torch.mm(some, x1.T, out=memory[: len(some)]),
        )


def _candidates(x0: Tensor, x1: Tensor, threshold: float) -> _Candidates | None:
    """All pairs whose softmax along the row exceeds the threshold, with their confidence; None
    where the logarithms of the sums of rows are too large or too far apart."""
    row_log = x0.new_empty(len(x0))
    column_log = x1.new_full((len(x1),), -math.inf)
    parts = []
    for rows, block in _similarity_blocks(x0, x1):
        largest = block.amax(dim=1)
        softmax = torch.softmax(block, dim=1, out=block)
        most = softmax.amax(dim=1)
        log = row_log[rows] = largest - most.log()
        top = log.max()
        sums = (log - top).exp() @ softmax
        column_log = torch.logaddexp(column_log, sums.log() + top)
        some = (most > threshold).nonzero()[:, 0]
        row, index1 = (softmax[some] > threshold).nonzero().T
        index0 = some[row]
        parts.append((index0 + rows.start, index1, softmax[index0, index1]))
    smallest, largest = row_log.aminmax()
    if largest - smallest > LOG_RANGE or max(largest, -smallest) > 2 * LOG_RANGE:
        return None
    index0, index1, score = (torch.cat(column) for column in zip(*parts, strict=True))
    by_column = (score.log() + row_log[index0] - column_log[index1]).exp()
    return _Candidates(index0, index1, score * by_column)


def _best_candidate(
    cells: Tensor, partners: Tensor, scores: Tensor, count: int
) -> tuple[Tensor, Tensor]:
    """(count,) best score of each cell, 0 without a candidate, and its lowest partner."""
    best = scores.new_zeros(count).scatter_reduce_(0, cells, scores, "amax")
    ties = scores == best[cells]
    lowest = partners.new_full((count,), len(partners) and int(partners.max()))
    lowest.scatter_reduce_(0, cells[ties], partners[ties], "amin")
    return best, lowest


def _stream_sums(x0: Tensor, x1: Tensor) -> tuple[_Sums, _Sums]:
    """Of the rows and of the columns. Maxima are subtracted before anything else, as a softmax
    does, so that large similarities keep their precision."""
    row_max, row_log = x0.new_empty(len(x0)), x0.new_empty(len(x0))
    column_max, column_sum = x1.new_full((len(x1),), -math.inf), x1.new_zeros(len(x1))
    for rows, block in _similarity_blocks(x0, x1):
        row_max[rows] = block.amax(dim=1)
        row_log[rows] = (block - row_max[rows, None]).exp_().sum(dim=1).log()
        new_max = torch.maximum(column_max, block.amax(dim=0))
        column_sum = column_sum * (column_max - new_max).exp()
        column_sum += block.sub_(new_max).exp_().sum(dim=0)
        column_max = new_max
    return _Sums(row_max, row_log), _Sums(column_max, column_sum.log())


def _stream_best(x0: Tensor, x1: Tensor, sums0: _Sums, sums1: _Sums) -> Best:
    score0, score1 = x0.new_empty(len(x0)), x1.new_full((len(x1),), -math.inf)
    index0, index1 = (torch.zeros(len(x), dtype=torch.int64, device=x.device) for x in (x0, x1))
    for rows, block in _similarity_blocks(x0, x1):
        log_confidence = (block - sums0.largest[rows, None]).sub_(sums0.log[rows, None])
        log_confidence += block.sub_(sums1.largest).sub_(sums1.log)
        score0[rows], index0[rows] = log_confidence.max(dim=1)
        score, index = log_confidence.max(dim=0)
        better = score > score1
        score1[better] = score[better]
        index1[better] = index[better] + rows.start
    return Best(score0.exp(), index0, score1.exp(), index1)


def inside_border(
    size: tuple[int, int] | torch.Size, mask: Tensor | None, border: int, device: torch.device
) -> Tensor:
    """(L,) bool of the cells that may match: at least `border` cells from the edge of the valid
    part of a map of `size` (h, w), valid under the (h, w) `mask`."""
    h, w = size
    valid = torch.ones(h, w, dtype=torch.bool, device=device) if mask is None else mask
    if border == 0:
        return valid.flatten()
    rows, columns = valid.any(dim=1).nonzero()[:, 0], valid.any(dim=0).nonzero()[:, 0]
    allowed = torch.zeros_like(valid)
    if rows.numel():
        top, bottom = int(rows[0]) + border, int(rows[-1]) + 1 - border
        left, right = int(columns[0]) + border, int(columns[-1]) + 1 - border
        if top < bottom and left < right:
            allowed[top:bottom, left:right] = valid[top:bottom, left:right]
    return allowed.flatten()


def sinkhorn(
    similarity: Tensor, bin_score: Tensor, iterations: int, valid: Tensor | None
) -> Tensor:
    """Log-assignment with a dustbin row and column (Sarlin et al., SuperGlue, CVPR 2020).

    Args:
        similarity: (B, L, S); bin_score: () score of the dustbins.
        valid: (B, L, S) bool of pairs that may match, or None.

    Returns:
        (B, L + 1, S + 1) log-probabilities, the dustbins last.
    """
    _, rows, columns = similarity.shape
    if valid is not None:
        similarity = similarity.masked_fill(~valid, torch.finfo(similarity.dtype).min / 2)
    scores = F.pad(similarity, (0, 1, 0, 1))
    scores[:, -1, :] = bin_score
    scores[:, :, -1] = bin_score
    norm = -math.log(rows + columns)
    log_row = scores.new_full((rows + 1,), norm)
    log_row[-1] = math.log(columns) + norm
    log_column = scores.new_full((columns + 1,), norm)
    log_column[-1] = math.log(rows) + norm
    u, v = torch.zeros_like(scores[:, :, 0]), torch.zeros_like(scores[:, 0])
    for _ in range(iterations):
        u = log_row - torch.logsumexp(scores + v[:, None], dim=2)
        v = log_column - torch.logsumexp(scores + u[:, :, None], dim=1)
    return scores + u[:, :, None] + v[:, None] - norm


def _batched(mask: Tensor | None) -> Tensor | None:
    return None if mask is None else mask[None]


def _pair_mask(x0: Tensor, x1: Tensor, mask0: Tensor | None, mask1: Tensor | None) -> Tensor | None:
    """(B, L, S) bool of the pairs of valid cells, None if all are."""
    if mask0 is None and mask1 is None:
        return None
    sides = []
    for x, mask in ((x0, mask0), (x1, mask1)):
        everywhere = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        sides.append(everywhere if mask is None else mask.flatten(1))
    return sides[0][:, :, None] & sides[1][:, None, :]
