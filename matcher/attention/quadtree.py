"""QuadTree attention (Tang et al., ICLR 2022): attention that descends a pyramid of keys.

At the coarsest level every query scores every key. The best `topks[0]` keys of a query descend:
at the next level its four children score only the four children of each of those keys, and so on
to the finest level. The two published variants share the descent and differ in what a level adds:

- **B**: one softmax over all candidates of a level; the messages of the levels are summed with
  learned weights.
- **A**: a candidate's probability is its parent's times a softmax among its siblings; keys that
  descend leave their part of the message to their children.

Tokens are in the order of `matcher.attention.pyramid` here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from matcher.attention import cpu, dispatch
from matcher.attention.pyramid import (
    MapSize,
    from_quad,
    mask_pyramid,
    pad_to,
    quad_mask,
    to_quad,
    token_pyramid,
)
from matcher.attention.reference import attend_blocks, attend_coarsest


class Level(NamedTuple):
    """What one level of the descent saw, coarsest first (for pictures and supervision)."""

    keys: Tensor
    """(B, H, N, K) int64 quad-order indices of the keys scored for each query of this level; the
    coarsest level scores all keys."""
    scores: Tensor
    """(B, H, N, K) their attention probabilities"""


def descend(
    queries: Sequence[Tensor],
    keys: Sequence[Tensor],
    values: Sequence[Tensor],
    *,
    topks: Sequence[int],
    variant: str,
    key_masks: Sequence[Tensor | None],
    record: list[Level] | None = None,
) -> list[Tensor]:
    """The messages of all levels, by the fastest path that takes the queries and the call.

    Args:
        queries, keys, values: one (B, H, N, D) tensor a level, coarsest first, in quad order.
        topks: keys that descend from each level, clamped to the keys there are; the last is
            not used.
        variant: ``A`` or ``B``.
        key_masks: one (B, S) bool mask a level, True where a key is valid, or None.
        record: receives one `Level` a level.

    Returns:
        One (B, H, N, D) message a level, coarsest first; a query without a valid key gets 0.
    """
    if record is None and dispatch.takes(queries, keys, values, topks):
        return dispatch.descend(
            queries, keys, values, topks=topks, variant=variant, key_masks=key_masks
        )
    if record is None and cpu.takes(queries[0]):
        return cpu.descend(queries, keys, values, topks=topks, variant=variant, key_masks=key_masks)
    return descend_reference(
        queries,
        keys,
        values,
        topks=topks,
        variant=variant,
        key_masks=key_masks,
        record=record,
    )


def descend_reference(
    queries: Sequence[Tensor],
    keys: Sequence[Tensor],
    values: Sequence[Tensor],
    *,
    topks: Sequence[int],
    variant: str,
    key_masks: Sequence[Tensor | None],
    record: list[Level] | None = None,
) -> list[Tensor]:
    """`descend` in plain operations, on any device and in any dtype: what the others must equal."""
    finest = len(queries) - 1
    messages = []
    rest_only = variant == "A"
    selected, parents = None, None
    for level, (q, k, v, mask) in enumerate(zip(queries, keys, values, key_masks, strict=True)):
        topk = topks[level] if level < finest else 0
        if selected is None:
            step = attend_coarsest(q, k, v, mask, topk, rest_only)
        else:
            step = attend_blocks(q, k, v, mask, selected, parents, topk, rest_only)
        messages.append(step.message)
        if record is not None:
            record.append(Level(step.keys(), step.probabilities))
        selected, parents = step.selected, step.selected_scores
    return messages


def merge_levels(messages: Sequence[Tensor], weights: Tensor | None) -> Tensor:
    """Repeat each message to its children and sum the levels, weighted by (levels,) `weights`."""
    total = None
    for level, message in enumerate(messages):
        weight = message.new_ones(()) if weights is None else weights[level].to(message.dtype)
        if total is None:
            total = message * weight
        else:
            total = torch.addcmul(total.unsqueeze(3), message.unflatten(2, (-1, 4)), weight)
            total = total.flatten(2, 3)
    if total is None:
        raise ValueError("no level to merge")
    return total


class QuadTreeAttention(nn.Module):
    """Multi-head QuadTree attention between two maps, projections excluded.

    Args:
        channels: C, split evenly among the heads.
        heads: H.
        topks: keys kept at each level, coarsest first; their number is the number of levels.
        variant: ``A`` or ``B``.
        pyramid: values pooled by ``average`` or by a learned stride-2 ``conv``.
        lepe: add a depthwise 3x3 convolution of each level's values to its message.
        coarsest_cells: where the coarsest level of a map has more cells than this, coarser levels
            are put on top until it has not; they only choose where the trained levels look, each
            by `topks[0]`. 0: never.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        topks: Sequence[int],
        variant: str = "B",
        pyramid: str = "average",
        lepe: bool = False,
        coarsest_cells: int = 0,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.coarsest_cells = coarsest_cells
        self.topks = tuple(topks)
        self.variant = variant
        levels = len(self.topks)
        self.level_weights = nn.Parameter(torch.zeros(levels)) if variant == "B" else None
        self.lepe = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
            for _ in range(levels if lepe else 0)
        )
        self.value_pools = nn.ModuleList(
            nn.Conv2d(channels, channels, 2, stride=2)
            for _ in range(levels - 1 if pyramid == "conv" else 0)
        )

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        query_mask: Tensor | None = None,
        key_mask: Tensor | None = None,
        record: list[Level] | None = None,
    ) -> Tensor:
        """Attend from one map to another.

        Args:
            query: (B, C, h0, w0); h0 and w0 divisible by 2^(levels - 1).
            key, value: (B, C, h1, w1), likewise.
            query_mask: (B, h0, w0) bool, True where a token is valid; None means everywhere.
            key_mask: (B, h1, w1) likewise; an invalid token has no influence at any level.
            record: receives one `Level` a level.

        Returns:
            (B, C, h0, w0) message.

        Raises:
            ValueError: sizes that do not divide, or LePE between grids of different sizes.
        """
        size = query.shape[-2], query.shape[-1]
        key_size = key.shape[-2], key.shape[-1]
        extra = extra_levels(
            max(size, key_size, key=math.prod), len(self.topks), self.coarsest_cells
        )
        if extra:
            cell = 2 ** (len(self.topks) - 1 + extra)
            query, query_mask = pad_to(query, query_mask, cell)
            value, _ = pad_to(value, None, cell)
            key, key_mask = pad_to(key, key_mask, cell)
        message = self._attend(query, key, value, query_mask, key_mask, extra, record)
        return message[..., : size[0], : size[1]]

    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        query_mask: Tensor | None,
        key_mask: Tensor | None,
        extra: int,
        record: list[Level] | None,
    ) -> Tensor:
        """The message of maps whose sizes divide, with `extra` levels on top."""
        levels = len(self.topks) + extra
        size = query.shape[-2], query.shape[-1]
        q_mask = None if query_mask is None else quad_mask(query_mask, levels)
        k_mask = None if key_mask is None else quad_mask(key_mask, levels)
        values = self._value_pyramid(value, key_mask, k_mask, extra)
        messages = descend(
            token_pyramid(to_quad(query, levels, self.heads), q_mask, levels),
            token_pyramid(to_quad(key, levels, self.heads), k_mask, levels),
            values,
            topks=(self.topks[0],) * extra + self.topks,
            variant=self.variant,
            key_masks=mask_pyramid(k_mask, levels),
            record=record,
        )
        if self.lepe:
            key_size = key.shape[-2], key.shape[-1]
            messages = self._add_lepe(messages, values, size, key_size, k_mask)
        if self.level_weights is None:
            return from_quad(merge_levels(messages, None), levels, size)
        own = merge_levels(messages[extra:], self.level_weights.softmax(dim=0))
        return from_quad(own, levels, size)

    def _value_pyramid(
        self, value: Tensor, key_mask: Tensor | None, quad: Tensor | None, extra: int
    ) -> list[Tensor]:
        """(B, H, N, D) values of each level, coarsest first."""
        levels = len(self.topks) + extra
        if not self.value_pools:
            return token_pyramid(to_quad(value, levels, self.heads), quad, levels)
        maps = [value if key_mask is None else value.masked_fill(~key_mask[:, None], 0.0)]
        for pool in self.value_pools:
            maps.append(pool(maps[-1]))
        for _ in range(extra):
            maps.append(F.avg_pool2d(maps[-1], 2))
        return [to_quad(m, i + 1, self.heads) for i, m in enumerate(reversed(maps))]

    def _add_lepe(
        self,
        messages: Sequence[Tensor],
        values: Sequence[Tensor],
        query_size: MapSize,
        key_size: MapSize,
        key_mask: Tensor | None,
    ) -> list[Tensor]:
        if query_size != key_size:
            raise ValueError(f"LePE needs equal grids, got {query_size} and {key_size}")
        levels = len(messages)
        extra = levels - len(self.lepe)
        masks = mask_pyramid(key_mask, levels)
        out = list(messages[:extra])
        for level, conv in enumerate(self.lepe, start=extra):
            shrink = 2 ** (levels - 1 - level)
            size = query_size[0] // shrink, query_size[1] // shrink
            mask, value = masks[level], values[level]
            if mask is not None:
                value = value.masked_fill(~mask[:, None, :, None], 0.0)
            local = conv(from_quad(value, level + 1, size))
            out.append(messages[level] + to_quad(local, level + 1, self.heads))
        return out


def extra_levels(size: MapSize, levels: int, coarsest_cells: int) -> int:
    """Levels to add to `levels` until the coarsest has at most `coarsest_cells` cells; 0: none."""
    if not coarsest_cells:
        return 0
    extra = 0
    while math.prod(-(-side // 2 ** (levels - 1 + extra)) for side in size) > coarsest_cells:
        extra += 1
    return extra
