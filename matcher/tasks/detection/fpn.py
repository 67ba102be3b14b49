"""The feature pyramid: five maps of one width from the last three of a backbone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

Masks = Sequence[Tensor | None]


class NamedConvolution(nn.Module):
    """A convolution, a level of names deeper as in published files."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class FeaturePyramid(nn.Module):
    """P3 to P7 (FPN, Lin et al., CVPR 2017): P6 from the backbone's last map, no ReLU before P7.

    Args:
        dims: channels of the backbone's maps at 1/8, 1/16 and 1/32.
        channels: of the result.
    """

    def __init__(self, dims: Sequence[int], channels: int) -> None:
        super().__init__()
        self.lateral_convs = nn.ModuleList(NamedConvolution(dim, channels, 1) for dim in dims)
        outputs = [NamedConvolution(channels, channels, 3) for _ in dims]
        outputs += [
            NamedConvolution(dims[-1], channels, 3, stride=2),
            NamedConvolution(channels, channels, 3, stride=2),
        ]
        self.fpn_convs = nn.ModuleList(outputs)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, maps: Sequence[Tensor], masks: Masks) -> list[Tensor]:
        """Five maps (B, C, h, w), each half of the one before, rounded up.

        Args:
            maps: three of the backbone, 0 outside of the images.
            masks: (B, h, w) bool of valid cells of the five maps, None means everywhere.
        """
        merged = [
            masked(conv(x), mask)
            for conv, x, mask in zip(self.lateral_convs, maps, masks, strict=False)
        ]
        for i in range(len(maps) - 1, 0, -1):
            above = doubled(merged[i], merged[i - 1].shape[-2:])
            merged[i - 1] = masked(merged[i - 1] + above, masks[i - 1])
        *fine, p6, p7 = self.fpn_convs
        out = [conv(x) for conv, x in zip(fine, merged, strict=True)]
        out.append(p6(maps[-1]))
        out.append(p7(masked(out[-1], masks[3])))
        return [masked(x, mask) for x, mask in zip(out, masks, strict=True)]


def masked(x: Tensor, mask: Tensor | None) -> Tensor:
    """(B, C, h, w) maps, 0 where a (B, h, w) mask is false."""
    return x if mask is None else x.masked_fill(~mask[:, None], 0.0)


def doubled(x: Tensor, size: Sequence[int]) -> Tensor:
    """(B, C, h, w) of `size`: each cell repeated, what is too much left out."""
    big = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    return big[:, :, : size[0], : size[1]]


def halved_masks(mask: Tensor | None, count: int) -> list[Tensor | None]:
    """A (B, h, w) mask and those of the next levels: a cell is valid if its first child is."""
    masks = [mask]
    while len(masks) < count:
        last = masks[-1]
        masks.append(None if last is None else last[:, ::2, ::2])
    return masks


def flat_mask(mask: Tensor | None, anchors: int) -> Tensor | None:
    """(B, h w A) bool of the anchors of a level."""
    return None if mask is None else torch.flatten(mask, 1).repeat_interleave(anchors, dim=1)
