"""Which anchor is to find which true box; focal loss of the classes and L1 of the boxes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from matcher.tasks.detection.boxes import box_iou, encode
from matcher.tasks.detection.model import RetinaOutput
from matcher.tasks.detection.structures import DetectionBatch

POSITIVE, NEGATIVE = 0.5, 0.4
"""Overlap from which an anchor has to find a box, and below which there is none for it."""
ROUNDING = 1e-6
"""Difference of overlaps that count as equal."""
BACKGROUND, IGNORED = -1, -2
GAMMA, ALPHA = 2.0, 0.25


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


def focal_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Sum of the focal loss (Lin et al., ICCV 2017).

    Args:
        logits: (N, classes).
        targets: (N, classes) 1 for what is shown, else 0.
    """
    wrong = torch.where(targets > 0, -logits, logits)
    weight = torch.where(targets > 0, ALPHA, 1 - ALPHA)
    return (weight * wrong.sigmoid() ** GAMMA * F.softplus(wrong)).sum()


def detection_loss(output: RetinaOutput, batch: DetectionBatch) -> dict[str, Tensor]:
    """The terms ``classes`` and ``boxes``, each over the positive anchors of the whole batch."""
    logits = torch.cat(output.logits, dim=1).float()
    deltas = torch.cat(output.deltas, dim=1).float()
    anchors = torch.cat(output.anchors)
    assigned = assignments(output, batch)
    focal, distance, positives = logits.sum() * 0, deltas.sum() * 0, 0
    for b, numbers in enumerate(assigned):
        of_image = batch.index == b
        boxes, classes = batch.boxes[of_image], batch.classes[of_image]
        positive, used = numbers >= 0, numbers >= BACKGROUND
        targets = torch.zeros_like(logits[b])
        targets[positive, classes[numbers[positive]]] = 1.0
        focal = focal + focal_loss(logits[b][used], targets[used])
        wanted = encode(boxes[numbers[positive]], anchors[positive])
        distance = distance + (deltas[b][positive] - wanted).abs().sum()
        positives += int(positive.sum())
    return {"classes": focal / max(1, positives), "boxes": distance / max(1, positives)}


def assignments(output: RetinaOutput, batch: DetectionBatch) -> list[Tensor]:
    """(A,) of `assign` for the anchors of all levels, for each image."""
    anchors, valid = torch.cat(output.anchors), joined(output.valid)
    count = output.logits[0].shape[0]
    return [
        assign(anchors, batch.boxes[batch.index == b], None if valid is None else valid[b])
        for b in range(count)
    ]


def joined(valid: Sequence[Tensor | None]) -> Tensor | None:
    """(B, A) of all levels."""
    parts = [part for part in valid if part is not None]
    return torch.cat(parts, dim=1) if parts else None
