"""One level of the QuadTree descent a launch, in Triton: any number of levels, with gradients.

One program works off one group, the four queries below a cell of one head, and the children of
that cell's list. Backward scores them again, so that no probability is kept, and adds to the
gradients of keys and values what the group gives them: in fp32, and in an order that is not fixed.

`matcher.attention.triton_kernel` is faster where it can be asked, and says what Triton it takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from matcher.attention.reference import Pyramids, Variant, attend
from matcher.attention.triton_kernel import (
    LOG2_E,
    children,
    counts_of,
    fits,
    learns,
    load_rows,
    parents_of,
    power_of_two,
    probabilities,
    product,
    softmax,
    specialization,
    store_rows,
)

WARP_BYTES = 2 << 10
"""Keys at a time, in fp32, for which the registers of a warp suffice, as the compiler reports for
sm_80, sm_90 and sm_120."""
MAX_WARPS = 32


def supports(pyramids: Pyramids, topks: Sequence[int]) -> bool:
    """Whether `descend` takes these pyramids: their dtypes and sizes, and gradients unless PyTorch
    is to be deterministic; the device is not asked."""
    if len(pyramids.queries) < 2 or not fits(pyramids):
        return False
    if learns(pyramids) and torch.are_deterministic_algorithms_enabled():
        return False
    counts = counts_of(pyramids, topks)
    return min(counts) >= 1 and warps(pyramids.queries[0].shape[-1], max(counts)) <= MAX_WARPS


def descend(pyramids: Pyramids, topks: Sequence[int], variant: Variant) -> list[Tensor]:
    """Messages as of `matcher.attention.quadtree.descend`, for what `supports` accepts."""
    coarsest, *finer = zip(*pyramids, strict=True)
    first, *descending = counts_of(pyramids, topks)
    step = attend(*coarsest, None, first, variant)
    messages, selected, parents = [step.message], step.selected, step.parents
    for (q, k, v, mask), topk in zip(finer, [*descending, 0], strict=True):
        above = parents if variant == "A" else None
        message, selected, parents = _Level.apply(q, k, v, selected, above, mask, topk)  # pyright: ignore[reportGeneralTypeIssues]
        messages.append(message)
    return messages


def warps(d: int, count: int) -> int:
    """Warps for a program whose cell lists `count` keys."""
    return max(1, power_of_two(4 * count, 16) * power_of_two(d, 16) * 4 // WARP_BYTES)


class _Level(Function):
    """A level below the coarsest."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        blocks: Tensor,
        parents: Tensor | None,
        mask: Tensor | None,
        topk: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(B, H, N, D) message, and of the keys that descend (B, H, N, k) indices, -1 where there
        is none, and in variant A their fp32 probabilities.

        Args:
            q: (B, H, N, D); k, v: (B, H, S, D).
            blocks: (B, H, N / 4, K) keys above whose children are scored; -1 for none.
            parents: (B, H, N / 4, K) float32 probabilities of these (variant A), or None (B).
            mask: (B, S) bool of valid keys, or None.
        """
        q, k, v, blocks = (x.contiguous() for x in (q, k, v, blocks))
        parents = None if parents is None else parents.contiguous()
        mask = None if mask is None else mask.contiguous().view(torch.uint8)
        b, h, n, d = q.shape
        message = torch.empty_like(q)
        selected = blocks.new_empty(b, h, n, topk)
        scores = q.new_empty(b, h, n, topk if parents is not None else 0, dtype=torch.float32)
        cascade, masked = parents is not None, mask is not None
        constants = specialization(d, blocks.shape[-1], topk, cascade, masked, q.dtype)
        with torch.cuda.device_of(q):
            _forward_kernel[(n // 4, b * h)](
                q, k, v, mask, blocks, parents, message, selected, scores,
                n // 4, k.shape[2], h, d**-0.5 * LOG2_E, **constants,
                num_warps=warps(d, blocks.shape[-1]),  # pyright: ignore[reportCallIssue]
            )  # fmt: skip
        ctx.topk = topk
        ctx.save_for_backward(q, k, v, blocks, parents, mask, selected)
        ctx.mark_non_differentiable(selected)
        return message, selected, scores

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, d_message: Tensor, _: Tensor, d_scores: Tensor
    ) -> tuple[Tensor | None, ...]:
        q, k, v, blocks, parents, mask, selected = ctx.saved_tensors
        b, h, n, d = q.shape
        dq = torch.empty_like(q)
        dk, dv = (torch.zeros(x.shape, dtype=torch.float32, device=x.device) for x in (k, v))
        d_parents = None if parents is None else torch.empty_like(parents)
        cascade, masked = parents is not None, mask is not None
        constants = specialization(d, blocks.shape[-1], ctx.topk, cascade, masked, q.dtype)
        with torch.cuda.device_of(q):
            _backward_kernel[(n // 4, b * h)](
                q, k, v, mask, blocks, parents, selected,
                d_message.contiguous(), d_scores.contiguous(), dq, dk, dv, d_parents,
                n // 4, k.shape[2], h, d**-0.5, **constants,
                num_warps=warps(d, blocks.shape[-1]),  # pyright: ignore[reportCallIssue]
            )  # fmt: skip
        return dq, dk.to(k.dtype), dv.to(v.dtype), None, d_parents, None, None


@triton.jit
def _forward_kernel(
    q_ptr, k_ptr, v_ptr, mask_ptr, blocks_ptr, parents_ptr, message_ptr, selected_ptr, scores_ptr,
    groups, keys, heads, scale,
    D: tl.constexpr, TILE_D: tl.constexpr, COUNT: tl.constexpr, COLUMNS: tl.constexpr,
    TOPK: tl.constexpr, CASCADE: tl.constexpr, MASKED: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    """Grid (groups, B * H); `scale` is for scores to the base of 2."""
    head = tl.program_id(1).to(tl.int64)
    place = head * groups + tl.program_id(0)
    key, valid = children(  # pyright: ignore[reportGeneralTypeIssues]
        blocks_ptr, mask_ptr, place, head // heads, keys, COUNT, COLUMNS, MASKED
    )
    row = place * 4 + tl.arange(0, 4)
    q = load_rows(q_ptr, row, row >= 0, D, TILE_D)
    k = load_rows(k_ptr + head * keys * D, key, valid, D, TILE_D)
    parents = parents_of(parents_ptr, place, scale, COUNT, COLUMNS, CASCADE)
    p = probabilities(q, k, valid[None, :], parents, scale, 4, COLUMNS, CASCADE, WIDEN)

    # A probability is not negative, so its bits order it; the index below them breaks ties.
    LAST: tl.constexpr = 0x7FFFFFFF  # pyright: ignore[reportAssignmentType]
    rank = p.to(tl.int32, bitcast=True).to(tl.int64) << 32
    left = tl.where(valid[None, :], rank | (LAST - key)[None, :].to(tl.int64), -1)
    for i in tl.static_range(TOPK):
        top = tl.max(left, 1)
        chosen = tl.where(top >= 0, LAST - (top & LAST), -1)
        tl.store(selected_ptr + row * TOPK + i, chosen)
        if CASCADE:
            score = (top >> 32).to(tl.int32).to(tl.float32, bitcast=True)
            tl.store(scores_ptr + row * TOPK + i, tl.where(top >= 0, score, 0.0))
            p = tl.where(left == top[:, None], 0.0, p)
        left = tl.where(left == top[:, None], -1, left)

    v = load_rows(v_ptr + head * keys * D, key, valid, D, TILE_D)
    store_rows(message_ptr, row, product(p.to(v.dtype), v, WIDEN).to(v.dtype), D, TILE_D)


@triton.jit
def _row(x, r: tl.constexpr):
    """Row r of the four of x, in fp32."""
    return tl.sum(tl.where((tl.arange(0, 4) == r)[:, None], x.to(tl.float32), 0.0), 0)


@triton.jit
def _backward_kernel(
    q_ptr, k_ptr, v_ptr, mask_ptr, blocks_ptr, parents_ptr, selected_ptr,
    d_message_ptr, d_scores_ptr, dq_ptr, dk_ptr, dv_ptr, d_parents_ptr,
    groups, keys, heads, scale,
    D: tl.constexpr, TILE_D: tl.constexpr, COUNT: tl.constexpr, COLUMNS: tl.constexpr,
    TOPK: tl.constexpr, CASCADE: tl.constexpr, MASKED: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    """Grid (groups, B * H); dk and dv hold zeros at the start."""
    LOG2: tl.constexpr = 1.4426950408889634  # pyright: ignore[reportAssignmentType]
    head = tl.program_id(1).to(tl.int64)
    place = head * groups + tl.program_id(0)
    key, valid = children(  # pyright: ignore[reportGeneralTypeIssues]
        blocks_ptr, mask_ptr, place, head // heads, keys, COUNT, COLUMNS, MASKED
    )
    row = place * 4 + tl.arange(0, 4)
    q = load_rows(q_ptr, row, row >= 0, D, TILE_D)
    g = load_rows(d_message_ptr, row, row >= 0, D, TILE_D)
    k = load_rows(k_ptr + head * keys * D, key, valid, D, TILE_D)
    v = load_rows(v_ptr + head * keys * D, key, valid, D, TILE_D)
    parents = parents_of(parents_ptr, place, scale, COUNT, COLUMNS, CASCADE)
    scores = product(q, tl.trans(k), WIDEN) * (scale * LOG2)
    scores = tl.where(valid[None, :], scores, float("-inf"))
    dp = product(g, tl.trans(v), WIDEN)
    if CASCADE:
        s = softmax(tl.reshape(scores, (4, COLUMNS // 4, 4)), 2)
        used = tl.reshape(s * parents[None, :, None], (4, COLUMNS))
        for i in tl.static_range(TOPK):
            chosen = key[None, :] == tl.load(selected_ptr + row * TOPK + i)[:, None]
            chosen &= valid[None, :]
            used = tl.where(chosen, 0.0, used)
            dp = tl.where(chosen, tl.load(d_scores_ptr + row * TOPK + i)[:, None], dp)
        dp = tl.reshape(dp, (4, COLUMNS // 4, 4))
        block = tl.arange(0, COLUMNS // 4)
        d_parents = tl.sum(tl.sum(dp * s, 2), 0)
        tl.store(d_parents_ptr + place * COUNT + block, d_parents, mask=block < COUNT)
        dp = dp * parents[None, :, None]
        ds = tl.reshape(s * (dp - tl.sum(dp * s, 2, keep_dims=True)), (4, COLUMNS))
    else:
        used = softmax(scores, 1)
        ds = used * (dp - tl.sum(dp * used, 1, keep_dims=True))
    ds *= scale

    # Four rows are too few for a product of matrices.
    dims = tl.arange(0, TILE_D)
    within = (dims < D)[None, :]
    at = head * keys * D + key[:, None] * D + dims[None, :]
    dv = tl.zeros((COLUMNS, TILE_D), tl.float32)
    for r in tl.static_range(4):
        dv += _row(used, r)[:, None] * _row(g, r)[None, :]
    tl.atomic_add(dv_ptr + at, dv, mask=valid[:, None] & within, sem="relaxed")
    store_rows(dq_ptr, row, product(ds.to(k.dtype), k, WIDEN).to(k.dtype), D, TILE_D)
    dk = tl.zeros((COLUMNS, TILE_D), tl.float32)
    for r in tl.static_range(4):
        dk += _row(ds, r)[:, None] * _row(q, r)[None, :]
    tl.atomic_add(dk_ptr + at, dk, mask=valid[:, None] & within, sem="relaxed")
