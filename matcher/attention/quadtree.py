"""QuadTree attention (Tang et al., ICLR 2022): attention that descends a pyramid of keys.

At the coarsest level every query scores every key. The best `topks[0]` keys of a query descend:
at the next level its four children score only the four children of each of those keys, and so on
to the finest level. The two published variants share the descent and differ in what a level adds:

- **B**: one softmax over all candidates of a level; the messages of the levels are summed with
  learned weights.
- **A**: a candidate's probability is its parent's times a softmax among its siblings; keys that
  descend leave their part of the message to their children.

`matcher.attention.reference` writes it out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from matcher.attention import dispatch, reference
from matcher.attention.lepe import LePE
from matcher.attention.pyramid import (
    MapSize,
    Pyramids,
    Variant,
    build_pyramids,
    merge_levels,
    pad_to,
)
from matcher.config import TransformerConfig


class Level(NamedTuple):
    """What one level of the descent saw, coarsest first (for pictures and measurements)."""

    keys: Tensor
    """(B, H, N, K) int64 quad-order indices of the keys scored for each query of this level; the
    coarsest level scores all keys."""
    scores: Tensor
    """(B, H, N, K) their attention probabilities"""


class QuadTreeAttention(nn.Module):
    """Multi-head QuadTree attention between two maps, projections excluded.

    Args:
        channels: C, split evenly among the heads.
        heads: H.
        topks: keys kept at each level, coarsest first; their number is the number of levels.
        variant: ``A`` or ``B``.
        lepe: add a depthwise 3x3 convolution of each level's values to its message.
        coarsest_cells: where the coarsest level of a map has more cells than this, coarser levels
            are put on top until it has not; they only choose where the trained levels look, each
            by `topks[0]`. 0: never.
    """

    cross: ClassVar[bool] = True

    def __init__(
        self,
        channels: int,
        heads: int,
        topks: Sequence[int],
        variant: Variant = "B",
        lepe: bool = False,
        coarsest_cells: int = 0,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.coarsest_cells = coarsest_cells
        self.topks = tuple(topks)
        self.variant: Variant = variant
        levels = len(self.topks)
        self.level_weights = nn.Parameter(torch.zeros(levels)) if variant == "B" else None
        self.lepe = LePE(channels, levels) if lepe else None

    @classmethod
    def from_config(cls, config: TransformerConfig, channels: int, layer: str) -> QuadTreeAttention:
        """The attention of a ``self`` or ``cross`` layer."""
        return cls(
            channels,
            config.heads,
            config.topks,
            config.variant,
            coarsest_cells=config.coarsest_cells,
        )

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        query_mask: Tensor | None = None,
        key_mask: Tensor | None = None,
    ) -> Tensor:
        """Attend from one map to another.

        Args:
            query: (B, C, h0, w0); h0 and w0 divisible by 2^(levels - 1).
            key, value: (B, C, h1, w1), likewise.
            query_mask: (B, h0, w0) bool, True where a token is valid; None means everywhere.
            key_mask: (B, h1, w1) likewise; an invalid token has no influence at any level.

        Returns:
            (B, C, h0, w0) message.

        Raises:
            ValueError: sizes that do not divide, or LePE between grids of different sizes.
        """
        h, w = query.shape[-2:]
        if self.lepe is not None and key.shape[-2:] != (h, w):
            raise ValueError(f"LePE needs equal grids, got {(h, w)} and {tuple(key.shape[-2:])}")
        pyramids, topks, padded = self._prepare(query, key, value, query_mask, key_mask)
        messages = dispatch.descend(pyramids, topks, self.variant)
        if self.lepe is not None:
            messages = self.lepe(messages, pyramids, padded)
        weights = None
        if self.level_weights is not None:
            # Levels put on top of the trained ones have no weight: they only choose.
            messages = messages[-len(self.topks) :]
            weights = self.level_weights.softmax(dim=0)
        return merge_levels(messages, weights, len(topks), padded)[..., :h, :w]

    def levels(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        query_mask: Tensor | None = None,
        key_mask: Tensor | None = None,
    ) -> list[Level]:
        """What each level of a call sees, coarsest first; arguments and errors as `forward`."""
        pyramids, topks, _ = self._prepare(query, key, value, query_mask, key_mask)
        levels = []
        for step in reference.descend(pyramids, topks, self.variant):
            repeats = step.scores.shape[2] // step.keys.shape[2]
            levels.append(Level(step.keys.repeat_interleave(repeats, dim=2), step.scores))
        return levels

    def _prepare(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        query_mask: Tensor | None,
        key_mask: Tensor | None,
    ) -> tuple[Pyramids, tuple[int, ...], MapSize]:
        """Pyramids of a call, keys that descend from their levels, padded size of the queries."""
        largest = max(query.shape[-2:], key.shape[-2:], key=math.prod)
        extra = extra_levels(largest, len(self.topks), self.coarsest_cells)
        topks = (self.topks[0],) * extra + self.topks
        if extra:
            cell = 2 ** (len(topks) - 1)
            query, query_mask = pad_to(query, query_mask, cell)
            value, _ = pad_to(value, None, cell)
            key, key_mask = pad_to(key, key_mask, cell)
        pyramids = build_pyramids(query, key, value, query_mask, key_mask, len(topks), self.heads)
        return pyramids, topks, (query.shape[-2], query.shape[-1])


def extra_levels(size: Sequence[int], levels: int, coarsest_cells: int) -> int:
    """Levels to add to `levels` until the coarsest has at most `coarsest_cells` cells; 0: none."""
    if not coarsest_cells:
        return 0
    extra = 0
    while math.prod(-(-side // 2 ** (levels - 1 + extra)) for side in size) > coarsest_cells:
        extra += 1
    return extra
