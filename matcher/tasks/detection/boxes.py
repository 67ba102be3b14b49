"""Boxes (x0, y0, x1, y1) in pixels with the origin at the corner of the first one.

Everything that the network and its training do with boxes is in this convention, in which a box
that covers W x H pixels ends at W and H.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

MAX_LOG = math.log(1000 / 16)
"""How much larger or smaller than its anchor a box can come out, as a logarithm."""
ROWS = 1024
"""Rows of a table of overlaps that are made at a time."""


def box_area(boxes: Tensor) -> Tensor:
    """(...) areas of (..., 4) boxes."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def box_iou(boxes0: Tensor, boxes1: Tensor) -> Tensor:
    """(N, M) intersection over union of (N, 4) and (M, 4) boxes; 0 where both are empty."""
    low = torch.maximum(boxes0[:, None, :2], boxes1[None, :, :2])
    high = torch.minimum(boxes0[:, None, 2:], boxes1[None, :, 2:])
    both = (high - low).clamp(min=0).prod(dim=2)
    either = box_area(boxes0)[:, None] + box_area(boxes1) - both
    return both / either.clamp(min=1e-9)


def encode(boxes: Tensor, anchors: Tensor) -> Tensor:
    """(N, 4) deltas that take (N, 4) anchors to (N, 4) boxes: centers in sizes of the anchor, and
    logarithms of the sizes (R-CNN, Girshick et al., CVPR 2014)."""
    center, size = _center_size(boxes)
    anchor_center, anchor_size = _center_size(anchors)
    return torch.cat([(center - anchor_center) / anchor_size, (size / anchor_size).log()], dim=-1)


def decode(deltas: Tensor, anchors: Tensor) -> Tensor:
    """(..., 4) boxes of (..., 4) deltas; sizes change by a factor of 1000 / 16 at most."""
    anchor_center, anchor_size = _center_size(anchors)
    center = anchor_center + deltas[..., :2] * anchor_size
    half = anchor_size * deltas[..., 2:].clamp(-MAX_LOG, MAX_LOG).exp() / 2
    return torch.cat([center - half, center + half], dim=-1)


def clip(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """(..., 4) boxes without what lies outside of an image of (height, width)."""
    height, width = size
    return boxes.clamp(min=0).minimum(boxes.new_tensor([width, height, width, height]))


def nms(boxes: Tensor, scores: Tensor, threshold: float = 0.5) -> Tensor:
    """(K,) indices of the boxes that no better one of those kept overlaps by more, best first.

    Args:
        boxes: (N, 4) of one class.
        scores: (N,); the first one of equals is better.
        threshold: largest intersection over union of two that are kept.
    """
    order = scores.argsort(descending=True, stable=True)
    covers = _covers(boxes[order], threshold).numpy(force=True)
    kept = np.ones(len(covers), bool)
    for i, row in enumerate(covers):
        if kept[i]:
            kept &= ~row
    return order[torch.from_numpy(kept).to(order.device)]


def _covers(boxes: Tensor, threshold: float) -> Tensor:
    """(N, N) bool: whether a box, in a row, is before another one and overlaps it by more."""
    parts = [box_iou(rows, boxes) > threshold for rows in boxes.split(ROWS)]
    return torch.cat(parts).triu(diagonal=1) if parts else boxes.new_zeros(0, 0).bool()


def _center_size(boxes: Tensor) -> tuple[Tensor, Tensor]:
    low, high = boxes[..., :2], boxes[..., 2:]
    return (low + high) / 2, high - low
