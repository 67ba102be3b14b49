"""2-D sine position encoding, in its published and its legacy form."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from matcher.config import PositionConfig


def sine_encoding(rows: Tensor, columns: Tensor, channels: int, variant: str = "fixed") -> Tensor:
    """Encode cell positions: channels 4i to 4i + 3 hold sin x, cos x, sin y, cos y.

    Args:
        rows: (h,) row positions, counted from 1.
        columns: (w,) column positions, counted from 1.
        channels: C, divisible by 4.
        variant: ``fixed`` uses frequencies 10000^(-2i / (C / 2)); ``legacy`` uses e^(-2i), the
            rounding slip of the first LoFTR code that its released weights were trained with.

    Returns:
        (C, h, w) float32.
    """
    step = torch.arange(0, channels // 2, 2, dtype=torch.float32, device=rows.device)
    rate = -math.log(10000.0) / (channels // 2) if variant == "fixed" else -1.0
    frequency = torch.exp(step * rate)[:, None]
    h, w = rows.shape[0], columns.shape[0]
    x = (frequency * columns[None].float())[:, None, :].expand(-1, h, w)
    y = (frequency * rows[None].float())[:, :, None].expand(-1, h, w)
    return torch.stack([x.sin(), x.cos(), y.sin(), y.cos()], dim=1).flatten(0, 1)


class PositionEncoding(nn.Module):
    """Add the position of each cell, computed on demand for any size.

    While training, `PositionConfig.shift` moves the origin by a random number of cells (shifted
    absolute position embedding, Kiyono et al., EMNLP 2021), so that small training images prepare
    for large ones.
    """

    def __init__(self, config: PositionConfig) -> None:
        super().__init__()
        self.config = config

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) map, the same with its position added."""
        if self.config.variant == "none":
            return x
        channels, h, w = x.shape[1:]
        row = column = 1
        if self.training and self.config.shift:
            row, column = torch.randint(1, self.config.shift + 2, (2,)).tolist()
        rows = torch.arange(row, row + h, device=x.device)
        columns = torch.arange(column, column + w, device=x.device)
        encoding = sine_encoding(rows, columns, channels, self.config.variant)
        return x + encoding.to(x.dtype)
