"""Interleaved self- and cross-attention layers over the coarse maps of two images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from matcher.attention import build_attention
from matcher.attention.record import Place
from matcher.config import TransformerConfig
from matcher.network.block import AttentionBlock, LoFTRBlock, QuadTreeBlock

TOGETHER_CELLS = 128 * 128
"""Up to so many cells an image, both images go through a layer as one batch: that saves calls.
Beyond, it would only take twice the memory."""


class Transformer(nn.Module):
    """Alternating self and cross layers, with the same weights for both images.

    A self layer updates each image alone. A cross layer of QuadTree blocks updates both images
    from their old values; one of LoFTR blocks updates image 1 from the new image 0: both as
    published.
    """

    def __init__(self, names: Sequence[str], blocks: Sequence[AttentionBlock]) -> None:
        super().__init__()
        self.names = tuple(names)
        self.blocks = nn.ModuleList(blocks)

    def forward(
        self, x0: Tensor, x1: Tensor, mask0: Tensor | None = None, mask1: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The maps of both images after all layers.

        Args:
            x0: (B, C, h0, w0); x1: (B, C, h1, w1).
            mask0: (B, h0, w0) bool of valid cells, None means everywhere; mask1 likewise.
        """
        few = x0[:, 0].numel() <= TOGETHER_CELLS
        if few and x0.shape == x1.shape and all(block.simultaneous for block in self.blocks):
            return self._together(x0, x1, _stack_masks(x0, mask0, x1, mask1))
        for layer, name, block in self._layers():
            if name == "self":
                x0 = block(x0, x0, mask0, mask0, Place(layer, ("0",)))
                x1 = block(x1, x1, mask1, mask1, Place(layer, ("1",)))
            else:
                new0 = block(x0, x1, mask0, mask1, Place(layer, ("0to1",)))
                source = x0 if block.simultaneous else new0
                x1 = block(x1, source, mask1, mask0, Place(layer, ("1to0",)))
                x0 = new0
        return x0, x1

    def _together(self, x0: Tensor, x1: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """`forward` with both images in one batch."""
        swapped = None if mask is None else mask.roll(len(x0), dims=0)
        both = torch.cat([x0, x1])
        for layer, name, block in self._layers():
            if name == "self":
                both = block(both, both, mask, mask, Place(layer, ("0", "1")))
            else:
                others = torch.cat(both.chunk(2)[::-1])
                both = block(both, others, mask, swapped, Place(layer, ("0to1", "1to0")))
        x0, x1 = both.chunk(2)
        return x0, x1

    def _layers(self) -> list[tuple[int, str, nn.Module]]:
        blocks = zip(self.names, self.blocks, strict=True)
        return [(layer, name, block) for layer, (name, block) in enumerate(blocks)]


def build_transformer(config: TransformerConfig, channels: int) -> Transformer:
    """The coarse transformer."""
    blocks: list[AttentionBlock] = []
    for name in config.layers:
        attention = build_attention(config, channels, name)
        if config.block == "loftr":
            blocks.append(LoFTRBlock(channels, attention))
        else:
            blocks.append(QuadTreeBlock(channels, attention, config.mlp_ratio))
    return Transformer(config.layers, blocks)


def _stack_masks(
    x0: Tensor, mask0: Tensor | None, x1: Tensor, mask1: Tensor | None
) -> Tensor | None:
    """(2B, h, w) masks of both images, None if everything is valid."""
    if mask0 is None and mask1 is None:
        return None
    return torch.cat([_everywhere(x) if m is None else m for x, m in ((x0, mask0), (x1, mask1))])


def _everywhere(x: Tensor) -> Tensor:
    b, _, h, w = x.shape
    return torch.ones(b, h, w, dtype=torch.bool, device=x.device)
