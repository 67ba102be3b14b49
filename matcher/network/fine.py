"""Sub-pixel refinement: correlate a cell's center with a window of the other fine map."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from matcher.attention.dense import LinearAttention
from matcher.config import FineConfig
from matcher.network.block import LoFTRBlock
from matcher.network.transformer import Transformer
from matcher.structures import CoarseMatches

CHUNK = 4096
"""Matches refined at a time, which bounds the memory of the windows."""
CPU_CHUNK = 512
"""The same on a CPU, whose caches hold the windows of so many."""
SHARPNESS = 20.0
"""Of correlations of directions, before it is learned."""


class FineMatcher(nn.Module):
    """Where, around the center of the matched cell of image 1, the center of the cell of image 0
    lies (LoFTR's fine stage).

    Args:
        config: windows and layers.
        coarse_dim, fine_dim: channels of the maps.
        ratio: fine cells to a coarse cell along a side.
    """

    def __init__(self, config: FineConfig, coarse_dim: int, fine_dim: int, ratio: int) -> None:
        super().__init__()
        self.window = config.window
        self.ratio = ratio
        self.local = config.local
        self.use_coarse = config.use_coarse
        if config.use_coarse:
            self.reduce_coarse = nn.Linear(coarse_dim, fine_dim)
            self.merge = nn.Linear(2 * fine_dim, fine_dim)
        self.transformer = Transformer(
            config.layers,
            [LoFTRBlock(fine_dim, LinearAttention(config.heads)) for _ in config.layers],
        )
        self.log_sharpness = (
            nn.Parameter(torch.tensor(math.log(SHARPNESS))) if config.normalize else None
        )

    def refine(
        self, fine0: Tensor, fine1: Tensor, coarse0: Tensor, coarse1: Tensor, matches: CoarseMatches
    ) -> tuple[Tensor, Tensor]:
        """Offset of each match in image 1 and how spread the correlation is.

        Args:
            fine0, fine1: (B, D, H/2, W/2) fine maps; sizes of the two images may differ.
            coarse0, coarse1: (B, C, H/8, W/8) maps after the transformer.
            matches: M matched cells.

        Returns:
            (M, 2) offset (x, y) and (M,) standard deviation, in half windows.
        """
        chunk = CPU_CHUNK if fine0.device.type == "cpu" else CHUNK
        refined: Sequence[tuple[Tensor, Tensor]] = [
            self.soft_argmax(self.correlate(fine0, fine1, coarse0, coarse1, *columns))
            for columns in zip(*(c.split(chunk) for c in matches[:3]), strict=True)
        ]
        offset, deviation = (torch.cat(column) for column in zip(*refined, strict=True))
        return offset, deviation

    def correlate(
        self,
        fine0: Tensor,
        fine1: Tensor,
        coarse0: Tensor,
        coarse1: Tensor,
        batch: Tensor,
        index0: Tensor,
        index1: Tensor,
    ) -> Tensor:
        """(M, W, W) log-probability in fp32 of where in the window of each match the center lies.

        Args:
            fine0, fine1, coarse0, coarse1: as in `refine`.
            batch, index0, index1: (M,) the matched cells.
        """
        window0 = self._window(fine0, coarse0, batch, index0, self.window if self._mixes else 1)
        window1 = self._window(fine1, coarse1, batch, index1, self.window)
        if self._mixes:
            window0, window1 = self.transformer(window0, window1)
        middle = window0.shape[-1] // 2
        center = window0[:, :, middle, middle]
        if self.log_sharpness is None:
            scale = center.shape[1] ** -0.5
        else:
            scale = self.log_sharpness.exp()
            center, window1 = (F.normalize(x.float(), dim=1) for x in (center, window1))
        scores = (center[:, :, None, None] * window1).sum(dim=1).float() * scale
        return scores.flatten(1).log_softmax(dim=1).view_as(scores)

    def soft_argmax(self, log_heatmap: Tensor) -> tuple[Tensor, Tensor]:
        """Offset (M, 2) and standard deviation (M,) of (M, W, W) heatmaps, in half windows."""
        if self.local:
            near = near_best(log_heatmap, self.local)
            log_heatmap = near.flatten(1).log_softmax(1).view_as(near)
        return expectation(log_heatmap.exp())

    @property
    def _mixes(self) -> bool:
        return len(self.transformer.blocks) > 0

    def _window(
        self, fine: Tensor, coarse: Tensor, batch: Tensor, index: Tensor, side: int
    ) -> Tensor:
        """(M, D, side, side) around the centers of cells `index`, zeros outside of the map."""
        columns = coarse.shape[-1]
        row = index // columns
        column = index - row * columns
        reach = torch.arange(side, device=fine.device) - side // 2
        y = row[:, None, None] * self.ratio + reach[None, :, None]
        x = column[:, None, None] * self.ratio + reach[None, None, :]
        h, w = fine.shape[-2:]
        inside = (y >= 0) & (y < h) & (x >= 0) & (x < w)
        flat = (batch[:, None, None] * h + y.clamp(0, h - 1)) * w + x.clamp(0, w - 1)
        rows = fine.permute(0, 2, 3, 1).reshape(-1, fine.shape[1])
        window = rows.index_select(0, flat.flatten()).view(*flat.shape, fine.shape[1])
        window = window * inside[..., None]
        if self.use_coarse:
            cell = coarse.permute(0, 2, 3, 1)[batch, row, column]
            of_window, of_cell = self.merge.weight.chunk(2, dim=1)
            cell = F.linear(self.reduce_coarse(cell), of_cell, self.merge.bias)
            window = F.linear(window, of_window) + cell[:, None, None]
        return window.permute(0, 3, 1, 2)


def near_best(log_heatmap: Tensor, reach: int) -> Tensor:
    """(M, W, W) maps, -inf farther than `reach` samples from the largest along x or y."""
    side = log_heatmap.shape[-1]
    best = log_heatmap.flatten(1).argmax(dim=1)
    axis = torch.arange(side, device=log_heatmap.device)
    rows, columns = ((axis - at[:, None]).abs() <= reach for at in (best // side, best % side))
    return log_heatmap.masked_fill(~(rows[:, :, None] & columns[:, None, :]), -math.inf)


def expectation(heatmap: Tensor) -> tuple[Tensor, Tensor]:
    """Mean position and standard deviation of (M, W, W) distributions over a window.

    Returns:
        (M, 2) mean (x, y) in [-1, 1] and (M,) sum of the deviations along x and y.
    """
    side = heatmap.shape[-1]
    axis = torch.linspace(-1, 1, side, device=heatmap.device, dtype=heatmap.dtype)
    along = torch.stack([heatmap.sum(dim=1), heatmap.sum(dim=2)], dim=1)  # (M, 2, W): x, y
    mean = (along * axis).sum(dim=2)
    variance = (along * axis**2).sum(dim=2) - mean**2
    return mean, variance.clamp(min=1e-10).sqrt().sum(dim=1)
