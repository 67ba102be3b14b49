"""Supervision of the coarser QuadTree levels: attention should go to the true blocks.

The losses on the matches give the choice of the top-k keys no gradient of its own. Here the
cross-attention scores of every level above the finest are asked to prefer the blocks that hold a
true match, so that these are among the keys that descend.
"""

from __future__ import annotations

import math
from types import TracebackType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from matcher.model import FeatureMatcher
from matcher.quadtree import QuadTreeAttention
from matcher.training.supervision import CoarseTargets

LIMIT = 64
"""Blocks of an image that a step supervises at each level; more cost time and change little."""


class BlockSupervision:
    """Collects queries and keys of the cross-attention calls made inside a ``with`` block.

    Args:
        model: whose transformer is watched.
        targets: true matches of the batch that the transformer is given.
        active: False watches nothing and makes the loss 0.
    """

    def __init__(self, model: FeatureMatcher, targets: CoarseTargets, active: bool) -> None:
        self.targets = targets
        self._calls: list[tuple[QuadTreeAttention, Tensor, Tensor]] = []
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
        there, back = self.targets, swap(self.targets)
        pairs: list[tuple[QuadTreeAttention, Tensor, Tensor, CoarseTargets]] = []
        for i, (attention, query, key) in enumerate(self._calls):
            if len(self._calls) == len(self._watched):
                q, k = query.chunk(2), key.chunk(2)
                pairs += [(attention, q[0], k[0], there), (attention, q[1], k[1], back)]
            else:
                pairs.append((attention, query, key, back if i % 2 else there))
        for attention, query, key, targets in pairs:
            total = total + pyramid_block_loss(
                query, key, attention.heads, targets, len(attention.topks)
            )
        return total / max(len(pairs), 1)

    def _keep(self, attention: Any, inputs: tuple[Any, ...]) -> None:
        self._calls.append((attention, inputs[0], inputs[1]))


def swap(targets: CoarseTargets) -> CoarseTargets:
    """The same matches seen from image 1."""
    return CoarseTargets(
        targets.batch, targets.index1, targets.index0, targets.size1, targets.size0
    )


def block_loss(query: Tensor, key: Tensor, heads: int, true: Tensor, limit: int = LIMIT) -> Tensor:
    """How much attention of each block goes to blocks that hold its true matches.

    Minus the log of the probability of the true blocks, summed over them and averaged over heads:
    one head that finds them is enough, the others stay free for context. A mean over the blocks
    that have a match.

    Args:
        query: (B, C, h0, w0) projected queries of one level.
        key: (B, C, h1, w1) keys of that level.
        heads: H.
        true: (B, h0 w0, h1 w1) bool, from `true_blocks`.
        limit: blocks of each image that are asked, drawn at random among those with a true one.
    """
    b, c = query.shape[:2]
    matched = true.any(dim=-1)
    lot, asked = (torch.rand(matched.shape, device=true.device) * matched).topk(
        min(limit, matched.shape[1]), dim=1
    )
    counted = lot > 0
    tokens = query.flatten(2).gather(2, asked[:, None].expand(-1, c, -1))
    q = tokens.view(b, heads, c // heads, -1).transpose(2, 3)
    k = key.flatten(2).view(b, heads, c // heads, -1)
    log_p = ((q * (c // heads) ** -0.5) @ k).float().log_softmax(dim=-1)
    wanted = true.gather(1, asked[..., None].expand(-1, -1, true.shape[2]))[:, None]
    log_p = log_p.masked_fill(~wanted, torch.finfo(log_p.dtype).min)
    hit = log_p.logsumexp(dim=(1, 3)) - math.log(heads)
    return -torch.where(counted, hit, torch.zeros_like(hit)).sum() / counted.sum().clamp(min=1)


def true_blocks(targets: CoarseTargets, batch_size: int, factor: int) -> Tensor:
    """(B, L', S') bool: blocks of `factor` x `factor` cells that share a true match."""
    rows0, columns0 = targets.size0[0] // factor, targets.size0[1] // factor
    rows1, columns1 = targets.size1[0] // factor, targets.size1[1] // factor
    out = torch.zeros(
        batch_size,
        rows0 * columns0,
        rows1 * columns1,
        dtype=torch.bool,
        device=targets.batch.device,
    )
    block0 = block_index(targets.index0, targets.size0, factor)
    block1 = block_index(targets.index1, targets.size1, factor)
    out[targets.batch, block0, block1] = True
    return out


def block_index(index: Tensor, size: tuple[int, int], factor: int) -> Tensor:
    """Raster index of the block of `factor` x `factor` cells that holds each cell `index`."""
    row, column = index // size[1], index % size[1]
    return row // factor * (size[1] // factor) + column // factor


def pyramid_block_loss(
    query: Tensor, key: Tensor, heads: int, targets: CoarseTargets, levels: int
) -> Tensor:
    """`block_loss` of a cross-attention call, a mean over its levels above the finest.

    Args:
        query: (B, C, h0, w0) finest queries of image 0; key: (B, C, h1, w1) keys of image 1.
        heads: H.
        targets: true matches from image 0 to image 1.
        levels: of the pyramid.
    """
    total = query.new_zeros((), dtype=torch.float32)
    for level in range(1, levels):
        factor = 2**level
        true = true_blocks(targets, query.shape[0], factor)
        total = total + block_loss(
            F.avg_pool2d(query, factor), F.avg_pool2d(key, factor), heads, true
        )
    return total / max(levels - 1, 1)
