"""Focal loss of the classes and L1 of the boxes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from matcher.tasks.detection.assignment import BACKGROUND, assign
from matcher.tasks.detection.boxes import encode
from matcher.tasks.detection.model import RetinaOutput
from matcher.tasks.detection.structures import DetectionBatch

GAMMA, ALPHA = 2.0, 0.25


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
