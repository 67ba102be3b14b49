"""The two finer levels of a three-level QuadTree descent in one Triton kernel, without gradients.

One program works off one coarse cell of one head: its 4 middle queries score the children of the
cell's list and choose what descends without leaving the chip; then its 16 fine queries score the
children of the four new lists side by side. A fine query keeps the quarter of that product that
is its own; the rest are rows that a tensor core would otherwise pad.

Written for Triton 3.6 and later, which PyTorch 2.11 and later bring along on Linux with CUDA:
`tl.dot` takes fewer than 16 rows and the precision `tf32x3`. Importing this module imports Triton.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton import knobs

from matcher.attention.reference import Pyramids, Variant, attend

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
MAX_HEAD_DIM = 64
LOG2_E = 1.4426950408889634
WARP_BYTES = 8 << 10
"""Keys at a time for which the registers of a warp suffice, as the compiler reports for sm_80,
sm_90 and sm_120."""
MAX_WARPS = 4
INTERPRETED = knobs.runtime.interpret
"""Whether the kernels below run in Triton's interpreter (`TRITON_INTERPRET=1`)."""


def supports(pyramids: Pyramids, topks: Sequence[int]) -> bool:
    """Whether `descend` takes these pyramids (their dtypes and sizes; the device is not asked)."""
    if len(pyramids.queries) != 3 or not fits(pyramids) or learns(pyramids):
        return False
    coarse, middle = counts_of(pyramids, topks)
    q = pyramids.queries[0]
    return min(coarse, middle) >= 1 and warps(q.shape[-1], coarse, middle, q.dtype) <= MAX_WARPS


def descend(pyramids: Pyramids, topks: Sequence[int], variant: Variant) -> list[Tensor]:
    """Messages as of `matcher.attention.quadtree.descend`, for what `supports` accepts.

    Of middle keys with equal probabilities the one with the lowest index descends.
    """
    coarse, middle = counts_of(pyramids, topks)
    coarsest, *finer = zip(*pyramids, strict=True)
    step = attend(*coarsest, None, coarse, variant)
    parents = step.parents if variant == "A" else None
    messages = descend_blocks(Pyramids(*zip(*finer, strict=True)), step.selected, parents, middle)
    return [step.message, *messages]


