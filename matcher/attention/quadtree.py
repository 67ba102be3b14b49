"""QuadTree attention (Tang et al., ICLR 2022): attention that descends a pyramid of keys.

At the coarsest level every query scores every key. The best `topks[0]` keys of a query descend:
at the next level its four children score only the four children of each of those keys, and so on
to the finest level. The two published variants share the descent and differ in what a level adds:

- **B**: one softmax over all candidates of a level; the messages of the levels are summed with
  learned weights.
- **A**: a candidate's probability is its parent's times a softmax among its siblings; keys that
  descend leave their part of the message to their children.

`matcher.attention.reference` writes it out. Tokens are in quad order: the children of token i are
tokens 4i to 4i + 3, so that pooling is a mean of four neighbors in memory and a block of children
is one contiguous row.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from matcher.attention import cpu, reference
from matcher.attention.operator import quadtree_operator
from matcher.attention.pyramid import build_pyramids, merge_levels, pad_to
from matcher.attention.reference import Pyramids, Variant
from matcher.config import TransformerConfig

Maps = tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]
"""Query, key and value (B, C, h, w), and the masks of query and key (B, h, w)."""


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
        heads: H, among which C is split evenly.
        topks: keys kept at each level, coarsest first; their number is the number of levels.
        variant: ``A`` or ``B``.
        coarsest_cells: where the coarsest level of a map has more cells than this, coarser levels
            are put on top until it has not; they only choose where the trained levels look, each
            by `topks[0]`. 0: never.
    """

    def __init__(
        self,
        heads: int,
        topks: Sequence[int],
        variant: Variant = "B",
        coarsest_cells: int = 0,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.coarsest_cells = coarsest_cells
        self.topks = tuple(topks)
        self.variant: Variant = variant
        self.level_weights = nn.Parameter(torch.zeros(len(self.topks))) if variant == "B" else None

    @classmethod
    def from_config(cls, config: TransformerConfig, channels: int, layer: int) -> Self:
        """The attention of a layer."""
        c = config
        return cls(c.heads, c.topks, c.variant, coarsest_cells=c.coarsest_cells)

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
            ValueError: sizes that do not divide.
        """
        h, w = query.shape[-2:]
        if torch.compiler.is_exporting() and query_mask is not None and key_mask is not None:
            maps = (query, key, value, query_mask, key_mask)
            settings = (self.level_weights, self.topks, self.heads, self.variant)
            return quadtree_operator(attend)(*maps, *settings)
        maps, topks = self._deepened(query, key, value, query_mask, key_mask)
        message = attend(*maps, self.level_weights, topks, self.heads, self.variant)
        return message[..., :h, :w]

    def levels(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        query_mask: Tensor | None = None,
        key_mask: Tensor | None = None,
    ) -> list[Level]:
        """What each level of a call sees, coarsest first; arguments and errors as `forward`."""
        maps, topks = self._deepened(query, key, value, query_mask, key_mask)
        pyramids = build_pyramids(*maps, len(topks), self.heads)
        levels = []
        for step in reference.descend(pyramids, topks, self.variant):
            repeats = step.scores.shape[2] // step.keys.shape[2]
            levels.append(Level(step.keys.repeat_interleave(repeats, dim=2), step.scores))
        return levels

    def _deepened(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        query_mask: Tensor | None,
        key_mask: Tensor | None,
    ) -> tuple[Maps, tuple[int, ...]]:
        """The maps and masks of a call, padded for the levels that are put on top, and the keys
        that descend from all levels."""
        largest = max(query.shape[-2:], key.shape[-2:], key=math.prod)
        extra = extra_levels(largest, len(self.topks), self.coarsest_cells)
        topks = (self.topks[0],) * extra + self.topks
        if extra:
            cell = 2 ** (len(topks) - 1)
            query, query_mask = pad_to(query, query_mask, cell)
            value, _ = pad_to(value, None, cell)
            key, key_mask = pad_to(key, key_mask, cell)
        return (query, key, value, query_mask, key_mask), topks


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_mask: Tensor | None,
    key_mask: Tensor | None,
    level_weights: Tensor | None,
    topks: Sequence[int],
    heads: int,
    variant: Variant,
) -> Tensor:
    """(B, C, h0, w0) message with the levels of `topks`, arguments as `QuadTreeAttention`."""
    # In one step: the pyramids are gone when the messages are merged.
    messages = descend(
        build_pyramids(query, key, value, query_mask, key_mask, len(topks), heads), topks, variant
    )
    weights = None
    if level_weights is not None:
        # Levels put on top of the trained ones have no weight: they only choose.
        messages = messages[-len(level_weights) :]
        weights = level_weights.softmax(dim=0)
    return merge_levels(messages, weights, len(topks), (query.shape[-2], query.shape[-1]))


def descend(pyramids: Pyramids, topks: Sequence[int], variant: Variant) -> list[Tensor]:
    """The messages of all levels, by the fastest path that supports the call.

    `matcher.attention.triton_kernel` or `.triton_levels` on NVIDIA GPUs (and anywhere under
    ``TRITON_INTERPRET=1``), `matcher.attention.cpu` on CPUs, the reference for the rest.

    Args:
        pyramids: queries, keys, values and masks.
        topks: keys that descend from each level, clamped to those there are; the last is not used.
        variant: of `matcher.attention.quadtree`.

    Returns:
        One (B, H, N, D) message a level, coarsest first; a query without a valid key gets 0.
    """
    device = pyramids.queries[0].device
    if device.type == "cuda" or os.environ.get("TRITON_INTERPRET") == "1":
        from matcher.attention import triton_check

        if triton_check.works(device):
            from matcher.attention import triton_kernel, triton_levels

            for kernel in (triton_kernel, triton_levels):
                if kernel.supports(pyramids, topks):
                    return kernel.descend(pyramids, topks, variant)
    if cpu.supports(pyramids):
        return cpu.descend(pyramids, topks, variant)
    return [step.message for step in reference.descend(pyramids, topks, variant)]


def extra_levels(size: Sequence[int], levels: int, coarsest_cells: int) -> int:
    """Levels to add to `levels` until the coarsest has at most `coarsest_cells` cells; 0: none."""
    if not coarsest_cells:
        return 0
    extra = 0
    while math.prod(-(-side // 2 ** (levels - 1 + extra)) for side in size) > coarsest_cells:
        extra += 1
    return extra
