"""RetinaNet: images of any size in, scores and boxes of all anchors out."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor, nn

from matcher.network.pyramid import Pyramid
from matcher.tasks.detection.anchors import all_anchors
from matcher.tasks.detection.config import ANCHORS, STRIDES, DetectorConfig
from matcher.tasks.detection.fpn import (
    FeaturePyramid,
    NamedConvolution,
    flat_mask,
    halved_masks,
    masked,
)

FIRST_SCORE = 0.01
"""Of every class before training, so that the many anchors of the background do not drown it."""


class RetinaHead(nn.Module):
    """Two towers of 3x3 convolutions with ReLU (RetinaNet, Lin et al., ICCV 2017)."""

    def __init__(self, channels: int, layers: int, classes: int) -> None:
        super().__init__()
        self.classes = classes
        towers = (
            nn.ModuleList(NamedConvolution(channels, channels, 3) for _ in range(layers))
            for _ in range(2)
        )
        self.cls_convs, self.reg_convs = towers
        self.retina_cls = nn.Conv2d(channels, ANCHORS * classes, 3, padding=1)
        self.retina_reg = nn.Conv2d(channels, ANCHORS * 4, 3, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(module.bias)  # pyright: ignore[reportArgumentType]
        bias = -math.log((1 - FIRST_SCORE) / FIRST_SCORE)
        nn.init.constant_(self.retina_cls.bias, bias)  # pyright: ignore[reportArgumentType]

    def forward(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Logits (B, h w 9, classes) and deltas (B, h w 9, 4) of a level.

        Args:
            x: (B, C, h, w).
            mask: (B, h, w) bool of valid cells, None means everywhere.
        """
        logits = self.retina_cls(_tower(self.cls_convs, x, mask))
        deltas = self.retina_reg(_tower(self.reg_convs, x, mask))
        return by_anchor(logits, self.classes), by_anchor(deltas, 4)


def by_anchor(x: Tensor, values: int) -> Tensor:
    """(B, h w A, values) of (B, A values, h, w), cell by cell in rows."""
    return x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, values)


def _tower(layers: nn.ModuleList, x: Tensor, mask: Tensor | None) -> Tensor:
    for layer in layers:
        x = masked(layer(x).relu(), mask)
    return x


class RetinaOutput(NamedTuple):
    """What the network says of a batch, a list entry a level from P3 to P7."""

    logits: list[Tensor]
    """(B, A, classes)"""
    deltas: list[Tensor]
    """(B, A, 4) as `boxes.encode` makes them"""
    anchors: list[Tensor]
    """(A, 4) pixels, corner origin"""
    valid: list[Tensor | None]
    """(B, A) bool of the anchors of cells that belong to the images, None means all"""


class RetinaNet(nn.Module):
    """RetinaNet (Lin et al., ICCV 2017) on a pyramid, with the names of the published files."""

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = Pyramid(config.backbone)
        self.neck = FeaturePyramid(config.backbone.dims[1:], config.channels)
        self.bbox_head = RetinaHead(config.channels, config.layers, len(config.names))

    def forward(self, image: Tensor, mask: Tensor | None = None) -> RetinaOutput:
        """Scores and boxes of all anchors.

        Args:
            image: (B, 3, H, W), normalized as in training.
            mask: (B, H, W) bool of pixels that belong to the images, each from the top left corner
                on; None means all. An image comes out as it would alone.
        """
        maps = self.backbone.features(image, mask)[1:]
        masks = halved_masks(None if mask is None else mask[:, ::8, ::8], len(STRIDES))
        levels = self.neck(maps, masks)
        found = [self.bbox_head(x, m) for x, m in zip(levels, masks, strict=True)]
        sizes = [(x.shape[2], x.shape[3]) for x in levels]
        anchors = all_anchors(sizes, STRIDES, self.config.anchor_size)
        return RetinaOutput(
            [logits for logits, _ in found],
            [deltas for _, deltas in found],
            [a.to(image.device) for a in anchors],
            [flat_mask(m, ANCHORS) for m in masks],
        )
