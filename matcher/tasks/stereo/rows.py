"""Attention along the rows of two rectified images, with the interface of `QuadTreeAttention`.

On a row, raster order is tree order for blocks of four: tokens 4i to 4i + 3 are the children of
token i. So rows become the batch, and the descent of the 2-D QuadTree works on them unchanged.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from matcher.attention.dense import full_attention
from matcher.attention.pyramid import mask_pyramid, token_pyramid
from matcher.attention.quadtree import Level, descend, merge_levels
from matcher.tasks.stereo.config import StereoConfig

BRANCH = 4


class RowTreeAttention(nn.Module):
    """QuadTree-B attention from each row of one map to the same row of another.

    Args:
        heads: H.
        topks: keys kept at each level, coarsest first; their number is the number of levels.
        coarsest_keys: with more keys than this at the coarsest level of a row, levels are put on
            top until there are not.
    """

    def __init__(self, heads: int, topks: tuple[int, ...], coarsest_keys: int) -> None:
        super().__init__()
        self.heads = heads
        self.topks = topks
        self.coarsest_keys = coarsest_keys
        self.level_weights = nn.Parameter(torch.zeros(len(topks)))

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        query_mask: Tensor | None = None,
        key_mask: Tensor | None = None,
        record: list[Level] | None = None,
    ) -> Tensor:
        """(B, C, h, w) message of (B, C, h, w) maps; masks (B, h, w) bool of valid cells."""
        width = query.shape[-1]
        extra = self.extra_levels(width)
        levels = len(self.topks) + extra
        border = -width % BRANCH ** (levels - 1)
        q, k, v = (to_rows(F.pad(x, (0, border)), self.heads) for x in (query, key, value))
        if border and key_mask is None:
            key_mask = key.new_ones(key.shape[0], *key.shape[-2:], dtype=torch.bool)
        q_valid, k_valid = (
            None if mask is None else F.pad(mask, (0, border)).flatten(0, 1)
            for mask in (query_mask, key_mask)
        )
        messages = descend(
            token_pyramid(q, q_valid, levels),
            token_pyramid(k, k_valid, levels),
            token_pyramid(v, k_valid, levels),
            topks=(self.topks[0],) * extra + self.topks,
            variant="B",
            key_masks=mask_pyramid(k_valid, levels),
            record=record,
        )
        merged = merge_levels(messages[extra:], self.level_weights.softmax(dim=0))
        return from_rows(merged, query.shape[0])[..., :width]

    def extra_levels(self, width: int) -> int:
        """Levels to put on top for rows of `width` cells."""
        extra = 0
        while -(-width // BRANCH ** (len(self.topks) - 1 + extra)) > self.coarsest_keys:
            extra += 1
        return extra


class RowAttention(nn.Module):
    """Softmax attention from each row of one map to all of the same row of another."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        query_mask: Tensor | None = None,
        key_mask: Tensor | None = None,
        record: list[Level] | None = None,
    ) -> Tensor:
        """As `RowTreeAttention.forward`; `record` stays empty: there are no levels."""
        q, k, v = (to_rows(x, self.heads) for x in (query, key, value))
        valid = None if key_mask is None else key_mask.flatten(0, 1)
        return from_rows(full_attention(q, k, v, valid), query.shape[0])


def build_row_attention(config: StereoConfig) -> nn.Module:
    """The attention of one cross layer."""
    if config.cross == "full":
        return RowAttention(config.heads)
    return RowTreeAttention(config.heads, config.cross_topks, config.coarsest_keys)


def to_rows(x: Tensor, heads: int) -> Tensor:
    """(B, C, h, w) map to (B h, H, w, D) tokens, a batch entry a row."""
    b, c, h, w = x.shape
    tokens = x.permute(0, 2, 3, 1).reshape(b * h, w, heads, c // heads)
    return tokens.transpose(1, 2).contiguous()


def from_rows(tokens: Tensor, batch: int) -> Tensor:
    """(B h, H, w, D) tokens back to a (B, C, h, w) map."""
    rows, heads, w, d = tokens.shape
    x = tokens.view(batch, rows // batch, heads, w, d).permute(0, 2, 4, 1, 3)
    return x.reshape(batch, heads * d, rows // batch, w)
