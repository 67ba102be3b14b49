"""Attention calls to compare: QuadTree as published, ours, full and linear.

A call takes projected queries, keys and values as maps and gives the message as a map, pyramids
included. 256 channels, 8 heads, variant B, top-K 16/8/8.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from matcher.attention.dense import FullAttention, LinearAttention
from matcher.attention.quadtree import QuadTreeAttention

CHANNELS, HEADS = 256, 8
TOPKS = (16, 8, 8)
COARSEST_CELLS = 1200
"""Most cells of the coarsest grid where the levels are chosen by the size."""

Size = tuple[int, int]
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


def levels_for(size: Size, cells: int = COARSEST_CELLS) -> int:
    """Levels, at least three, that leave at most `cells` cells in the coarsest grid.

    Raises:
        ValueError: `size` cannot be halved that often.
    """
    levels = 3
    while (size[0] >> levels - 1) * (size[1] >> levels - 1) > cells:
        levels += 1
    if any(side % 2 ** (levels - 1) for side in size):
        raise ValueError(f"a grid of {size[0]}x{size[1]} cannot have {levels} levels")
    return levels


def topks_for(levels: int) -> tuple[int, ...]:
    """16 keys from the coarsest level, 8 from every other."""
    return (TOPKS[0], *[TOPKS[-1]] * (levels - 1))


def published(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    weights: Tensor,
    *,
    heads: int = HEADS,
    topks: Sequence[int] = TOPKS,
) -> Tensor:
    """The published operator (variant B, no LePE), its steps ported to plain operations.

    Every child of a query fetches its own candidates by int64 indices; keys and values of all
    queries are held at once, and the finest level selects keys that nobody uses.

    Args:
        query, key, value: (B, C, h, w) maps.
        weights: (levels,) before the softmax.
        heads: H.
        topks: keys kept at each level, coarsest first.

    Returns:
        (B, C, h, w)
    """
    pyramids = []
    for x in (query, key, value):
        maps = [x]
        for _ in topks[1:]:
            maps.append(F.avg_pool2d(maps[-1], 2))
        pyramids.append(maps[::-1])
    share = weights.softmax(dim=0)
    messages = published_messages([*zip(*pyramids, strict=True)], heads, topks)
    total = messages[0] * share[0].to(query.dtype)
    for message, weight in zip(messages[1:], share[1:], strict=True):
        total = F.interpolate(total, scale_factor=2) + message * weight.to(message.dtype)
    return total


def published_messages(
    levels: Sequence[tuple[Tensor, Tensor, Tensor]], heads: int, topks: Sequence[int]
) -> list[Tensor]:
    """The published descent alone: a (B, C, h, w) message of each level.

    Args:
        levels: queries, keys and values as (B, C, h, w) maps, coarsest first.
        heads: H.
        topks: keys kept at each level, coarsest first.
    """
    messages: list[Tensor] = []
    selected: Tensor | None = None
    for (q, k, v), topk in zip(levels, topks, strict=True):
        if selected is None:
            message, selected = _all_keys(q, k, v, heads, topk)
        else:
            message, selected = _selected_keys(q, k, v, heads, selected, topk)
        messages.append(message)
    return messages


def _all_keys(q: Tensor, k: Tensor, v: Tensor, heads: int, topk: int) -> tuple[Tensor, Tensor]:
    """The coarsest message, and (B, L, k, H) raster indices of the keys that descend."""
    tq, tk, tv = (_tokens(x, heads) for x in (q, k, v))
    scores = torch.einsum("blhd,bshd->blsh", tq, tk) * tq.shape[-1] ** -0.5
    p = scores.softmax(dim=2)
    message = torch.einsum("blsh,bshd->blhd", p, tv)
    return _map(message, q), p.topk(min(topk, p.shape[2]), dim=2).indices


def _selected_keys(
    q: Tensor, k: Tensor, v: Tensor, heads: int, selected: Tensor, topk: int
) -> tuple[Tensor, Tensor]:
    """One finer message, and (B, L, k, H) raster indices of the keys that descend."""
    b, _, h, w = q.shape
    columns, half = k.shape[3], k.shape[3] // 2
    row, column = selected // half * 2, selected % half * 2
    offsets = [(y, x) for y in (0, 1) for x in (0, 1)]
    keys = torch.cat([(row + y) * columns + column + x for y, x in offsets], dim=2)
    count = keys.shape[2]
    keys = keys.view(b, h // 2, 1, w // 2, 1, count, heads)
    keys = keys.expand(b, h // 2, 2, w // 2, 2, count, heads).reshape(b, h * w, count, heads)
    tq, tk, tv = (_tokens(x, heads) for x in (q, k, v))
    scores = torch.einsum("blhd,blkhd->blkh", tq, _gather(tk, keys)) * tq.shape[-1] ** -0.5
    p = scores.softmax(dim=2)
    message = torch.einsum("blkh,blkhd->blhd", p, _gather(tv, keys))
    best = p.topk(min(topk, count), dim=2).indices
    return _map(message, q), keys.gather(2, best)


def _gather(tokens: Tensor, index: Tensor) -> Tensor:
    """(B, S, H, D) tokens at (B, L, K, H) indices: (B, L, K, H, D)."""
    b, n, heads, d = tokens.shape
    batch = torch.arange(b).view(-1, 1, 1, 1)
    rows = (batch * n + index) * heads + torch.arange(heads)
    return tokens.reshape(-1, d).index_select(0, rows.flatten()).view(*index.shape, d)


def _tokens(x: Tensor, heads: int) -> Tensor:
    """(B, C, h, w) to (B, N, H, D) in raster order."""
    return x.flatten(2).transpose(1, 2).unflatten(2, (heads, -1))


def _map(tokens: Tensor, like: Tensor) -> Tensor:
    """(B, N, H, D) to a (B, C, h, w) map of the size of `like`."""
    return tokens.flatten(2).transpose(1, 2).reshape(like.shape)


def calls(size: Size, dtype: torch.dtype, training: bool) -> dict[str, Callable[[], None]]:
    """One call of every method between two maps of `size` (h, w) tokens, batch 1.

    Args:
        size: tokens; both divisible by 4, and by what `levels_for` asks.
        dtype: of queries, keys and values.
        training: forward and backward to queries, keys and values, else forward in inference mode.

    Returns:
        ``published``, ``full``, ``linear``, ``ours`` (three levels) and ``ours, levels by size``.
    """
    generator = torch.Generator().manual_seed(0)
    maps = [
        torch.randn(1, *size, CHANNELS, generator=generator).to(dtype).permute(0, 3, 1, 2)
        for _ in range(4)
    ]
    gradient, inputs = maps[3], [x.requires_grad_(training) for x in maps[:3]]
    by_size = topks_for(levels_for(size))
    weights = torch.zeros(len(TOPKS))
    methods: dict[str, Attend] = {
        "published": lambda q, k, v: published(q, k, v, weights),
        "full": FullAttention(HEADS),
        "linear": LinearAttention(HEADS),
        "ours": QuadTreeAttention(HEADS, TOPKS),
        "ours, levels by size": QuadTreeAttention(HEADS, by_size),
    }
    return {name: _call(attend, inputs, gradient, training) for name, attend in methods.items()}


def _call(
    attend: Attend, inputs: Sequence[Tensor], gradient: Tensor, training: bool
) -> Callable[[], None]:
    def forward() -> None:
        with torch.inference_mode():
            attend(*inputs)

    def step() -> None:
        for x in inputs:
            x.grad = None
        attend(*inputs).backward(gradient)

    return step if training else forward
