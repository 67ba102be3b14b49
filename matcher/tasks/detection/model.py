"""RetinaNet: images of any size in, scores and boxes of all anchors out."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from matcher.network.pyramid import Pyramid
from matcher.tasks.detection.anchors import all_anchors
from matcher.tasks.detection.config import ANCHORS, STRIDES, DetectorConfig
from matcher.tasks.detection.fpn import FeaturePyramid, flat_mask, halved_masks
from matcher.tasks.detection.head import RetinaHead


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
