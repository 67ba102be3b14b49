"""Focal attention (Yang et al., NeurIPS 2021) of two levels: cells nearby, windows further off."""

from __future__ import annotations

from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from matcher.attention.pyramid import pad_to
from matcher.attention.windows import (
    attend_windows,
    from_windows,
    offset_index,
    require_one_grid,
    to_windows,
)
from matcher.config import TransformerConfig


class FocalAttention(nn.Module):
    """Softmax attention of a window to its own cells, to those around it and to other windows.

    The queries of a window see every cell up to `expand` cells around it, and one summary of each
    other window of the `neighbors` x `neighbors` around it: a learned mean of its keys and values.
    With a single window it is full attention. Learned biases, at 0 at first, go by the offset of
    cells and by that of windows.

    The published code differs in small things, for which there are no weights to load: it pools
    before the projections, holds some cells of the ring twice and takes them from the other side of
    the map at borders, and summarizes a query's own window too.

    Args:
        heads: H.
        window: side of a window in cells.
        expand: cells around it.
        neighbors: side, in windows, of what is summarized; odd.
    """

    def __init__(self, heads: int, window: int, expand: int, neighbors: int) -> None:
        super().__init__()
        self.heads, self.window, self.expand, self.neighbors = heads, window, expand, neighbors
        self.pool = nn.Linear(window**2, 1)
        nn.init.constant_(self.pool.weight, 1 / window**2)
        nn.init.zeros_(self.pool.bias)
        self.index: Tensor
        self.others: Tensor
        own, near = torch.arange(window), torch.arange(-expand, window + expand)
        self.register_buffer("index", offset_index(own, near), persistent=False)
        self.near_bias = nn.Parameter(torch.zeros(heads, (2 * (window + expand) - 1) ** 2))
        self.far_bias = nn.Parameter(torch.zeros(heads, neighbors**2))
        others = torch.ones(neighbors**2, dtype=torch.bool)
        others[neighbors**2 // 2] = False
        self.register_buffer("others", others, persistent=False)

    @classmethod
    def from_config(cls, config: TransformerConfig, channels: int, layer: int) -> Self:
        """The attention of a layer: a ring of half a window, and the windows next to one's own."""
        return cls(config.heads, config.window, config.window // 2, 3)

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
        valid = key.new_ones(key.shape[0], 1, h, w)
        if key_mask is not None:
            # What is masked must not enter a summary.
            key, value, valid = (x.masked_fill(~key_mask[:, None], 0) for x in (key, value, valid))
        query, key, value, valid = (
            pad_to(x, None, self.window)[0] for x in (query, key, value, valid)
        )
        size = (key.shape[-2], key.shape[-1])
        q = to_windows(query, self.window, self.heads)
        k, v = (torch.cat([self._near(x), self._far(x)], dim=3) for x in (key, value))
        seen = torch.cat([self._near(valid, 1), self._far_valid(valid)], dim=3)
        message = attend_windows(q, k, v, self._bias(query.dtype), seen[:, :, 0, None, :, 0] > 0)
        return from_windows(message, self.window, size)[..., :h, :w]

    def _near(self, x: Tensor, heads: int | None = None) -> Tensor:
        """(B, windows, H, (window + 2 expand)^2, D) cells that each window sees."""
        side = self.window + 2 * self.expand
        return _blocks(x, side, self.window, self.expand, heads or self.heads)

    def _far(self, x: Tensor) -> Tensor:
        """(B, windows, H, neighbors^2 - 1, D) summaries that each window sees."""
        tokens = to_windows(x, self.window, self.heads)  # (B, windows, H, window^2, D)
        means = self.pool(tokens.transpose(3, 4))  # (B, windows, H, D, 1)
        rows, columns = (side // self.window for side in x.shape[-2:])
        summary = means.flatten(2).transpose(1, 2).unflatten(2, (rows, columns))
        return self._around(summary, self.heads)

    def _far_valid(self, valid: Tensor) -> Tensor:
        """(B, windows, 1, neighbors^2 - 1, 1): 1 where a window has a valid cell."""
        return self._around(F.max_pool2d(valid, self.window), 1)

    def _around(self, windows: Tensor, heads: int) -> Tensor:
        blocks = _blocks(windows, self.neighbors, 1, self.neighbors // 2, heads)
        return blocks[:, :, :, self.others]

    def _bias(self, dtype: torch.dtype) -> Tensor:
        """(H, L, S)"""
        near = self.near_bias[:, self.index]
        far = self.far_bias[:, None, self.others].expand(-1, near.shape[1], -1)
        return torch.cat([near, far], dim=2).to(dtype)


def _blocks(x: Tensor, side: int, step: int, border: int, heads: int) -> Tensor:
    """(B, N, H, side^2, D) of (B, C, h, w) maps: squares of `side`, a `step` apart, 0 outside."""
    columns = F.unfold(x, side, padding=border, stride=step)  # (B, C side^2, N)
    b, _, n = columns.shape
    return columns.view(b, heads, -1, side**2, n).permute(0, 4, 1, 3, 2)