def descend_blocks(
    pyramids: Pyramids, blocks: Tensor, parents: Tensor | None, topk: int
) -> list[Tensor]:
    """Messages of the middle and the fine level.

    Args:
        pyramids: these two levels.
        blocks: (B, H, N / 4, K) coarse keys whose children the N middle queries score.
        parents: (B, H, N / 4, K) float32 probabilities of these (variant A), or None (variant B).
        topk: middle keys that descend, at most 4K.
    """
    (q1, q2), (k1, k2), (v1, v2) = ([x.contiguous() for x in level] for level in pyramids[:3])
    mask1, mask2 = (None if x is None else x.contiguous().view(torch.uint8) for x in pyramids.masks)
    out1, out2 = torch.empty_like(q1), torch.empty_like(q2)
    b, h, n, d = q1.shape
    count = blocks.shape[-1]
    with torch.cuda.device_of(q1):
        _descend_kernel[(n // 4, b * h)](
            q1,
            k1,
            v1,
            mask1,
            q2,
            k2,
            v2,
            mask2,
            blocks.contiguous(),
            None if parents is None else parents.contiguous(),
            out1,
            out2,
            n // 4,
            k1.shape[2],
            h,
            d**-0.5 * LOG2_E,
            SLOTS=power_of_two(topk, 1),  # pyright: ignore[reportCallIssue]
            **specialization(d, count, topk, parents is not None, mask1 is not None, q1.dtype),
            num_warps=warps(d, count, topk, q1.dtype),  # pyright: ignore[reportCallIssue]
        )
    return [out1, out2]


def fits(pyramids: Pyramids) -> bool:
    """Whether all tensors are of one dtype, on one device, and no wider than a kernel takes."""
    first, *others = [*pyramids.queries, *pyramids.keys, *pyramids.values]
    if first.dtype not in DTYPES or first.shape[-1] > MAX_HEAD_DIM:
        return False
    return all(x.dtype == first.dtype and x.device == first.device for x in others)


def learns(pyramids: Pyramids) -> bool:
    """Whether gradients are asked of a descent."""
    tensors = [*pyramids.queries, *pyramids.keys, *pyramids.values]
    return torch.is_grad_enabled() and any(x.requires_grad for x in tensors)


def counts_of(pyramids: Pyramids, topks: Sequence[int]) -> list[int]:
    """Keys that descend from each level but the finest."""
    counts: list[int] = []
    for keys, topk in zip(pyramids.keys[:-1], topks, strict=False):
        counts.append(min(topk, 4 * counts[-1] if counts else keys.shape[2]))
    return counts


def specialization(
    d: int, count: int, topk: int, cascade: bool, masked: bool, dtype: torch.dtype
) -> dict[str, int | bool]:
    """What is constant when a kernel is compiled whose cells list `count` keys, of which `topk`
    descend."""
    return {
        "D": d,
        "TILE_D": power_of_two(d, 16),
        "COUNT": count,
        "COLUMNS": power_of_two(4 * count, 16),
        "TOPK": topk,
        "CASCADE": cascade,
        "MASKED": masked,
        "WIDEN": INTERPRETED and dtype == torch.bfloat16,
    }


def warps(d: int, coarse: int, middle: int, dtype: torch.dtype) -> int:
    """Warps for a program, by the larger of the two tiles of keys that it fetches."""
    rows = max(power_of_two(4 * coarse, 16), 16 * power_of_two(middle, 1))
    return max(1, rows * power_of_two(d, 16) * dtype.itemsize // WARP_BYTES)


def power_of_two(n: int, least: int) -> int:
    return max(least, 1 << (n - 1).bit_length())


@triton.jit
def load_rows(table, rows, keep, D: tl.constexpr, TILE_D: tl.constexpr):
    """(rows, TILE_D) of a (., D) table, zeros where not kept and beyond D."""
    dims = tl.arange(0, TILE_D)
    within = keep[:, None] & (dims < D)[None, :]
    return tl.load(table + rows[:, None] * D + dims[None, :], mask=within, other=0.0)


@triton.jit
def store_rows(table, rows, values, D: tl.constexpr, TILE_D: tl.constexpr):
    """Write (rows, TILE_D) to a (., D) table, but for what is beyond D."""
    dims = tl.arange(0, TILE_D)
    within = (rows >= 0)[:, None] & (dims < D)[None, :]
    tl.store(table + rows[:, None] * D + dims[None, :], values, mask=within)


@triton.jit
def children(
    blocks_ptr, mask_ptr, place, batch, keys,
    COUNT: tl.constexpr, COLUMNS: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """(COLUMNS,) children of the COUNT keys that a cell lists, and which of them are valid."""
    column = tl.arange(0, COLUMNS)
    listed = tl.load(blocks_ptr + place * COUNT + column // 4, mask=column < 4 * COUNT, other=-1)
    valid = listed >= 0
    key = tl.where(valid, 4 * listed.to(tl.int32) + column % 4, -1)
    if MASKED:
        valid &= tl.load(mask_ptr + batch * keys + key, mask=valid, other=0) != 0
    return key, valid


@triton.jit
def parents_of(parents_ptr, place, scale, COUNT: tl.constexpr, COLUMNS: tl.constexpr,
               CASCADE: tl.constexpr):  # fmt: skip
    """(COLUMNS / 4,) probabilities of the keys that a cell lists; anything without a cascade."""
    found = scale
    if CASCADE:
        block = tl.arange(0, COLUMNS // 4)
        found = tl.load(parents_ptr + place * COUNT + block, mask=block < COUNT, other=0.0)
    return found


@triton.jit
def product(a, b, WIDEN: tl.constexpr):
    """Matrix product in fp32; widened where Triton's interpreter cannot multiply bf16."""
    if WIDEN:
        return tl.dot(a.to(tl.float32), b.to(tl.float32), input_precision="ieee")
    return tl.dot(a, b, input_precision="tf32x3")


@triton.jit
def softmax(scores, axis: tl.constexpr):
    """Of base-2 scores; a row that is -inf throughout gives zeros."""
    top = tl.max(scores, axis, keep_dims=True)
    e = tl.exp2(scores - tl.where(top == float("-inf"), 0.0, top))
    total = tl.sum(e, axis, keep_dims=True)
    return e / tl.where(total == 0.0, 1.0, total)


@triton.jit
def probabilities(
    q, k, valid, parents, scale, ROWS: tl.constexpr, COLUMNS: tl.constexpr, CASCADE: tl.constexpr,
    WIDEN: tl.constexpr,
):  # fmt: skip
    """(ROWS, COLUMNS) of queries and keys; in a cascade a softmax of four times the parent's."""
    scores = tl.where(valid, product(q, tl.trans(k), WIDEN) * scale, float("-inf"))
    if CASCADE:
        siblings = softmax(tl.reshape(scores, (ROWS, COLUMNS // 4, 4)), 2)
        return tl.reshape(siblings * parents[None, :, None], (ROWS, COLUMNS))
    return softmax(scores, 1)


@triton.jit
def _descend_kernel(
    q1_ptr, k1_ptr, v1_ptr, mask1_ptr,
    q2_ptr, k2_ptr, v2_ptr, mask2_ptr,
    blocks_ptr, parents_ptr, out1_ptr, out2_ptr,
    cells, keys, heads, scale,
    D: tl.constexpr, TILE_D: tl.constexpr, COUNT: tl.constexpr, COLUMNS: tl.constexpr,
    TOPK: tl.constexpr, SLOTS: tl.constexpr, CASCADE: tl.constexpr, MASKED: tl.constexpr,
    WIDEN: tl.constexpr,
):  # fmt: skip
    """Grid (coarse cells, B * H). Pads COUNT * 4 to COLUMNS, TOPK to SLOTS and D to TILE_D."""
    cell = tl.program_id(0)
    head = tl.program_id(1).to(tl.int64)
    batch = head // heads
    place = head * cells + cell
    LAST: tl.constexpr = 0x7FFFFFFF  # pyright: ignore[reportAssignmentType]

    # Middle level: 4 queries, the children of COUNT coarse keys.
    key1, valid1 = children(  # pyright: ignore[reportGeneralTypeIssues]
        blocks_ptr, mask1_ptr, place, batch, keys, COUNT, COLUMNS, MASKED
    )
    row1 = cell * 4 + tl.arange(0, 4)
    q1 = load_rows(q1_ptr + head * cells * 4 * D, row1, row1 >= 0, D, TILE_D)
    k1 = load_rows(k1_ptr + head * keys * D, key1, valid1, D, TILE_D)
    parents1 = parents_of(parents_ptr, place, scale, COUNT, COLUMNS, CASCADE)
    p1 = probabilities(q1, k1, valid1[None, :], parents1, scale, 4, COLUMNS, CASCADE, WIDEN)

    # A probability is not negative, so its bits order it; the index below them breaks ties.
    rank = p1.to(tl.int32, bitcast=True).to(tl.int64) << 32
    rank = tl.where(valid1[None, :], rank | (LAST - key1)[None, :].to(tl.int64), -1)
    slot = tl.arange(0, SLOTS)[None, :]
    best = tl.full((4, SLOTS), -1, tl.int64)
    left = rank
    for i in tl.static_range(TOPK):
        top = tl.max(left, 1, keep_dims=True)
        best = tl.where(slot == i, top, best)
        left = tl.where(left == top, -1, left)
    if CASCADE:
        p1 = tl.where(left == rank, p1, 0.0)
    v1 = load_rows(v1_ptr + head * keys * D, key1, valid1, D, TILE_D)
    message1 = product(p1.to(v1.dtype), v1, WIDEN).to(v1.dtype)
    store_rows(out1_ptr + head * cells * 4 * D, row1, message1, D, TILE_D)

    # Fine level: 16 queries, the children of four lists of SLOTS middle keys.
    chosen = best >= 0
    block2 = tl.where(chosen, LAST - (best & LAST).to(tl.int32), -1)
    child = tl.arange(0, 4)[None, None, :]
    key2 = tl.where(block2[:, :, None] >= 0, block2[:, :, None] * 4 + child, -1)
    key2 = tl.reshape(key2, (16 * SLOTS,))
    valid2 = key2 >= 0
    if MASKED:
        valid2 &= tl.load(mask2_ptr + batch * keys * 4 + key2, mask=valid2, other=0) != 0
    row2 = cell * 16 + tl.arange(0, 16)
    q2 = load_rows(q2_ptr + head * cells * 16 * D, row2, row2 >= 0, D, TILE_D)
    k2 = load_rows(k2_ptr + head * keys * 4 * D, key2, valid2, D, TILE_D)
    own = (tl.arange(0, 16) // 4)[:, None] == (tl.arange(0, 16 * SLOTS) // (4 * SLOTS))[None, :]
    parents2 = scale
    if CASCADE:
        p = tl.where(chosen, (best >> 32).to(tl.int32).to(tl.float32, bitcast=True), 0.0)
        parents2 = tl.reshape(p, (4 * SLOTS,))
    p2 = probabilities(
        q2, k2, own & valid2[None, :], parents2, scale, 16, 16 * SLOTS, CASCADE, WIDEN
    )
    v2 = load_rows(v2_ptr + head * keys * 4 * D, key2, valid2, D, TILE_D)
    message2 = product(p2.to(v2.dtype), v2, WIDEN).to(v2.dtype)
    store_rows(out2_ptr + head * cells * 16 * D, row2, message2, D, TILE_D)
