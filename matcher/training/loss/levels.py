"""Supervision of the coarser QuadTree levels: attention should go to the true blocks.

The losses on the matches give the choice of the top-k keys no gradient of its own. Here the
cross-attention scores of every level above the finest are asked to prefer the blocks that hold a
true match, so that these are among the keys that descend.
"""

from __future__ import annotations

import math
from types import TracebackType
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from matcher.attention.pyramid import mask_pyramid, quad_index, quad_mask, to_quad, token_pyramid
from matcher.attention.quadtree import QuadTreeAttention
from matcher.network.model import FeatureMatcher
from matcher.training.supervision import CoarseTargets

LIMIT = 256
"""Blocks of an image that a step supervises at each level."""
FAR_BELOW = -1e4
"""A score that adds nothing to a sum of weights."""


class Call(NamedTuple):
    """One call of a cross-attention, in one direction."""

    attention: QuadTreeAttention
    query: Tensor
    """(B, C, h0, w0)"""
    key: Tensor
    """(B, C, h1, w1)"""
    key_mask: Tensor | None
    """(B, h1, w1) bool"""
    query_mask: Tensor | None
    targets: CoarseTargets
    """From the map of the queries to that of the keys."""


class BlockSupervision:
    """Collects the cross-attention calls made inside a ``with`` block.

    Args:
        model: whose transformer is watched.
        targets: true matches of the batch that the transformer is given.
        pairs: B of that batch; a call of 2 B holds both directions, others alternate.
        active: False watches nothing and makes the loss 0.
    """

    def __init__(
        self, model: FeatureMatcher, targets: CoarseTargets, pairs: int, active: bool
    ) -> None:
        self.directions = targets, swap(targets)
        self.pairs = pairs
        self._calls: list[Call] = []
        transformer = model.transformer
        self._watched = [
            block.attention
            for name, block in zip(transformer.names, transformer.blocks, strict=True)
            if active and name == "cross" and isinstance(block.attention, QuadTreeAttention)
        ]
        self._handles: list[Any] = []

    def __enter__(self) -> BlockSupervision:
        self._handles = [a.register_forward_pre_hook(self._keep) for a in self._watched]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for handle in self._handles:
            handle.remove()

    def loss(self, like: Tensor) -> Tensor:
        """Mean over the calls, both directions; 0 (of the device of `like`) without calls."""
        total = torch.zeros((), device=like.device)
        for call in self._calls:
            total = total + pyramid_block_loss(call)
        return total / max(len(self._calls), 1)

    def _keep(self, attention: Any, inputs: tuple[Any, ...]) -> None:
        query, key, _, query_mask, key_mask = inputs[:5]
        if query.shape[0] == self.pairs:
            targets = self.directions[len(self._calls) % 2]
            self._calls.append(Call(attention, query, key, key_mask, query_mask, targets))
            return
        masks = [(None, None) if m is None else m.chunk(2) for m in (key_mask, query_mask)]
        parts = zip(query.chunk(2), key.chunk(2), *masks, self.directions, strict=True)
        self._calls += [Call(attention, *part) for part in parts]


def swap(targets: CoarseTargets) -> CoarseTargets:
    """The same matches seen from image 1."""
    return CoarseTargets(
        targets.batch, targets.index1, targets.index0, targets.size1, targets.size0
    )


def pyramid_block_loss(call: Call) -> Tensor:
    """`block_loss` of a call, a mean over its levels above the finest."""
    topks, heads = call.attention.topks, call.attention.heads
    levels = len(topks)
    query_mask, key_mask = (
        None if m is None else quad_mask(m, levels) for m in (call.query_mask, call.key_mask)
    )
    queries = token_pyramid(to_quad(call.query, levels, heads), query_mask, levels)
    keys = token_pyramid(to_quad(call.key, levels, heads), key_mask, levels)
    masks = mask_pyramid(key_mask, levels)
    total = call.query.new_zeros((), dtype=torch.float32)
    for level in range(levels - 1):
        true = true_blocks(call.targets, call.query.shape[0], levels - 1 - level, levels)
        total = total + block_loss(queries[level], keys[level], true, topks[level], masks[level])
    return total / max(levels - 1, 1)


def block_loss(
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
    matched = true.any(dim=-1)
    lot, asked = (torch.rand(matched.shape, device=true.device) * matched).topk(
        min(limit, matched.shape[1]), dim=1
    )
    some = query.gather(2, asked[:, None, :, None].expand(-1, query.shape[1], -1, query.shape[3]))
    scores = ((some * query.shape[3] ** -0.5) @ key.transpose(2, 3)).float()
    wanted = true.gather(1, asked[..., None].expand(-1, -1, true.shape[2])) & (lot > 0)[..., None]
    left_out = wanted if key_mask is None else wanted | ~key_mask[:, None]
    rest = scores.masked_fill(left_out[:, None], FAR_BELOW).logsumexp(dim=-1) - math.log(opened)
    pair, row, block = wanted.nonzero(as_tuple=True)
    odds = scores[pair, :, row, block] - rest[pair, :, row]
    all_miss = F.logsigmoid(-odds).sum(dim=1)
    some_hit = torch.log(-torch.expm1(all_miss))
    return -some_hit.sum() / max(len(pair), 1)


def true_blocks(targets: CoarseTargets, batch_size: int, below: int, levels: int) -> Tensor:
    """(B, L', S') bool, in quad order: blocks, `below` levels above the finest, that share a true
    match."""
    counts = [rows * columns // 4**below for rows, columns in (targets.size0, targets.size1)]
    out = torch.zeros(batch_size, *counts, dtype=torch.bool, device=targets.batch.device)
    block0 = quad_index(targets.index0, targets.size0, below, levels)
    block1 = quad_index(targets.index1, targets.size1, below, levels)
    out[targets.batch, block0, block1] = True
    return out
