"""Attention between two maps, of several kinds behind one interface, chosen by name."""

from __future__ import annotations

from torch import nn

from matcher.attention.dense import DenseAttention
from matcher.attention.quadtree import QuadTreeAttention
from matcher.config import TransformerConfig


def build_attention(config: TransformerConfig, channels: int, layer: str) -> nn.Module:
    """The attention of one ``self`` or ``cross`` layer."""
    if config.attention != "quadtree":
        return DenseAttention(config.heads, config.attention)
    return QuadTreeAttention(
        channels,
        config.heads,
        config.topks,
        config.variant,
        coarsest_cells=config.coarsest_cells,
    )
