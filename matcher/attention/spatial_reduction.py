"""PVT's attention (Wang et al., ICCV 2021): all queries, and keys of blocks of cells."""

from __future__ import annotations

from typing import Self

import torch.nn.functional as F
from torch import Tensor, nn

from matcher.attention.dense import FullAttention
from matcher.config import TransformerConfig


class SpatialReductionAttention(FullAttention):
    """Full attention to a map of which `reduce` has made a smaller one.

    The reduction acts before keys and values are projected, so the block calls it. It costs
    ratio^2 C^2 parameters.

    Args:
        channels: C.
        heads: H.
        ratio: side in cells of the blocks; 1: nothing is reduced.
    """

    def __init__(self, channels: int, heads: int, ratio: int) -> None:
        super().__init__(heads)
        self.ratio = ratio
        if ratio > 1:
            self.convolution = nn.Conv2d(channels, channels, ratio, stride=ratio)
            self.norm = nn.LayerNorm(channels)

    @classmethod
    def from_config(cls, config: TransformerConfig, channels: int, layer: int) -> Self:
        """The attention of a layer."""
        return cls(channels, config.heads, config.reduction)

    def reduce(self, tokens: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """(B, ceil h / ratio, ceil w / ratio, C) of (B, h, w, C) tokens, and their mask.

        Masked tokens count as 0; a block is valid if any of its tokens is.

        Args:
            mask: (B, h, w) bool of valid tokens, None means everywhere.
        """
        if self.ratio == 1:
            return tokens, mask
        x = tokens.permute(0, 3, 1, 2)
        h, w = x.shape[-2:]
        border = (0, -w % self.ratio, 0, -h % self.ratio)
        if mask is not None:
            x = x.masked_fill(~mask[:, None], 0.0)
            blocks = F.pad(mask, border).unflatten(2, (-1, self.ratio)).any(dim=3)
            mask = blocks.unflatten(1, (-1, self.ratio)).any(dim=2)
        if any(border):
            x = F.pad(x, border)
        return self.norm(self.convolution(x).permute(0, 2, 3, 1)), mask
