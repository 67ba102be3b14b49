"""Interleaved self- and cross-attention layers over the coarse maps of two images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from matcher.attention import KINDS
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
        if self._can_be_together(x0, x1):
            return self._together(x0, x1, mask0, mask1)
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

    def _can_be_together(self, x0: Tensor, x1: Tensor) -> bool:
        if torch.compiler.is_exporting():  # for any sizes
            return False
        few = x0[:, 0].numel() <= TOGETHER_CELLS
        return few and x0.shape == x1.shape and all(b.simultaneous for b in self.blocks)

    def _together(
        self, x0: Tensor, x1: Tensor, mask0: Tensor | None, mask1: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """`forward` with both images in one batch."""
        mask = swapped = None
        if mask0 is not None or mask1 is not None:
            everywhere = torch.ones_like(x0[:, 0], dtype=torch.bool)
            mask0, mask1 = (everywhere if m is None else m for m in (mask0, mask1))
            mask, swapped = torch.cat([mask0, mask1]), torch.cat([mask1, mask0])
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
    kinds = [config.attention_of(name) for name in config.layers]
    attentions = [
        KINDS[kind].from_config(config, channels, layer) for layer, kind in enumerate(kinds)
    ]
    if config.block == "loftr":
        blocks = [LoFTRBlock(channels, attention) for attention in attentions]
    else:
        blocks = [QuadTreeBlock(channels, attention, config.mlp_ratio) for attention in attentions]
    return Transformer(config.layers, blocks)
