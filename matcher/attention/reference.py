"""The two steps of the QuadTree descent: score all keys, or score the children of selected keys.

Tokens are (B, H, N, D) in quad order (`matcher.attention.pyramid`), so the four children of a key
are one contiguous row of a (B * H * S / 4, 4 * D) table and one `index_select` fetches a whole
block.
Scores are q.k / sqrt(D), softmax in fp32, whatever the dtype of the inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

CHUNK_BYTES = 2 << 20
"""Keys and values fetched at a time where no gradient is needed."""


@dataclass
class Step:
    """Result of one level."""

    message: Tensor
    """(B, H, N, D)"""
    probabilities: Tensor
    """(B, H, N, K) of the keys that were scored"""
    selected: Tensor | None
    """(B, H, N, k) indices of the keys that descend; None at the finest level"""
    selected_scores: Tensor | None
    """(B, H, N, k) their probabilities, where the message leaves them out (variant A)"""
    blocks: Tensor | None
    """(B, H, N / 4, k) parents whose children were scored; None where all keys were"""

    def keys(self) -> Tensor:
        """(B, H, N, K) indices of the keys that were scored."""
        if self.blocks is None:
            b, h, n, k = self.probabilities.shape
            return torch.arange(k, device=self.probabilities.device).expand(b, h, n, k)
        return children_of(self.blocks).repeat_interleave(4, dim=2)


class _Tables(NamedTuple):
    """Blocks of four siblings, one a row."""

    key: Tensor
    value: Tensor
    mask: Tensor | None


def children_of(blocks: Tensor) -> Tensor:
    """(..., k) indices to the (..., 4k) indices of their children."""
    child = torch.arange(4, device=blocks.device)
    return (blocks.unsqueeze(-1) * 4 + child).flatten(-2)


def masked_softmax(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Softmax over the last axis in fp32 (fp64 stays); rows without a valid key give zeros."""
    scores = scores if scores.dtype == torch.float64 else scores.float()
    if mask is None:
        return scores.softmax(dim=-1)
    scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return scores.softmax(dim=-1) * mask


def attend_coarsest(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, topk: int, keep_rest_only: bool
) -> Step:
    """Every query scores every key.

    Args:
        q: (B, H, N, D); k, v: (B, H, S, D); mask: (B, S) valid keys or None.
        topk: keys that descend, clamped to S; 0 at the finest level.
        keep_rest_only: keys that descend add nothing to the message (variant A).
    """
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    p = masked_softmax(scores, None if mask is None else mask[:, None, None, :])
    selected, selected_scores, used = _select(p, topk, keep_rest_only)
    return Step(used.to(v.dtype) @ v, p, selected, selected_scores, None)


def attend_blocks(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    blocks: Tensor,
    parent_scores: Tensor | None,
    topk: int,
    keep_rest_only: bool,
) -> Step:
    """The four children of each parent query score the children of its selected keys.

    Without gradients, groups of four queries are worked off in chunks, so that the keys and values
    fetched for them stay in the cache of the processor.

    Args:
        q: (B, H, N, D); k, v: (B, H, S, D); mask: (B, S) valid keys or None.
        blocks: (B, H, N / 4, K) selected keys of the level above.
        parent_scores: (B, H, N / 4, K) their probabilities (variant A), or None (variant B).
        topk, keep_rest_only: as in `attend_coarsest`.
    """
    b, h, n, d = q.shape
    count = blocks.shape[3]
    rows = _rows(blocks, k.shape[2] // 4)
    mask = None if mask is None else mask[:, None].expand(b, h, -1).reshape(-1, 4)
    tables = _Tables(k.reshape(-1, 4 * d), v.reshape(-1, 4 * d), mask)
    groups = (q * d**-0.5).reshape(-1, 4, d)
    parents = None if parent_scores is None else parent_scores.reshape(-1, 1, count, 1)
    step = groups.shape[0]
    if not groups.requires_grad:
        step = max(1, CHUNK_BYTES // (8 * count * d * q.element_size()))
    parts = [
        _attend_chunk(
            groups[i : i + step],
            rows[i : i + step],
            tables,
            None if parents is None else parents[i : i + step],
            topk,
            keep_rest_only,
        )
        for i in range(0, groups.shape[0], step)
    ]
    messages, probabilities, positions, selected_scores = zip(*parts, strict=True)
    message, p = torch.cat(messages), torch.cat(probabilities)
    position, scores = _join(positions), _join(selected_scores)
    selected = None
    if position is not None:
        children = children_of(blocks.flatten(0, 2))[:, None].expand(-1, 4, -1)
        selected = children.gather(-1, position).view(b, h, n, -1)
    return Step(
        message.view(b, h, n, d),
        p.view(b, h, n, -1),
        selected,
        None if scores is None else scores.view(b, h, n, -1),
        blocks,
    )


def _attend_chunk(
    q: Tensor,
    rows: Tensor,
    tables: _Tables,
    parents: Tensor | None,
    topk: int,
    keep_rest_only: bool,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """Message, probabilities, and positions and probabilities of the keys that descend.

    Args:
        q: (G, 4, D) scaled queries of G groups.
        rows: (G, K) rows of the tables.
        parents: (G, 1, K, 1) probabilities of the blocks, or None.
    """
    d = q.shape[-1]
    keys = tables.key.index_select(0, rows.flatten()).view(len(q), -1, d)
    scores = torch.bmm(q, keys.transpose(1, 2))
    valid = None
    if tables.mask is not None:
        valid = tables.mask.index_select(0, rows.flatten()).view(len(q), 1, -1)
    if parents is None:
        p = masked_softmax(scores, valid)
    else:
        siblings = None if valid is None else valid.unflatten(-1, (-1, 4))
        p = (masked_softmax(scores.unflatten(-1, (-1, 4)), siblings) * parents).flatten(-2)
    position, selected_scores, used = _select(p, topk, keep_rest_only)
    values = tables.value.index_select(0, rows.flatten()).view(len(q), -1, d)
    return torch.bmm(used.to(values.dtype), values), p, position, selected_scores


def _join(parts: Sequence[Tensor | None]) -> Tensor | None:
    whole = [part for part in parts if part is not None]
    return torch.cat(whole) if whole else None


def _select(
    p: Tensor, topk: int, keep_rest_only: bool
) -> tuple[Tensor | None, Tensor | None, Tensor]:
    """Positions and (variant A) probabilities of the keys that descend, and those left to use."""
    if topk == 0:
        return None, None, p
    position = p.detach().topk(min(topk, p.shape[-1]), dim=-1, sorted=False).indices
    if not keep_rest_only:
        return position, None, p
    return position, p.gather(-1, position), p.scatter(-1, position, 0.0)


def _rows(blocks: Tensor, blocks_per_head: int) -> Tensor:
    """(B * H * N / 4, K) rows of a (B * H * S / 4, ...) table with the children of `blocks`."""
    b, h = blocks.shape[:2]
    offset = torch.arange(b * h, device=blocks.device).view(b, h, 1, 1) * blocks_per_head
    return (blocks + offset).flatten(0, 2)
