"""The QuadTree descent in plain tensors, on any device, in any dtype and with gradients.

It is the specification that the fast paths equal, and what runs where none of them does. Scores
are q.k / sqrt(D), softmax in fp32 (fp64 stays), whatever the dtype of the inputs.

Letters: N queries of a level in G groups with the same keys; K keys of a group, k that descend.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Variant = Literal["A", "B"]
"""The published variants of the descent, see `matcher.attention.quadtree`."""


class Pyramids(NamedTuple):
    """What a descent works on: one tensor a level, coarsest first, in quad order."""

    queries: Sequence[Tensor]
    """(B, H, N, D)"""
    keys: Sequence[Tensor]
    """(B, H, S, D)"""
    values: Sequence[Tensor]
    """(B, H, S, D)"""
    masks: Sequence[Tensor | None]
    """(B, S) bool, True where a key is valid; None means everywhere"""


class Step(NamedTuple):
    """Result of one level."""

    message: Tensor
    """(B, H, N, D)"""
    keys: Tensor
    """(B, H, G, K) int64 indices of the keys that the N / G queries of a group scored"""
    scores: Tensor
    """(B, H, N, K) their probabilities"""
    selected: Tensor
    """(B, H, N, k) int64 indices of the keys that descend, none from the finest level"""
    parents: Tensor
    """(B, H, N, k) their probabilities"""


def descend(pyramids: Pyramids, topks: Sequence[int], variant: Variant) -> list[Step]:
    """All levels, coarsest first.

    Args:
        pyramids: queries, keys, values and masks.
        topks: keys that descend from each level, clamped to those there are; the last is not used.
        variant: of `matcher.attention.quadtree`.
    """
    steps: list[Step] = []
    topks = [*topks[: len(pyramids.queries) - 1], 0]
    for q, k, v, mask, topk in zip(*pyramids, topks, strict=True):
        steps.append(attend(q, k, v, mask, steps[-1] if steps else None, topk, variant))
    return steps


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    above: Step | None,
    topk: int,
    variant: Variant,
) -> Step:
    """One level: (B, H, N, D) queries, (B, H, S, D) keys and values, (B, S) mask of keys."""
    heads, d = q.shape[1], q.shape[3]
    if above is None:  # one group: all queries score all keys
        keys = torch.arange(k.shape[2], device=k.device).expand(*k.shape[:2], 1, -1)  # (B, H, 1, S)
    else:  # groups of four siblings: they score the children of what their parent selected
        child = torch.arange(4, device=k.device)  # (4,)
        keys = (above.selected[..., None] * 4 + child).flatten(3)  # (B, H, G = N / 4, K = 4 k)
    groups = q.unflatten(2, (keys.shape[2], -1)) * d**-0.5  # (B, H, G, N / G, D)
    scores = groups @ _take(k, keys).mT  # (B, H, G, N / G, K)
    valid = None
    if mask is not None:
        valid = _take(mask[:, None, :, None].expand(-1, heads, -1, 1), keys).mT  # (B, H, G, 1, K)
    if above is None or variant == "B":
        p = _softmax(scores, valid)  # (B, H, G, N / G, K)
    else:
        scores = scores.unflatten(4, (-1, 4))  # (B, H, G, 4, K / 4, 4)
        valid = None if valid is None else valid.unflatten(4, (-1, 4))  # (B, H, G, 1, K / 4, 4)
        p = _softmax(scores, valid) * above.parents[:, :, :, None, :, None]
        p = p.flatten(4)  # (B, H, G, 4, K)
    topk = min(topk, p.shape[4])
    best = p.detach().topk(topk, dim=4, sorted=False).indices  # (B, H, G, N / G, k)
    used = p if variant == "B" else p.scatter(4, best, 0.0)  # (B, H, G, N / G, K)
    message = used.to(v.dtype) @ _take(v, keys)  # (B, H, G, N / G, D)
    selected = keys[:, :, :, None].expand(p.shape).gather(4, best)  # (B, H, G, N / G, k)
    message, scores, selected, parents = (
        x.flatten(2, 3) for x in (message, p, selected, p.gather(4, best))
    )
    return Step(message, keys, scores, selected, parents)


def _take(tokens: Tensor, keys: Tensor) -> Tensor:
    """(B, H, G, K, D) of (B, H, S, D) tokens at (B, H, G, K) indices."""
    index = keys.flatten(2)[..., None].expand(-1, -1, -1, tokens.shape[3])  # (B, H, G K, D)
    return tokens.gather(2, index).unflatten(2, keys.shape[2:])


def _softmax(scores: Tensor, valid: Tensor | None) -> Tensor:
    """Softmax over the last axis; rows without a valid key give zeros."""
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    if valid is None:
        return scores.softmax(dim=-1)
    return scores.masked_fill(~valid, torch.finfo(scores.dtype).min).softmax(dim=-1) * valid
