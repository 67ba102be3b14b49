"""The QuadTree descent on the CPU: equal to `.reference`, in chunks that stay in cache.

What makes it fast: the blocks that a group of four queries selected are fetched by one
`index_select` of whole rows, a chunk of groups at a time, in both directions; backward keeps the
probabilities only, fetches keys and values again and adds gradients back in whole rows.

Tokens are (T, D) with T = B * H * N, in quad order (`matcher.attention.pyramid`). A token is named
by its row among all T, so that a key that descends is named like the row of a (T, 4 * D) table with
its four children one level finer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from matcher.attention.reference import attend_coarsest, masked_softmax

CHUNK_BYTES = 3 << 20
"""Keys and values fetched at a time."""


class _Result(NamedTuple):
    """What one level hands on."""

    message: Tensor
    """(T, D)"""
    rows: Tensor
    """(T, k) keys that descend; k is 0 at the finest level"""
    scores: Tensor
    """(T, k) their probabilities (variant A)"""


def takes(query: Tensor) -> bool:
    """Whether this path can work on queries of that device and dtype."""
    return query.device.type == "cpu" and query.dtype in (torch.float32, torch.bfloat16)


def descend(
    queries: Sequence[Tensor],
    keys: Sequence[Tensor],
    values: Sequence[Tensor],
    *,
    topks: Sequence[int],
    variant: str,
    key_masks: Sequence[Tensor | None],
) -> list[Tensor]:
    """The messages of all levels: arguments and result as in `quadtree.descend`."""
    finest = len(queries) - 1
    rest_only = variant == "A"
    messages = []
    last: _Result | None = None
    for level, (q, k, v, mask) in enumerate(zip(queries, keys, values, key_masks, strict=True)):
        topk = topks[level] if level < finest else 0
        if last is None:
            last = _coarsest(q, k, v, mask, topk, rest_only)
        else:
            last = _finer(q, k, v, mask, last, topk, rest_only)
        messages.append(last.message.view(q.shape))
    return messages


def _coarsest(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, topk: int, rest_only: bool
) -> _Result:
    """Every query scores every key, a few heads or a part of the queries of one at a time."""
    b, heads, n = q.shape[:3]
    s = k.shape[2]
    room = max(1, CHUNK_BYTES // (4 * s))
    rows, step = min(room, n), max(1, room // n)
    q, k, v = (x.flatten(0, 1).unsqueeze(1) for x in (q, k, v))
    by_head = None if mask is None else mask.repeat_interleave(heads, dim=0)
    messages: list[Tensor] = []
    selected: list[Tensor] = []
    scores: list[Tensor] = []
    for i in range(0, b * heads, step):
        for j in range(0, n, rows):
            some = attend_coarsest(
                q[i : i + step, :, j : j + rows],
                k[i : i + step],
                v[i : i + step],
                None if by_head is None else by_head[i : i + step],
                topk,
                rest_only,
            )
            messages.append(some.message.flatten(0, 2))
            if some.selected is not None:
                selected.append(some.selected.flatten(0, 2))
            if some.selected_scores is not None:
                scores.append(some.selected_scores.flatten(0, 2))
    message = torch.cat(messages)
    if topk == 0:
        return _Result(message, *_nothing(q))
    first = torch.arange(0, b * heads * s, s).repeat_interleave(n)
    return _Result(
        message,
        torch.cat(selected) + first[:, None],
        torch.cat(scores) if scores else _nothing(q)[1],
    )


def _finer(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    above: _Result,
    topk: int,
    rest_only: bool,
) -> _Result:
    """The four children of each query above score the children of its selected keys."""
    heads, d = q.shape[1], q.shape[-1]
    table = None if mask is None else mask[:, None].expand(-1, heads, -1).reshape(-1, 4)
    with torch.autocast("cpu", enabled=False):
        message, rows, scores = _AttendBlocks.apply(
            q.view(-1, 4, d),
            k.view(-1, 4 * d),
            v.view(-1, 4 * d),
            above.scores,
            above.rows,
            table,
            topk,
            rest_only,
        )  # pyright: ignore[reportGeneralTypeIssues]
    return _Result(message.view(-1, d), rows.flatten(0, 1), scores.flatten(0, 1))


def _nothing(like: Tensor) -> tuple[Tensor, Tensor]:
    return like.new_empty(0, 0, dtype=torch.int64), like.new_empty(0, 0, dtype=torch.float32)


class _AttendBlocks(Function):
    """One level below the coarsest.

    Of G groups of four queries that share K blocks of four keys: messages (G, 4, D), rows of the
    keys that descend (G, 4, k) and, in variant A, their probabilities (G, 4, k).
    """

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        parents: Tensor,
        rows: Tensor,
        mask: Tensor | None,
        topk: int,
        rest_only: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """q (G, 4, D); k, v (R, 4 D); parents (G, K) or empty; rows (G, K); mask (R, 4)."""
        groups, d, count = q.shape[0], q.shape[2], rows.shape[1]
        topk = min(topk, 4 * count)
        message = torch.empty_like(q)
        kept = q.new_empty(groups, 4, 4 * count) if any(ctx.needs_input_grad) else None
        position = rows.new_empty(groups, 4, topk)
        scores = q.new_empty(groups, 4, topk if rest_only else 0, dtype=torch.float32)
        scaled = q * d**-0.5
        for part in _chunks(groups, count, q):
            index = rows[part].flatten()
            keys = k.index_select(0, index).view(-1, 4 * count, d)
            p = torch.bmm(scaled[part], keys.mT)
            valid = None
            if mask is not None:
                valid = mask.index_select(0, index).view(-1, 1, 4 * count)
            if rest_only:
                siblings = None if valid is None else valid.unflatten(-1, (-1, 4))
                p = masked_softmax(p.unflatten(-1, (-1, 4)), siblings).flatten(-2)
            else:
                p = masked_softmax(p, valid)
            used = p.to(q.dtype)
            if kept is not None:
                kept[part] = used
            if rest_only:
                p = (p.unflatten(-1, (-1, 4)) * parents[part, None, :, None]).flatten(-2)
                used = p.to(q.dtype)
            if topk:
                position[part] = p.topk(topk, dim=-1, sorted=False).indices
            if topk and rest_only:
                torch.gather(p, -1, position[part], out=scores[part])
                used = p.scatter(-1, position[part], 0.0).to(q.dtype)
            values = v.index_select(0, index).view(-1, 4 * count, d)
            torch.bmm(used, values, out=message[part])
        ctx.rest_only = rest_only
        if kept is not None:
            ctx.save_for_backward(q, k, v, parents, rows, position, kept)
        blocks = rows[:, None].expand(-1, 4, -1).gather(-1, position >> 2)
        selected = (blocks << 2).add_(position & 3)
        ctx.mark_non_differentiable(selected)
        return message, selected, scores

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, d_message: Tensor, _: Tensor, d_scores: Tensor
    ) -> tuple[Tensor | None, ...]:
        q, k, v, parents, rows, position, kept = ctx.saved_tensors
        groups, d, count = q.shape[0], q.shape[2], rows.shape[1]
        dq = torch.empty_like(q)
        dk, dv = (torch.zeros(x.shape, dtype=torch.float32) for x in (k, v))
        d_parents = torch.zeros_like(parents)
        for part in _chunks(groups, count, q):
            index = rows[part].flatten()
            p = used = kept[part].float()
            values = v.index_select(0, index).view(-1, 4 * count, d)
            dp = torch.bmm(d_message[part], values.mT).float()
            if ctx.rest_only:
                parent = parents[part, None, :, None]
                p = p.unflatten(-1, (-1, 4))
                used = (p * parent).flatten(-2).scatter_(-1, position[part], 0.0)
                dp = dp.scatter_(-1, position[part], d_scores[part]).unflatten(-1, (-1, 4))
                d_parents[part] = (dp * p).sum(dim=(1, 3))
                dp = dp * parent
            ds = dp.mul_(p)
            ds = ds.addcmul_(ds.sum(dim=-1, keepdim=True), p, value=-1).view(-1, 4, 4 * count)
            keys = k.index_select(0, index).view(-1, 4 * count, d)
            ds *= d**-0.5
            torch.bmm(ds.to(q.dtype), keys, out=dq[part])
            # Sums over many queries stay in fp32.
            dk.index_add_(0, index, torch.bmm(ds.mT, q[part].float()).view(-1, 4 * d))
            dv.index_add_(0, index, torch.bmm(used.mT, d_message[part].float()).view(-1, 4 * d))
        return dq, dk.to(k.dtype), dv.to(v.dtype), d_parents, None, None, None, None


def _chunks(groups: int, count: int, q: Tensor) -> list[slice]:
    step = max(1, CHUNK_BYTES // (8 * count * q.shape[-1] * q.element_size()))
    return [slice(i, i + step) for i in range(0, groups, step)]
