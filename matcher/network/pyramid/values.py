"""The published value branch: convolutions that make the values of each coarser level."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ACTIVATIONS = {"gelu": nn.GELU, "relu": nn.ReLU}


class MapNorm(nn.GroupNorm):
    """Group normalization of one group whose statistics leave out what is masked.

    Equal to PyTorch's where nothing is. As published, an image depends on how far it is padded.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(1, channels)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, C, h, w) maps; (B, h, w) bool of valid cells. Masked cells become 0."""
        if mask is None:
            return super().forward(x)
        valid = mask[:, None]
        count = (mask.sum(dim=(1, 2)) * x.shape[1]).clamp(min=1).view(-1, 1, 1, 1)
        kept = x.masked_fill(~valid, 0.0)
        mean = kept.sum(dim=(1, 2, 3), keepdim=True) / count
        centered = (kept - mean).masked_fill(~valid, 0.0)
        variance = centered.square().sum(dim=(1, 2, 3), keepdim=True) / count
        scale = self.weight.view(-1, 1, 1) * torch.rsqrt(variance + self.eps)
        return (centered * scale + self.bias.view(-1, 1, 1)).masked_fill(~valid, 0.0)


class ValueBranch(nn.Sequential):
    """The values of a level from those of the next finer one."""

    def __init__(self, channels: int, activation: Literal["gelu", "relu"]) -> None:
        act = ACTIVATIONS[activation]
        super().__init__(
            MapNorm(channels),
            act(),
            nn.Conv2d(channels, channels, 2, stride=2),
            MapNorm(channels),
            act(),
            nn.Conv2d(channels, channels, 1),
        )

    def forward(
        self, x: Tensor, fine: Tensor | None = None, coarse: Tensor | None = None
    ) -> Tensor:
        """(B, C, h / 2, w / 2) of (B, C, h, w) values.

        Args:
            x: values of the finer level.
            fine: (B, h, w) bool of its valid cells, None means everywhere.
            coarse: (B, h / 2, w / 2) likewise of the result.
        """
        norm0, act0, halve, norm1, act1, mix = self
        # Both activations keep the 0 of masked cells, so that they add nothing to a block.
        return mix(act1(norm1(halve(act0(norm0(x, fine))), coarse)))


def mask_levels(mask: Tensor | None, levels: int) -> list[Tensor | None]:
    """(B, h, w) masks of the levels of a map, finest first: a cell is valid if any child is."""
    masks = [mask]
    for _ in range(levels - 1):
        last = masks[-1]
        masks.append(None if last is None else F.max_pool2d(last[:, None].float(), 2)[:, 0] > 0)
    return masks
