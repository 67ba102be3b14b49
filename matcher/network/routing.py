"""Which blocks of cells of two maps are compared at all: found from coarse to fine.

A block is four cells: 16 pixels a side where cells have 8. The descent is that of QuadTree
attention with pooled features in place of queries and keys: at the top every block scores every
block, and the children of a block score only the children of its best ones. How alike two blocks
are is what the best of the four children of the one that asks says: their mean would hide a cell
that stands out. Both images ask; a pair of blocks that either lists is compared. So the work grows
with the number of cells.

Tokens are in quad order (`matcher.attention.pyramid`): the cells of block i are 4i to 4i + 3.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Self

import torch
from torch import Tensor

from matcher.attention.cpu import largest
from matcher.attention.pyramid import mask_pyramid, pad_to, to_quad, token_pyramid

BREADTH = 32
"""Blocks that a block of a coarser level hands down to its children."""
BLOCKS = 12
"""Blocks that a block of four cells lists."""
TOP_BLOCKS = 1100
"""Most blocks of the top level, where every one scores every other one."""
CHUNK_ELEMENTS = 1 << 19
"""Numbers fetched, or products held, at a time: 2 MB in fp32."""


class CellTree(NamedTuple):
    """Cells of one map in quad order, and the means of the blocks above them."""

    levels: list[Tensor]
    """(N, C) fp32 tokens, coarsest first; the last are the cells"""
    valid: list[Tensor | None]
    """(N,) bool, None where all are"""
    raster: Tensor
    """(N,) raster index of each cell in the map; -1 for padding, which is not valid"""
    count: int
    """Cells of the map"""

    @classmethod
    def build(cls, tokens: Tensor, mask: Tensor | None, levels: int) -> Self:
        """Tree of `levels` levels.

        Args:
            tokens: (h, w, C) cells; any size.
            mask: (h, w) bool of valid cells, None means everywhere.
        """
        h, w, _ = tokens.shape
        cell = 2 ** (levels - 1)
        mask = None if mask is None else mask[None]
        padded, mask = pad_to(tokens.permute(2, 0, 1)[None], mask, cell)
        masks = mask_pyramid(mask, levels)
        pyramid = token_pyramid(to_quad(padded, levels, 1), masks)
        cells = torch.arange(1, h * w + 1, device=tokens.device).view(1, 1, h, w)
        raster = to_quad(pad_to(cells, None, cell)[0], levels, 1).flatten() - 1
        valid = [None if mask is None else mask[0] for mask in masks]
        return cls([level[0, 0] for level in pyramid], valid, raster, h * w)

    def block_of(self, index: Tensor) -> Tensor:
        """Blocks that hold the cells with these raster indices."""
        inside = (self.raster >= 0).nonzero()[:, 0]
        place = torch.empty(self.count, dtype=torch.int64, device=index.device)
        place[self.raster[inside]] = inside
        return place[index] // 4


def levels_for(*sizes: tuple[int, int] | torch.Size) -> int:
    """Levels of the trees of maps of these sizes, so that the top has few enough blocks."""
    levels = 2
    while any(
        math.prod(-(-side // 2 ** (levels - 1)) for side in size) > TOP_BLOCKS for size in sizes
    ):
        levels += 1
    return levels


def route(
    tree0: CellTree, tree1: CellTree, blocks: int = BLOCKS, breadth: int = BREADTH
) -> tuple[Tensor, Tensor]:
    """(P,) blocks of image 0 and of image 1 to compare, each pair once, in order of the first.

    Args:
        tree0, tree1: of as many levels, at least two.
        blocks: that each block lists in the other image.
        breadth: that each one of a coarser level lists.
    """
    columns = len(tree1.levels[-2])
    listed0 = _list_blocks(tree0, tree1, blocks, breadth)
    listed1 = _list_blocks(tree1, tree0, blocks, breadth)
    own0, own1 = (torch.arange(len(x), device=x.device)[:, None] for x in (listed0, listed1))
    asked = [(own0 * columns + listed0).flatten(), (listed1 * columns + own1).flatten()]
    asked = torch.cat(asked).unique()
    block0, block1 = asked // columns, asked % columns
    keep = torch.ones_like(asked, dtype=torch.bool)
    for valid, block in ((tree0.valid[-2], block0), (tree1.valid[-2], block1)):
        if valid is not None:
            keep &= valid[block]
    return block0[keep], block1[keep]


def _list_blocks(queries: CellTree, keys: CellTree, blocks: int, breadth: int) -> Tensor:
    """(N, K) blocks of `keys` that each block of `queries` lists; some may not be valid."""
    above = len(queries.levels) - 1
    listed = None
    for level in range(above):
        children, asks = queries.levels[level + 1], queries.valid[level + 1]
        asked, valid = keys.levels[level], keys.valid[level]
        count = blocks if level == above - 1 else breadth
        if listed is None:
            listed = _best_of_all(children, asked, asks, valid, count)
        else:
            listed = _best_of_listed(children, asked, asks, valid, listed, count)
    if listed is None:
        raise ValueError("a tree of one level has no blocks")
    return listed


def _best_of_all(
    children: Tensor, keys: Tensor, asks: Tensor | None, valid: Tensor | None, count: int
) -> Tensor:
    """(N, k) best of the (S, C) keys for N blocks with (4N, C) children."""
    blocks = len(children) // 4
    scores = children.new_empty(blocks, len(keys))
    for part in _chunks(blocks, 4 * len(keys)):
        rows = slice(4 * part.start, 4 * part.stop)
        scores[part] = _best_child(children[rows] @ keys.T, None if asks is None else asks[rows])
    if valid is not None:
        scores.masked_fill_(~valid, -math.inf)
    return largest(scores, min(count, len(keys)))


def _best_of_listed(
    children: Tensor,
    keys: Tensor,
    asks: Tensor | None,
    valid: Tensor | None,
    listed: Tensor,
    count: int,
) -> Tensor:
    """(4N, k) best keys for the blocks below N others: of the children of what those listed.

    Args:
        children: (16N, C), of the blocks below; asks (16N,) which are valid, or None.
        keys: (4S, C); valid (4S,) or None.
        listed: (N, K) of the S.
    """
    channels, keys_each = keys.shape[1], 4 * listed.shape[1]
    groups, table = children.view(-1, 16, channels), keys.view(-1, 4 * channels)
    scores = children.new_empty(len(groups), 4, keys_each)
    for part in _chunks(len(groups), keys_each * channels):
        some = table.index_select(0, listed[part].flatten()).view(-1, keys_each, channels)
        asked = None if asks is None else asks.view(-1, 16)[part]
        scores[part] = _best_child(torch.bmm(groups[part], some.mT), asked)
    if valid is not None:
        scores.masked_fill_(~valid.view(-1, 4)[listed].view(-1, 1, keys_each), -math.inf)
    place = largest(scores, min(count, keys_each))
    best = listed[:, None].expand(-1, 4, -1).gather(2, place >> 2) * 4 + (place & 3)
    return best.flatten(0, 1)


def _best_child(scores: Tensor, asks: Tensor | None) -> Tensor:
    """(..., N, K) best of the (..., 4N, K) scores of four children each, of the valid ones."""
    if asks is not None:
        scores = scores.masked_fill(~asks[..., None], -math.inf)
    return scores.unflatten(-2, (-1, 4)).amax(dim=-2)


def _chunks(rows: int, numbers: int) -> list[slice]:
    """Parts of so many rows, each of so many numbers."""
    step = max(1, CHUNK_ELEMENTS // numbers)
    return [slice(start, start + step) for start in range(0, rows, step)]
