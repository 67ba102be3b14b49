"""Swin's attention (Liu et al., ICCV 2021): within windows, which every other layer moves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from matcher.attention.pyramid import pad_to
from matcher.config import TransformerConfig


class WindowAttention(nn.Module):
    """Softmax attention among the cells of a window, with a learned bias of their offset.

    A shifted partition goes around the borders, but cells that meet that way do not see each
    other. Along an axis with a single window nothing is shifted. The bias starts at 0.

    Args:
        heads: H.
        window: side in cells.
        shift: cells by which the windows are moved, less than `window`.
    """

    def __init__(self, heads: int, window: int, shift: int = 0) -> None:
        super().__init__()
        self.heads, self.window, self.shift = heads, window, shift
        self.bias = nn.Parameter(torch.zeros(heads, (2 * window - 1) ** 2))
        self.index: Tensor
        index = offset_index(torch.arange(window), torch.arange(window))
        self.register_buffer("index", index, persistent=False)

    @classmethod
    def from_config(cls, config: TransformerConfig, channels: int, layer: int) -> Self:
        """The attention of a layer; every second self layer is shifted."""
        shifted = config.layers[:layer].count("self") % 2
        return cls(config.heads, config.window, config.window // 2 * shifted)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        query_mask: Tensor | None = None,
        key_mask: Tensor | None = None,
    ) -> Tensor:
        """(B, C, h, w) message of (B, C, h, w) maps; masks (B, h, w) bool of valid cells.

        Raises:
            ValueError: maps of different sizes.
        """
        h, w = require_one_grid(query, key)
        window = min(self.window, max(h, w))  # A small map needs no padding to a whole window.
        query, _ = pad_to(query, None, window)
        value, _ = pad_to(value, None, window)
        key, key_mask = pad_to(key, key_mask, window)
        size = (key.shape[-2], key.shape[-1])
        shifts = [self.shift if side > window else 0 for side in size]
        back = [-shift for shift in shifts]
        if any(shifts):
            query, key, value = (x.roll(back, (2, 3)) for x in (query, key, value))
            key_mask = None if key_mask is None else key_mask.roll(back, (1, 2))
        valid = None
        if key_mask is not None:
            valid = to_windows(key_mask[:, None], window, 1)[:, :, 0, None, :, 0]
        if any(shifts):
            together = _neighbors_in_map(size, shifts, window, query.device)
            valid = together if valid is None else together & valid
        q, k, v = (to_windows(x, window, self.heads) for x in (query, key, value))
        message = attend_windows(q, k, v, self._bias(window, q.dtype), valid)
        out = from_windows(message, window, size)
        return (out.roll(shifts, (2, 3)) if any(shifts) else out)[..., :h, :w]

    def _bias(self, window: int, dtype: torch.dtype) -> Tensor:
        """(H, window^2, window^2), of a window of at most the trained side."""
        part = (slice(window),) * 4
        index = self.index.view((self.window,) * 4)[part].reshape(window**2, window**2)
        return self.bias[:, index].to(dtype)


def _neighbors_in_map(
    size: tuple[int, int], shifts: Sequence[int], window: int, device: torch.device
) -> Tensor:
    """(1, windows, L, S) bool of cells of one window that were not brought together by rolling."""
    sides = zip(size, shifts, strict=True)
    row, column = (torch.arange(side, device=device) >= side - shift for side, shift in sides)
    region = to_windows((2 * row[:, None] + column)[None, None], window, 1)[:, :, 0, :, 0]
    return region[..., None] == region[..., None, :]


def require_one_grid(query: Tensor, key: Tensor) -> tuple[int, int]:
    """The (h, w) of maps of one size."""
    if query.shape[-2:] != key.shape[-2:]:
        sizes = f"{tuple(query.shape[-2:])} and {tuple(key.shape[-2:])}"
        raise ValueError(f"attention in windows needs one grid, got {sizes}")
    return query.shape[-2], query.shape[-1]


def offset_index(queries: Tensor, keys: Tensor) -> Tensor:
    """(L^2, S^2) numbers of the offsets of all cells of a square from those of another.

    Args:
        queries: (L,) rows, and columns, of the queries.
        keys: (S,) of the keys.
    """
    offset = keys - queries[:, None]  # (L, S)
    offset = offset - offset.min()
    count = int(offset.max()) + 1
    index = offset[:, None, :, None] * count + offset[None, :, None, :]  # (L, L, S, S)
    return index.reshape(len(queries) ** 2, len(keys) ** 2)


def to_windows(x: Tensor, window: int, heads: int) -> Tensor:
    """(B, windows, H, window^2, D) tokens of (B, C, h, w) maps, both in raster order."""
    b, c, h, w = x.shape
    x = x.reshape(b, heads, c // heads, h // window, window, w // window, window)
    return x.permute(0, 3, 5, 1, 4, 6, 2).reshape(b, -1, heads, window**2, c // heads)


def from_windows(x: Tensor, window: int, size: tuple[int, int]) -> Tensor:
    """(B, windows, H, window^2, D) tokens back to (B, C, h, w) maps of `size`."""
    b, _, heads, _, d = x.shape
    h, w = size
    x = x.reshape(b, h // window, w // window, heads, window, window, d)
    return x.permute(0, 3, 6, 1, 4, 2, 5).reshape(b, heads * d, h, w)


def attend_windows(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, valid: Tensor | None) -> Tensor:
    """(B, windows, H, L, D) softmax attention; a query without a valid key gets 0.

    Args:
        q: (B, windows, H, L, D); k, v: (B, windows, H, S, D).
        bias: (H, L, S), added to the scores.
        valid: (B or 1, windows, L or 1, S) bool of keys; None means all.
    """
    scores = bias.expand(*q.shape[:2], -1, -1, -1)
    if valid is not None:
        valid = valid[:, :, None].expand(q.shape[0], -1, -1, -1, -1)
        scores = scores.masked_fill(~valid, torch.finfo(bias.dtype).min)
    message = F.scaled_dot_product_attention(
        *(x.flatten(0, 1) for x in (q, k, v)), attn_mask=scores.flatten(0, 1)
    ).unflatten(0, q.shape[:2])
    if valid is None:
        return message
    return message.masked_fill(~valid.any(dim=-1, keepdim=True), 0.0)
