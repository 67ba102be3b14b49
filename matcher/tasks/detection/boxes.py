"""Boxes (x0, y0, x1, y1) in pixels with the origin at the corner of the first one.

Everything that the network and its training do with boxes is in this convention, in which a box
that covers W x H pixels ends at W and H.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

MAX_LOG = math.log(1000 / 16)
"""How much larger or smaller than its anchor a box can come out, as a logarithm."""


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


def nms(boxes: Tensor, scores: Tensor, threshold: float = 0.5, most: int | None = None) -> Tensor:
    """(K,) indices of the boxes that no better one of those kept overlaps by more, best first.

    Args:
        boxes: (N, 4) of one class.
        scores: (N,); the first one of equals is better.
        threshold: largest intersection over union of two that are kept.
        most: how many are kept at most; None means all.
    """
    left, kept = scores.argsort(descending=True, stable=True), []
    while len(left) and len(kept) != most:
        best, left = left[:1], left[1:]
        kept.append(best)
        left = left[box_iou(boxes[best], boxes[left])[0] <= threshold]
    return torch.cat(kept) if kept else left


def _center_size(boxes: Tensor) -> tuple[Tensor, Tensor]:
    low, high = boxes[..., :2], boxes[..., 2:]
    return (low + high) / 2, high - low
