"""The QuadTree descent on the CPU: equal to `.reference`, in chunks that stay in cache.

What makes it fast: the blocks that a group of four queries selected are fetched by one
`index_select` of whole rows, a chunk of groups at a time, in both directions; backward keeps the
probabilities only, fetches keys and values again and adds gradients back in whole rows.

Tokens are (T, D) with T = B * H * N, in quad order (`matcher.attention.quadtree`). A token is named
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

from matcher.attention.reference import Pyramids, Variant

CHUNK_BYTES = 3 << 20
"""Keys and values fetched at a time."""
DTYPES = (torch.float32, torch.bfloat16, torch.float64)
GROUPED = 32
"""Scores to one that is looked for from which groups are looked through first."""
GROUP_SIZES = (8, 4)


class _Step(NamedTuple):
    """Result of one level."""

    message: Tensor
    """(T, D)"""
    selected: Tensor
    """(T, k) rows of the keys that descend; k is 0 at the finest level"""
    parents: Tensor
    """(T, k) their probabilities, empty in variant B"""


def supports(pyramids: Pyramids) -> bool:
    """Whether this path can work on tokens of that device and dtype."""
    query = pyramids.queries[0]
    return query.device.type == "cpu" and query.dtype in DTYPES


def descend(pyramids: Pyramids, topks: Sequence[int], variant: Variant) -> list[Tensor]:
    """The messages of all levels; arguments and result as of `quadtree.descend`."""
    messages: list[Tensor] = []
    exclude_selected = variant == "A"
    step: _Step | None = None
    topks = [*topks[: len(pyramids.queries) - 1], 0]
    for q, k, v, mask, topk in zip(*pyramids, topks, strict=True):
        if step is None:
            step = _coarsest(q, k, v, mask, topk, exclude_selected)
        else:
            step = _finer(q, k, v, mask, step, topk, exclude_selected)
        messages.append(step.message.view(q.shape))
    return messages


def _coarsest(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, topk: int, exclude_selected: bool
) -> _Step:
    """Every query scores every key, a few heads or a part of the queries of one at a time."""
    b, heads, n, d = q.shape
    s = k.shape[2]
    room = max(1, CHUNK_BYTES // (4 * s))
    rows, step = min(room, n), max(1, room // n)
    q, k, v = (x.flatten(0, 1) for x in (q, k, v))
    valid = None if mask is None else mask.repeat_interleave(heads, dim=0)[:, None]
    topk = min(topk, s)
    messages: list[Tensor] = []
    selected: list[Tensor] = []
    parents: list[Tensor] = []
    for i in range(0, b * heads, step):
        for j in range(0, n, rows):
            scores = (q[i : i + step, j : j + rows] * d**-0.5) @ k[i : i + step].mT
            p = _softmax(scores, None if valid is None else valid[i : i + step])
            used = p
            if topk:
                best = largest_positive(p.detach(), topk)
                selected.append(best.flatten(0, 1))
                if exclude_selected:
                    parents.append(p.gather(-1, best).flatten(0, 1))
                    used = p.scatter(-1, best, 0.0)
            messages.append((used.to(v.dtype) @ v[i : i + step]).flatten(0, 1))
    message, none = torch.cat(messages), q.new_empty(0, 0)
    if topk == 0:
        return _Step(message, none.long(), none)
    first = torch.arange(0, b * heads * s, s).repeat_interleave(n)
    return _Step(
        message, torch.cat(selected) + first[:, None], torch.cat(parents) if parents else none
    )


def _finer(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    above: _Step,
    topk: int,
    exclude_selected: bool,
) -> _Step:
    """The four children of each query above score the children of its selected keys."""
    heads, d = q.shape[1], q.shape[-1]
    table = None if mask is None else mask[:, None].expand(-1, heads, -1).reshape(-1, 4)
    with torch.autocast("cpu", enabled=False):
        message, selected, parents = _AttendBlocks.apply(
            q.view(-1, 4, d),
            k.view(-1, 4 * d),
            v.view(-1, 4 * d),
            above.parents,
            above.selected,
            table,
            topk,
            exclude_selected,
        )  # pyright: ignore[reportGeneralTypeIssues]
    return _Step(message.view(-1, d), selected.flatten(0, 1), parents.flatten(0, 1))


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
        exclude_selected: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """q (G, 4, D); k, v (R, 4 D); parents (G, K) or empty; rows (G, K); mask (R, 4)."""
        groups, d, count = q.shape[0], q.shape[2], rows.shape[1]
        topk = min(topk, 4 * count)
        message = torch.empty_like(q)
        kept = q.new_empty(groups, 4, 4 * count) if any(ctx.needs_input_grad) else None
        position = rows.new_empty(groups, 4, topk)
        scores = q.new_empty(groups, 4, topk if exclude_selected else 0, dtype=_wide(q))
        chunks = _chunks(groups, count, q)
        blocks, products = _memory(chunks, count, q)
        for part in chunks:
            keys = _fetch(k, rows[part], blocks)
            p = torch.bmm(q[part] * d**-0.5, keys.mT, out=products[: len(keys)])
            valid = None
            if mask is not None:
                valid = mask.index_select(0, rows[part].flatten()).view(-1, 1, 4 * count)
            if exclude_selected:
                siblings = None if valid is None else valid.unflatten(-1, (-1, 4))
                p = _softmax(p.unflatten(-1, (-1, 4)), siblings).flatten(-2)
            else:
                p = _softmax(p, valid)
            used = p.to(q.dtype) if kept is None else kept[part].copy_(p)
            if exclude_selected:
                p = (p.unflatten(-1, (-1, 4)) * parents[part, None, :, None]).flatten(-2)
                used = p.to(q.dtype)
            if topk:
                position[part] = largest_positive(p, topk)
            if topk and exclude_selected:
                torch.gather(p, -1, position[part], out=scores[part])
                used = p.scatter(-1, position[part], 0.0).to(q.dtype)
            torch.bmm(used, _fetch(v, rows[part], blocks), out=message[part])
        ctx.exclude_selected = exclude_selected
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
        groups, d, count, wide = q.shape[0], q.shape[2], rows.shape[1], _wide(q)
        dq = torch.empty_like(q)
        dk, dv = (torch.zeros(x.shape, dtype=wide) for x in (k, v))
        d_parents = torch.zeros_like(parents)
        # Sums over many queries stay in fp32.
        scaled, pulled = q.to(wide) * d**-0.5, d_message.to(wide)
        chunks = _chunks(groups, count, q)
        blocks, products = _memory(chunks, count, q)
        added = torch.empty_like(blocks, dtype=wide).view(-1, 4 * count, d)
        for part in chunks:
            p = used = kept[part].to(wide)
            values = _fetch(v, rows[part], blocks)
            dp = torch.bmm(d_message[part], values.mT, out=products[: len(values)]).to(wide)
            if ctx.exclude_selected:
                parent = parents[part, None, :, None]
                p = p.unflatten(-1, (-1, 4))
                used = (p * parent).flatten(-2).scatter_(-1, position[part], 0.0)
                dp = dp.scatter_(-1, position[part], d_scores[part]).unflatten(-1, (-1, 4))
                d_parents[part] = (dp * p).sum(dim=(1, 3))
                dp = dp * parent
            ds = torch._softmax_backward_data(dp, p, -1, wide).view(-1, 4, 4 * count)
            torch.bmm(ds.to(q.dtype), _fetch(k, rows[part], blocks), out=dq[part])
            for total, weights, tokens in ((dk, ds, scaled), (dv, used, pulled)):
                torch.bmm(weights.mT, tokens[part], out=added[: len(ds)])
                total.index_add_(0, rows[part].flatten(), added[: len(ds)].view(-1, 4 * d))
        dq *= d**-0.5
        return dq, dk.to(k.dtype), dv.to(v.dtype), d_parents, None, None, None, None


def _chunks(groups: int, count: int, q: Tensor) -> list[slice]:
    step = max(1, CHUNK_BYTES // (8 * count * q.shape[-1] * q.element_size()))
    return [slice(i, min(i + step, groups)) for i in range(0, groups, step)]


def _memory(chunks: Sequence[slice], count: int, q: Tensor) -> tuple[Tensor, Tensor]:
    """(g K, 4 D) for the blocks and (g, 4, 4 K) for the products of a chunk: the same memory for
    every chunk, which stays in cache as new memory would not."""
    groups, d = chunks[0].stop, q.shape[2]
    return q.new_empty(groups * count, 4 * d), q.new_empty(groups, 4, 4 * count)


def _fetch(table: Tensor, rows: Tensor, memory: Tensor) -> Tensor:
    """(g, 4 K, D) tokens of the blocks in (g, K) rows of a (R, 4 D) table, in that memory."""
    torch.index_select(table, 0, rows.flatten(), out=memory[: rows.numel()])
    return memory[: rows.numel()].view(len(rows), -1, table.shape[1] // 4)


def _wide(x: Tensor) -> torch.dtype:
    """The dtype of probabilities and of long sums: fp32, or fp64 for tokens in fp64."""
    return torch.promote_types(x.dtype, torch.float32)


def _softmax(scores: Tensor, valid: Tensor | None) -> Tensor:
    """Softmax over the last axis; rows without a valid key give zeros."""
    wide = _wide(scores)
    if valid is None:
        return scores.softmax(dim=-1, dtype=wide)
    masked = scores.masked_fill(~valid, torch.finfo(scores.dtype).min)
    return masked.softmax(dim=-1, dtype=wide) * valid


def largest(scores: Tensor, count: int) -> Tensor:
    """(..., count) indices of the largest of the (..., N) fp32 or fp64 scores, in any order.

    Faster than by comparing floats, which minds NaN. Of equal scores any may be taken.
    """
    bits = _bits(scores)
    # Negative floats are in the order of integers with the bits below the sign turned.
    sign = bits >> (8 * bits.element_size() - 1)
    return _largest_integers(bits ^ (sign & torch.iinfo(bits.dtype).max), count)


def largest_positive(scores: Tensor, count: int) -> Tensor:
    """`largest` of scores of which none is below 0, such as probabilities."""
    return _largest_integers(_bits(scores), count)


def _bits(scores: Tensor) -> Tensor:
    """The floats read as integers: of two that are not negative the larger is so in both."""
    return scores.view(torch.int32 if scores.dtype == torch.float32 else torch.int64)


def _largest_integers(bits: Tensor, count: int) -> Tensor:
    """`largest` of (..., N) integers."""
    size = bits.shape[-1]
    for group in GROUP_SIZES:
        if size >= GROUPED * count and size % group == 0:
            return _largest_of_groups(bits, count, group)
    return bits.topk(count, dim=-1, sorted=False).indices


def _largest_of_groups(bits: Tensor, count: int, group: int) -> Tensor:
    """The largest lie in those groups whose own largest are the largest."""
    apart = bits.shape[-1] // group
    grouped = bits.unflatten(-1, (group, apart))
    groups = grouped.amax(dim=-2).topk(count, dim=-1, sorted=False).indices
    some = grouped.gather(-1, groups.unsqueeze(-2).expand(*grouped.shape[:-1], count))
    place = some.flatten(-2).topk(count, dim=-1, sorted=False).indices
    return groups.gather(-1, place % count) + place // count * apart
