"""Best partners under the dual-softmax; the (L, S) matrix is never held.

Over all of it, in blocks of rows, or over chosen pairs of blocks of cells where all else is zero.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from matcher.network.routing import CellTree

BLOCK_ELEMENTS = 1_000_000
"""Similarities held at a time while streaming: 4 MB in fp32."""
LEAST_ROWS = 64
"""Rows of a block, however long they are: products of few rows are slow."""
FEW_CANDIDATES = 0.05
"""Threshold from which one pass is enough: at most twenty candidates a row."""
GROUP = 64
"""Confidences looked at together: few groups of a sparse matrix hold one above the threshold."""
LOG_RANGE = 60.0
"""Sums whose logarithms differ by less can be added in fp32."""
CHUNK_PAIRS = 1024
"""Pairs of blocks whose features are fetched at a time: 2 MB each of 128 channels."""


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
    x0: Tensor, x1: Tensor, mask0: Tensor | None, mask1: Tensor | None, threshold: float = 0.0
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
            *best_of_candidates(candidates.index0, candidates.index1, candidates.score, len(x0)),
            *best_of_candidates(candidates.index1, candidates.index0, candidates.score, len(x1)),
        )
    best.score0[rows], best.index0[rows] = some.score0, columns[some.index0]
    best.score1[columns], best.index1[columns] = some.score1, rows[some.index1]
    return best


def _nothing_best(x: Tensor) -> tuple[Tensor, Tensor]:
    zeros = torch.zeros(len(x), dtype=torch.float32, device=x.device)
    return zeros, zeros.long()


def _valid(x: Tensor, mask: Tensor | None) -> Tensor:
    return torch.arange(len(x), device=x.device) if mask is None else mask.nonzero()[:, 0]


def _similarity_blocks(x0: Tensor, x1: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Rows and their (rows, S) similarities, block after block in the same memory: new memory for
    each would leave gaps between what is kept, and no block fits into the gap of another."""
    step = min(len(x0), max(LEAST_ROWS, BLOCK_ELEMENTS // len(x1)))
    memory = x0.new_empty(step, len(x1))
    for start in range(0, len(x0), step):
        some = x0[start : start + step]
        yield slice(start, start + len(some)), torch.mm(some, x1.T, out=memory[: len(some)])


def _candidates(x0: Tensor, x1: Tensor, threshold: float) -> _Candidates | None:
    """All pairs whose softmax along the row exceeds the threshold, with their confidence; None
    where the logarithms of the sums of rows are too large or too far apart."""
    row_log = x0.new_empty(len(x0))
    sums, column_log = x1.new_empty(len(x1)), x1.new_full((len(x1),), -math.inf)
    # Nothing small is kept between the blocks: it would leave gaps, as in `_similarity_blocks`.
    room = len(x0) * (math.ceil(1 / threshold) + 1)
    index0, index1 = (torch.empty(room, dtype=torch.int64, device=x0.device) for _ in range(2))
    candidates = _Candidates(index0, index1, x0.new_empty(room))
    count = 0
    for rows, block in _similarity_blocks(x0, x1):
        largest = block.amax(dim=1)
        softmax = torch.softmax(block, dim=1, out=block)
        log = row_log[rows] = largest - softmax.amax(dim=1).log()
        top = log.max()
        torch.mv(softmax.T, (log - top).exp(), out=sums)
        torch.logaddexp(column_log, sums.log_().add_(top), out=column_log)
        found = _above(softmax, threshold)
        found.index0.add_(rows.start)
        for column, some in zip(candidates, found, strict=True):
            column[count : count + len(some)] = some
        count += len(found.score)
    smallest, largest = row_log.aminmax()
    if largest - smallest > LOG_RANGE or max(largest, -smallest) > 2 * LOG_RANGE:
        return None
    index0, index1, score = (column[:count] for column in candidates)
    by_column = (score.log() + row_log[index0] - column_log[index1]).exp()
    return _Candidates(index0, index1, score * by_column)


def _above(p: Tensor, threshold: float) -> _Candidates:
    """The few elements of a contiguous matrix above the threshold, row by row."""
    flat = p.view(-1)
    whole = len(flat) // GROUP * GROUP
    groups = flat[:whole].view(-1, GROUP)
    some = (groups.amax(dim=1) > threshold).nonzero()[:, 0]
    group, place = (groups[some] > threshold).nonzero().T
    rest = (flat[whole:] > threshold).nonzero()[:, 0]
    at = torch.cat([some[group] * GROUP + place, whole + rest])
    return _Candidates(at // p.shape[1], at % p.shape[1], flat[at])


def best_of_candidates(
    cells: Tensor, partners: Tensor, scores: Tensor, count: int
) -> tuple[Tensor, Tensor]:
    """(count,) best score of each cell, 0 without a candidate, and its lowest partner."""
    best = scores.new_zeros(count).scatter_reduce_(0, cells, scores, "amax")
    ties = scores == best[cells]
    lowest = partners.new_zeros(count)
    lowest.scatter_reduce_(0, cells[ties], partners[ties], "amin", include_self=False)
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


def sparse_dual_softmax(
    tree0: CellTree, tree1: CellTree, block0: Tensor, block1: Tensor, threshold: float = 0.0
) -> Best:
    """Best partners, in raster order, where only pairs of cells of the given blocks are scored.

    Rows and columns are normalized over what is scored: where that is every pair of valid cells,
    the result is that of `stream_dual_softmax`.

    Args:
        tree0, tree1: of maps of L and S cells.
        block0, block1: (P,) blocks of the two, each pair once, in order of the first.
        threshold: confidences up to it do not matter; cells that cannot exceed it get 0.
    """
    confidence = _confidences_of_blocks(tree0, tree1, block0, block1)
    pair, cell0, cell1 = (confidence > threshold).nonzero().T
    score = confidence[pair, cell0, cell1]
    index0 = tree0.raster[block0[pair] * 4 + cell0]
    index1 = tree1.raster[block1[pair] * 4 + cell1]
    return Best(
        *best_of_candidates(index0, index1, score, tree0.count),
        *best_of_candidates(index1, index0, score, tree1.count),
    )


def _confidences_of_blocks(
    tree0: CellTree, tree1: CellTree, block0: Tensor, block1: Tensor
) -> Tensor:
    """(P, 4, 4) confidences of the cells of pairs of blocks, 0 where one is not valid."""
    cells0, cells1 = tree0.levels[-1], tree1.levels[-1]
    scores = _similarities(cells0, cells1, block0, block1)
    valid = _both_valid(tree0.valid[-1], tree1.valid[-1], block0, block1)
    if valid is not None:
        scores.masked_fill_(~valid, torch.finfo(scores.dtype).min)
    row_max, row_log = _sums_of_blocks(scores, block0, len(cells0) // 4)
    # Sums over what is in order are the same every time, on GPUs too.
    order = block1.argsort(stable=True)
    column_max, column_log = _sums_of_blocks(scores[order].mT, block1[order], len(cells1) // 4)
    log_confidence = (scores - row_max[block0][:, :, None]).sub_(row_log[block0][:, :, None])
    log_confidence += scores.sub_(column_max[block1][:, None]).sub_(column_log[block1][:, None])
    confidence = log_confidence.exp_()
    return confidence if valid is None else confidence.masked_fill_(~valid, 0.0)


def _similarities(cells0: Tensor, cells1: Tensor, block0: Tensor, block1: Tensor) -> Tensor:
    """(P, 4, 4) products of the cells of pairs of blocks."""
    channels = cells0.shape[1]
    tables = cells0.view(-1, 4 * channels), cells1.view(-1, 4 * channels)
    scores = cells0.new_empty(len(block0), 4, 4)
    room = [cells0.new_empty(min(CHUNK_PAIRS, len(block0)), 4 * channels) for _ in tables]
    for start in range(0, len(block0), CHUNK_PAIRS):
        part = slice(start, start + CHUNK_PAIRS)
        some0, some1 = (
            torch.index_select(table, 0, block[part], out=memory[: len(block[part])])
            for table, block, memory in zip(tables, (block0, block1), room, strict=True)
        )
        some0, some1 = (some.view(-1, 4, channels) for some in (some0, some1))
        torch.bmm(some0, some1.mT, out=scores[part])
    return scores


def _both_valid(
    valid0: Tensor | None, valid1: Tensor | None, block0: Tensor, block1: Tensor
) -> Tensor | None:
    """(P, 4, 4) or what broadcasts to it: where both cells are valid; None where all are."""
    valid = None
    if valid0 is not None:
        valid = valid0.view(-1, 4)[block0][:, :, None]
    if valid1 is not None:
        of_columns = valid1.view(-1, 4)[block1][:, None]
        valid = of_columns if valid is None else valid & of_columns
    return valid


def _sums_of_blocks(scores: Tensor, block: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """(count, 4) maxima of the cells of all blocks, and logs of their sums of exp(score - maximum).

    Args:
        scores: (P, 4, 4), a row a cell of `block`; block: (P,) in order.
    """
    lengths = torch.bincount(block, minlength=count)
    largest = torch.segment_reduce(scores.amax(dim=2), "max", lengths=lengths)
    total = (scores - largest[block][:, :, None]).exp_().sum(dim=2)
    return largest, torch.segment_reduce(total, "sum", lengths=lengths).log()
