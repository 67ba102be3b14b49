"""Anchors: the boxes from which a detector starts, nine around each cell of each level."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from matcher.tasks.detection.config import RATIOS, SCALES


def cell_anchors(side: float) -> Tensor:
    """(9, 4) boxes around (0, 0), ratio by ratio, the smallest first; `side` in pixels."""
    ratio = torch.tensor(RATIOS, dtype=torch.float64)[:, None]
    size = side * torch.tensor(SCALES, dtype=torch.float64)
    width, height = (size / ratio.sqrt()).flatten() / 2, (size * ratio.sqrt()).flatten() / 2
    return torch.stack([-width, -height, width, height], dim=1).float()


def level_anchors(size: tuple[int, int], stride: int, anchor_size: float) -> Tensor:
    """(h w 9, 4) boxes of a level of (h, w) `size`, cell by cell in rows.

    Those of cell (row i, column j) are centered on (j, i) times `stride` and not rounded.

    Args:
        size: cells of the level.
        stride: pixels of a cell.
        anchor_size: side of the smallest anchor in cells.
    """
    y, x = (torch.arange(n, dtype=torch.float32) * stride for n in size)
    rows, columns = torch.meshgrid(y, x, indexing="ij")
    centers = torch.stack([columns, rows, columns, rows], dim=2)
    return (centers[:, :, None] + cell_anchors(anchor_size * stride)).reshape(-1, 4)


def all_anchors(
    sizes: Sequence[tuple[int, int]], strides: Sequence[int], anchor_size: float
) -> list[Tensor]:
    """The anchors of each level."""
    return [level_anchors(*level, anchor_size) for level in zip(sizes, strides, strict=True)]
