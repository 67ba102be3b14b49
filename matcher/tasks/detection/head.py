"""RetinaNet's head: what each anchor shows and where it should be, the same at every level."""

from __future__ import annotations

import math

from torch import Tensor, nn

from matcher.tasks.detection.config import ANCHORS
from matcher.tasks.detection.fpn import NamedConvolution, masked

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
