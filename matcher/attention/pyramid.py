"""Tokens in quad order, and the pyramid that QuadTree attention descends.

In quad order the children of token i are tokens 4i to 4i + 3, so that pooling is a mean of four
neighbors in memory and a block of children is one contiguous row.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from matcher.attention.reference import Pyramids

MapSize = tuple[int, int]


def build_pyramids(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_mask: Tensor | None,
    key_mask: Tensor | None,
    levels: int,
    heads: int,
) -> Pyramids:
    """Average pyramids of (B, C, h, w) maps with (B, h, w) bool masks of valid tokens.

    Raises:
        ValueError: sides that are not multiples of 2^(levels - 1).
    """
    query_masks, key_masks = mask_pyramid(query_mask, levels), mask_pyramid(key_mask, levels)
    queries = token_pyramid(to_quad(query, levels, heads), query_masks)
    keys, values = (token_pyramid(to_quad(x, levels, heads), key_masks) for x in (key, value))
    return Pyramids(queries, keys, values, key_masks)


def token_pyramid(tokens: Tensor, masks: Sequence[Tensor | None]) -> list[Tensor]:
    """Average-pooled levels of (B, H, N, D) tokens, coarsest first, one for each of `masks`."""
    pyramid = [tokens]
    for mask in reversed(masks[1:]):
        pyramid.append(pool_tokens(pyramid[-1], mask))
    return pyramid[::-1]


def mask_pyramid(mask: Tensor | None, levels: int) -> list[Tensor | None]:
    """(B, N) levels of a (B, h, w) mask in quad order, coarsest first.

    A block is valid if any of its children is.
    """
    if mask is None:
        return [None] * levels
    pyramid = [to_quad(mask[:, None], levels, 1)[:, 0, :, 0]]
    for _ in range(levels - 1):
        pyramid.append(pyramid[-1].unflatten(1, (-1, 4)).any(dim=2))
    return [*reversed(pyramid)]


def pool_tokens(tokens: Tensor, mask: Tensor | None) -> Tensor:
    """(B, H, N, D) to (B, H, N / 4, D): mean of the valid children, 0 where there is none."""
    if mask is None:
        # Four tokens in a row are a window of 2 x 2 of a map: faster than a mean over an axis.
        batch, heads, _, d = tokens.shape
        windows = tokens.reshape(1, -1, 2, d).permute(0, 3, 1, 2)
        return F.avg_pool2d(windows, 2).permute(0, 2, 3, 1).reshape(batch, heads, -1, d)
    children = tokens.unflatten(2, (-1, 4))
    valid = mask.unflatten(1, (-1, 4))[:, None, :, :, None]
    total = children.masked_fill(~valid, 0.0).sum(dim=3, dtype=tokens.dtype)
    return total / valid.sum(dim=3).clamp(min=1).to(tokens.dtype)


def merge_levels(
    messages: Sequence[Tensor], weights: Tensor | None, levels: int, size: MapSize
) -> Tensor:
    """Sum of messages as a (B, C, h, w) map of `size`, those of a level repeated to its children.

    Args:
        messages: (B, H, N, D) one a level, coarsest first, down to the finest.
        weights: one for each message; None means 1.
        levels: of the pyramid; it may have coarser ones than the messages.
        size: (h, w) of the finest level.
    """
    total = None
    for level, message in enumerate(messages):
        weight = message.new_ones(()) if weights is None else weights[level].to(message.dtype)
        if total is None:
            total = message * weight
        else:
            total = torch.addcmul(total.unsqueeze(3), message.unflatten(2, (-1, 4)), weight)
            total = total.flatten(2, 3)
    if total is None:
        raise ValueError("no level to merge")
    return from_quad(total, levels, size)


def to_quad(x: Tensor, levels: int, heads: int) -> Tensor:
    """(B, C, h, w) map to (B, H, N, D) tokens in quad order for `levels` levels.

    Raises:
        ValueError: h or w is not a multiple of 2^(levels - 1).
    """
    b, c, h, w = x.shape
    splits = levels - 1
    cell = 2**splits
    if h % cell or w % cell:
        raise ValueError(f"map of {h}x{w} is not divisible by {cell}, as {levels} levels need")
    x = x.permute(0, 2, 3, 1).reshape(b, h // cell, *[2] * splits, w // cell, *[2] * splits, c)
    rows = range(1, 2 + splits)
    columns = range(2 + splits, 3 + 2 * splits)
    order = [axis for pair in zip(rows, columns, strict=True) for axis in pair]
    # Two copies, tokens first and heads then, take a fifth of the time of one.
    tokens = x.permute(0, *order, x.ndim - 1).reshape(b, h * w, heads, c // heads)
    return tokens.transpose(1, 2).contiguous()


def from_quad(x: Tensor, levels: int, size: MapSize) -> Tensor:
    """(B, H, N, D) tokens in quad order back to a (B, C, h, w) map of `size`."""
    b, heads, _, d = x.shape
    h, w = size
    splits = levels - 1
    cell = 2**splits
    # Two copies, as in `to_quad`: backward above all.
    tokens = x.transpose(1, 2).reshape(b, h // cell, w // cell, *[2] * (2 * splits), heads * d)
    rows = [1 + 2 * i for i in range(1 + splits)]
    columns = [2 + 2 * i for i in range(1 + splits)]
    tokens = tokens.permute(0, *rows, *columns, tokens.ndim - 1)
    return tokens.reshape(b, h, w, heads * d).permute(0, 3, 1, 2)


def pad_to(x: Tensor, mask: Tensor | None, cell: int) -> tuple[Tensor, Tensor | None]:
    """(B, C, h, w) and (B, h, w) mask enlarged to multiples of `cell` by tokens that are masked."""
    h, w = x.shape[-2:]
    border = (0, -w % cell, 0, -h % cell)
    if not any(border):
        return x, mask
    if mask is None:
        mask = torch.ones(x.shape[0], h, w, dtype=torch.bool, device=x.device)
    return F.pad(x, border), F.pad(mask, border)


def quad_index(index: Tensor, size: MapSize, below: int, levels: int) -> Tensor:
    """Quad-order index, `below` levels above the finest, of the block that holds each cell.

    Args:
        index: raster indices of cells of a map of `size`.
    """
    cell = 2**below
    rows, columns = size[0] // cell, size[1] // cell
    raster = torch.arange(rows * columns, device=index.device, dtype=torch.float64)
    order = to_quad(raster.view(1, 1, rows, columns), levels - below, 1).view(-1).long()
    position = torch.empty_like(order)
    position[order] = torch.arange(order.numel(), device=index.device)
    row, column = index // size[1], index % size[1]
    return position[row // cell * columns + column // cell]
