"""Best partners under the dual-softmax of a sparse matrix: pairs of blocks, all else is zero."""

from __future__ import annotations

import torch
from torch import Tensor

from matcher.network.dual_softmax import Best, best_of_candidates
from matcher.network.routing import CellTree

CHUNK_PAIRS = 1024
"""Pairs of blocks whose features are fetched at a time: 2 MB each of 128 channels."""


def sparse_dual_softmax(
    tree0: CellTree, tree1: CellTree, block0: Tensor, block1: Tensor, threshold: float = 0.0
) -> Best:
    """Best partners, in raster order, where only pairs of cells of the given blocks are scored.

    Rows and columns are normalized over what is scored: where that is every pair of valid cells,
    the result is that of `matcher.network.dual_softmax.stream_dual_softmax`.

    Args:
        tree0, tree1: of maps of L and S cells.
        block0, block1: (P,) blocks of the two, each pair once, in order of the first.
        threshold: confidences up to it do not matter; cells that cannot exceed it get 0.
    """
    confidence = _confidences(tree0, tree1, block0, block1)
    pair, cell0, cell1 = (confidence > threshold).nonzero().T
    score = confidence[pair, cell0, cell1]
    index0 = tree0.raster[block0[pair] * 4 + cell0]
    index1 = tree1.raster[block1[pair] * 4 + cell1]
    return Best(
        *best_of_candidates(index0, index1, score, tree0.count),
        *best_of_candidates(index1, index0, score, tree1.count),
    )


def _confidences(tree0: CellTree, tree1: CellTree, block0: Tensor, block1: Tensor) -> Tensor:
    """(P, 4, 4) confidences of the cells of pairs of blocks, 0 where one is not valid."""
    cells0, cells1 = tree0.levels[-1], tree1.levels[-1]
    scores = _similarities(cells0, cells1, block0, block1)
    valid = _both_valid(tree0.valid[-1], tree1.valid[-1], block0, block1)
    if valid is not None:
        scores.masked_fill_(~valid, torch.finfo(scores.dtype).min)
    row_max, row_log = _sums(scores, block0, len(cells0) // 4)
    # Sums over what is in order are the same every time, on GPUs too.
    order = block1.argsort(stable=True)
    column_max, column_log = _sums(scores[order].mT, block1[order], len(cells1) // 4)
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


def _sums(scores: Tensor, block: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """(count, 4) maxima of the cells of all blocks, and logs of their sums of exp(score - maximum).

    Args:
        scores: (P, 4, 4), a row a cell of `block`; block: (P,) in order.
    """
    lengths = torch.bincount(block, minlength=count)
    largest = torch.segment_reduce(scores.amax(dim=2), "max", lengths=lengths)
    total = (scores - largest[block][:, :, None]).exp_().sum(dim=2)
    return largest, torch.segment_reduce(total, "sum", lengths=lengths).log()
