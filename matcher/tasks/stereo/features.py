"""Features of both views: a small ResNet pyramid, then self- and row cross-attention at 1/4."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from matcher.attention.quadtree import QuadTreeAttention
from matcher.network.backbone import LeanMerge, ResidualBlock, conv1x1
from matcher.network.block import QuadTreeBlock
from matcher.tasks.stereo.config import StereoConfig
from matcher.tasks.stereo.rows import build_row_attention


class ViewFeatures(NamedTuple):
    """Maps of one view, or of both stacked along the batch, left first."""

    coarse: Tensor
    """(B, C, H/4, W/4); cell i is centered on pixel 4i"""
    fine: Tensor
    """(B, F, H/2, W/2); cell i is centered on pixel 2i"""


class StereoBackbone(nn.Module):
    """An image to maps at 1/4 and 1/2 that have seen 1/8."""

    def __init__(self, config: StereoConfig) -> None:
        super().__init__()
        fine, coarse, deep = config.fine_channels, config.channels, config.deep_channels
        self.stem = nn.Conv2d(1, fine, 7, stride=2, padding=3, bias=False)
        self.stem_norm = nn.BatchNorm2d(fine)
        self.to_half = ResidualBlock(fine, fine, 1)
        self.to_quarter = nn.Sequential(
            ResidualBlock(fine, coarse, 2), ResidualBlock(coarse, coarse, 1)
        )
        self.to_eighth = nn.Sequential(ResidualBlock(coarse, deep, 2), ResidualBlock(deep, deep, 1))
        self.output = conv1x1(deep, deep)
        self.merges = nn.ModuleList([LeanMerge(deep, coarse), LeanMerge(coarse, fine)])
        self.apply(_initialize)

    def forward(self, image: Tensor) -> ViewFeatures:
        """(B, 1, H, W) gray in [0, 1]; H and W divisible by 8."""
        half = self.to_half(F.relu(self.stem_norm(self.stem(image)), inplace=True))
        quarter = self.to_quarter(half)
        coarse = self.merges[0](self.output(self.to_eighth(quarter)), quarter)
        return ViewFeatures(coarse, self.merges[1](coarse, half))


class StereoTransformer(nn.Module):
    """Alternating 2-D self-attention and row cross-attention, the same weights for both views.

    There is no position encoding: the convolution in each block's MLP gives locality, and absolute
    columns would not carry over to wider images.
    """

    def __init__(self, config: StereoConfig) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()
        for _ in range(config.layers):
            within = QuadTreeAttention(config.heads, config.self_topks, "B")
            for attention in (within, build_row_attention(config)):
                self.blocks.append(QuadTreeBlock(config.channels, attention, config.mlp_ratio))

    def forward(self, both: Tensor, mask: Tensor | None) -> Tensor:
        """(2B, C, h, w) maps of the left views, then of the right ones; (2B, h, w) valid cells."""
        for number, block in enumerate(self.blocks):
            if number % 2 == 0:
                both = block(both, both, mask, mask)
            else:
                swapped = None if mask is None else mask.roll(len(mask) // 2, dims=0)
                both = block(both, torch.cat(both.chunk(2)[::-1]), mask, swapped)
        return both


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
