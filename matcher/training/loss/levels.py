"""Supervision of the coarser QuadTree levels: attention should go to the true blocks.

The losses on the matches give the choice of the top-k keys no gradient of its own. Here the
cross-attention scores of every level above the finest are asked to prefer the blocks that hold a
true match, so that these are among the keys that descend.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from matcher.attention.pyramid import mask_pyramid, quad_index, to_quad, token_pyramid
from matcher.attention.quadtree import QuadTreeAttention
from matcher.attention.record import AttentionCall
from matcher.network.model import FeatureMatcher
from matcher.training.supervision import CoarseTargets

LIMIT = 256
"""Blocks of an image that a step supervises at each level."""
FAR_BELOW = -1e4
"""A score that adds nothing to a sum of weights."""


def cross_blocks(model: FeatureMatcher) -> list[nn.Module]:
    """The blocks whose attention has levels to supervise."""
    blocks = zip(model.transformer.names, model.transformer.blocks, strict=True)
    return [
        block
        for name, block in blocks
        if name == "cross" and isinstance(block.get_submodule("attention"), QuadTreeAttention)
    ]


def level_loss(
    calls: Sequence[AttentionCall], targets: CoarseTargets, device: torch.device
) -> Tensor:
    """Mean of `call_loss` over the recorded calls of both directions; 0 without calls.

    Args:
        calls: of the `cross_blocks`.
        targets: true matches from image 0 to image 1.
        device: of the result.
    """
    total = torch.zeros((), device=device)
    if not calls:
        return total
    batch_size, levels = len(calls[0].query), len(_attention(calls[0]).topks)
    true = [
        true_blocks(targets, batch_size, levels - 1 - level, levels) for level in range(levels - 1)
    ]
    swapped = [blocks.transpose(1, 2) for blocks in true]
    for call in calls:
        total = total + call_loss(call, true if call.direction == "0to1" else swapped)
    return total / len(calls)


def call_loss(call: AttentionCall, true: Sequence[Tensor]) -> Tensor:
    """`opening_loss` of a call, a mean over its levels above the finest.

    Args:
        call: of a `QuadTreeAttention`.
        true: (B, L', S') bool of each of these levels: blocks of the queries and of the keys that
            share a true match.
    """
    topks, heads = _attention(call).topks, _attention(call).heads
    levels = len(topks)
    queries = token_pyramid(
        to_quad(call.query, levels, heads), mask_pyramid(call.query_mask, levels)
    )
    masks = mask_pyramid(call.key_mask, levels)
    keys = token_pyramid(to_quad(call.key, levels, heads), masks)
    total = call.query.new_zeros((), dtype=torch.float32)
    for level in zip(queries, keys, true, topks, masks, strict=False):  # `true` lacks the finest.
        total = total + opening_loss(*level)
    return total / max(levels - 1, 1)


def opening_loss(
    query: Tensor,
    key: Tensor,
    true: Tensor,
    opened: int,
    key_mask: Tensor | None = None,
    limit: int = LIMIT,
) -> Tensor:
    """How surely some head opens the blocks that hold a true match.

    A block is among the `opened` best of a head whenever its weight exceeds the weights of all
    blocks without a match together, divided by `opened`. So the log of that ratio is the log-odds
    that a head opens it, and minus the log of the probability that at least one does is the loss: a
    mean over pairs of a block and one that holds a true match of it. One head that finds it is
    enough, the others stay free for context, and a block that is surely opened asks no more.

    Args:
        query: (B, H, L, D) projected queries of one level.
        key: (B, H, S, D) keys of that level.
        true: (B, L, S) bool, from `true_blocks`.
        opened: K of that level.
        key_mask: (B, S) bool, True where a key is valid.
        limit: blocks of each image that are asked, drawn at random among those with a true one.
    """
    matched = true.view(torch.uint8).amax(dim=-1)  # `any` of bools takes ten times as long.
    lot, asked = (torch.rand(matched.shape, device=true.device) * matched).topk(
        min(limit, matched.shape[1]), dim=1
    )
    query = query.gather(2, asked[:, None, :, None].expand(-1, query.shape[1], -1, query.shape[3]))
    scores = (query * query.shape[3] ** -0.5) @ key.transpose(2, 3)
    batch = torch.arange(len(true), device=true.device)[:, None]
    pair, row, block = (true[batch, asked] & (lot > 0)[..., None]).nonzero(as_tuple=True)
    wanted, rest = _Apart.apply(scores, pair, row, block, key_mask)  # pyright: ignore
    odds = wanted - rest[pair, :, row] + math.log(opened)
    all_miss = F.logsigmoid(-odds).sum(dim=1)
    any_hit = torch.log(-torch.expm1(all_miss))
    return -any_hit.sum() / max(len(odds), 1)


class _Apart(Function):
    """Scores of the wanted keys, and the log of the weight of all others together.

    Autograd would keep several fp32 matrices of the size of the scores; this keeps one of theirs.
    """

    @staticmethod
    def forward(
        ctx: Any, scores: Tensor, pair: Tensor, row: Tensor, block: Tensor, key_mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """(P, H), (B, H, L) in fp32 of scores (B, H, L, S), P wanted keys by their places in B, L
        and S, and key_mask (B, S)."""
        wide = scores.to(torch.float32, copy=True)
        wanted = wide[pair, :, row, block]
        wide[pair, :, row, block] = FAR_BELOW
        if key_mask is not None:
            wide.masked_fill_(~key_mask[:, None, None], FAR_BELOW)
        highest = wide.amax(dim=-1)
        p = torch.softmax(wide, dim=-1, out=wide)
        # The softmax is largest at the highest score, where its logarithm is exact.
        rest = highest - p.amax(dim=-1).log()
        ctx.save_for_backward(p.to(scores.dtype), highest > FAR_BELOW, pair, row, block)
        return wanted, rest

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_wanted: Tensor, d_rest: Tensor) -> tuple[Tensor | None, ...]:
        p, some, pair, row, block = ctx.saved_tensors
        d_scores = p * (d_rest * some).to(p.dtype)[..., None]
        d_scores[pair, :, row, block] = d_wanted.to(p.dtype)
        return d_scores, None, None, None, None


def true_blocks(targets: CoarseTargets, batch_size: int, below: int, levels: int) -> Tensor:
    """(B, L', S') bool, in quad order: blocks, `below` levels above the finest, that share a true
    match."""
    counts = [rows * columns // 4**below for rows, columns in (targets.size0, targets.size1)]
    out = torch.zeros(batch_size, *counts, dtype=torch.bool, device=targets.batch.device)
    block0 = quad_index(targets.index0, targets.size0, below, levels)
    block1 = quad_index(targets.index1, targets.size1, below, levels)
    out[targets.batch, block0, block1] = True
    return out


def _attention(call: AttentionCall) -> QuadTreeAttention:
    if not isinstance(call.attention, QuadTreeAttention):
        raise TypeError(f"layer {call.layer} has no levels")
    return call.attention
