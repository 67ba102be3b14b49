"""Locally enhanced position encoding (CSWin, Dong et al., CVPR 2022) of the levels of a pyramid."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from matcher.attention.pyramid import MapSize, Pyramids, from_quad, to_quad


class LePE(nn.ModuleList):
    """A depthwise 3x3 convolution of the values of each level, to be added to its message.

    Args:
        channels: C of the map.
        levels: of the pyramid that are encoded, the finest ones.
    """

    def __init__(self, channels: int, levels: int) -> None:
        super().__init__(
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels) for _ in range(levels)
        )

    def forward(
        self, messages: Sequence[Tensor], pyramids: Pyramids, size: MapSize
    ) -> list[Tensor]:
        """The messages, with the encoding added to those of the finest `len(self)` levels.

        Args:
            messages: (B, H, N, D) one a level, coarsest first.
            pyramids: queries and keys of one grid; a masked value counts as 0.
            size: (h, w) of the finest level.
        """
        levels, heads = len(messages), messages[0].shape[1]
        encoded = list(messages)
        for level, conv in enumerate(self, start=levels - len(self)):
            mask, value = pyramids.masks[level], pyramids.values[level]
            if mask is not None:
                value = value.masked_fill(~mask[:, None, :, None], 0.0)
            shrink = 2 ** (levels - 1 - level)
            local = conv(from_quad(value, level + 1, (size[0] // shrink, size[1] // shrink)))
            encoded[level] = messages[level] + to_quad(local, level + 1, heads)
        return encoded
