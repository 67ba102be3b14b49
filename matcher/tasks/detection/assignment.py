"""Which anchor has to find which true box."""

from __future__ import annotations

import torch
from torch import Tensor

from matcher.tasks.detection.boxes import box_iou

POSITIVE, NEGATIVE = 0.5, 0.4
"""Overlap from which an anchor has to find a box, and below which there is none for it."""
ROUNDING = 1e-6
"""Difference of overlaps that count as equal."""
BACKGROUND, IGNORED = -1, -2


def assign(anchors: Tensor, boxes: Tensor, valid: Tensor | None = None) -> Tensor:
    """(A,) number of the true box of each anchor, `BACKGROUND`, or `IGNORED`.

    An anchor belongs to the box that it overlaps most, if that is by 0.5 or more, and to none below
    0.4 (RetinaNet, Lin et al., ICCV 2017). The best anchors of a box, all that are equal, belong to
    it whatever their overlap, above 0; the last one of several such boxes counts.

    Args:
        anchors: (A, 4).
        boxes: (N, 4) true boxes of the image.
        valid: (A,) bool of anchors that lie in the image; others are ignored. None means all.
    """
    if not len(boxes):
        out = torch.full_like(anchors[:, 0], BACKGROUND, dtype=torch.int64)
        return out if valid is None else out.masked_fill(~valid, IGNORED)
    overlap = box_iou(anchors, boxes)
    if valid is not None:
        overlap = overlap.masked_fill(~valid[:, None], -1.0)
    most, number = overlap.max(dim=1)
    out = torch.where(most >= POSITIVE, number, IGNORED)
    out = out.masked_fill((most >= 0) & (most < NEGATIVE), BACKGROUND)
    best = overlap.amax(dim=0)
    numbers = torch.arange(len(boxes), device=boxes.device)
    # Anchors of one size around a small box overlap it equally, but for rounding.
    chosen = torch.where((overlap >= best - ROUNDING) & (best > 0), numbers, -1).amax(dim=1)
    return torch.where(chosen >= 0, chosen, out)
