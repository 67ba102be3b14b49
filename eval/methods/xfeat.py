"""The network of XFeat (Potje et al., CVPR 2024), its batch norms folded into the convolutions."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CELL = 8
"""Pixels a side of a cell of the feature map."""


class XFeatMaps(NamedTuple):
    """What the network sees in (B, 1, H, W), H and W multiples of 32."""

    features: Tensor
    """(B, 64, H/8, W/8), of any length"""
    logits: Tensor
    """(B, 65, H/8, W/8): which of the 64 pixels of a cell, row by row, is a keypoint; last: none"""
    reliability: Tensor
    """(B, 1, H/8, W/8) in [0, 1]"""


class Conv(nn.Conv2d):
    """A convolution of odd size that keeps the edges, and ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, kernel // 2)

    def forward(self, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return F.relu(super().forward(x), inplace=True)


class XFeatNet(nn.Module):
    """Features and keypoints of gray images; state as in the published network, folded."""

    channels = 64

    def __init__(self) -> None:
        super().__init__()
        self.block1 = nn.Sequential(Conv(1, 4), Conv(4, 8, 3, 2), Conv(8, 8), Conv(8, 24, 3, 2))
        self.skip1 = nn.Sequential(nn.AvgPool2d(4), nn.Conv2d(1, 24, 1))
        self.block2 = nn.Sequential(Conv(24, 24), Conv(24, 24))
        self.block3 = nn.Sequential(Conv(24, 64, 3, 2), Conv(64, 64), Conv(64, 64, 1))
        self.block4 = nn.Sequential(Conv(64, 64, 3, 2), Conv(64, 64), Conv(64, 64))
        self.block5 = nn.Sequential(
            Conv(64, 128, 3, 2), Conv(128, 128), Conv(128, 128), Conv(128, 64, 1)
        )
        self.block_fusion = nn.Sequential(Conv(64, 64), Conv(64, 64), nn.Conv2d(64, 64, 1))
        self.heatmap_head = nn.Sequential(Conv(64, 64, 1), Conv(64, 64, 1), nn.Conv2d(64, 1, 1))
        self.keypoint_head = nn.Sequential(
            Conv(64, 64, 1), Conv(64, 64, 1), Conv(64, 64, 1), nn.Conv2d(64, 65, 1)
        )

    def forward(self, image: Tensor) -> XFeatMaps:
        x = normalized(image)
        features = self._features(x)
        logits = self.keypoint_head(F.pixel_unshuffle(x, CELL))
        return XFeatMaps(features, logits, self.heatmap_head(features).sigmoid())

    def features(self, image: Tensor) -> Tensor:
        """(B, 64, H/8, W/8) features alone of (B, 1, H, W) gray values."""
        return self._features(normalized(image))

    def _features(self, x: Tensor) -> Tensor:
        eighth = self.block3(self.block2(self.block1(x) + self.skip1(x)))
        sixteenth = self.block4(eighth)
        size = list(eighth.shape[-2:])
        context = enlarged(sixteenth, size) + enlarged(self.block5(sixteenth), size)
        return self.block_fusion(eighth + context)


def normalized(image: Tensor) -> Tensor:
    """Each image of a batch with mean 0 and deviation 1."""
    variance, mean = torch.var_mean(image, dim=(1, 2, 3), keepdim=True, correction=0)
    return (image - mean) / torch.sqrt(variance + 1e-5)


def enlarged(x: Tensor, size: list[int]) -> Tensor:
    return F.interpolate(x, size, mode="bilinear", align_corners=False)
