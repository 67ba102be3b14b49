"""Average precision of boxes as COCO measures it, in plain NumPy.

Of an image and a class, boxes are taken from the best down, and each gets the free true box that it
overlaps most, if that is by the threshold or more. Precision, made to fall, is read at 101 recalls.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from data.real.boxes import TrueBoxes
from eval.metrics import bootstrap
from matcher.tasks.detection.boxes import box_iou
from matcher.tasks.detection.structures import Detections

THRESHOLDS = tuple(np.linspace(0.5, 0.95, 10).round(2).tolist())
RECALLS = np.linspace(0, 1, 101)
MOST = 100
"""Boxes of an image and a class that count."""


class ImageHits(NamedTuple):
    """What became of the boxes of a class in an image, best first."""

    scores: np.ndarray
    """(N,)"""
    hit: np.ndarray
    """(T, N) bool: it found a true box, at each threshold"""
    counted: np.ndarray
    """(T, N) bool: it is right or wrong, and not on what is ignored"""
    truths: int
    """True boxes that count"""


def image_hits(found: Detections, truth: TrueBoxes, number: int) -> ImageHits:
    """The boxes of the class `number` that were found in an image, held against the true ones."""
    ours, theirs = found.indices == number, truth.classes == number
    order = np.argsort(-found.scores[ours], kind="stable")[:MOST]
    boxes, scores = found.corner_boxes[ours][order], found.scores[ours][order]
    ignored = truth.ignored[theirs]
    overlap = _overlaps(boxes, truth.boxes[theirs], ignored)
    matched = np.array([match(overlap, ignored, t) for t in THRESHOLDS], int)
    matched = matched.reshape(len(THRESHOLDS), len(boxes))
    on_ignored = np.append(ignored, False)[matched]
    return ImageHits(scores, (matched >= 0) & ~on_ignored, ~on_ignored, int((~ignored).sum()))


def match(overlap: np.ndarray, ignored: np.ndarray, threshold: float) -> list[int]:
    """The true box of each box, best first, or -1.

    Args:
        overlap: (N, M) of boxes with true ones.
        ignored: (M,) bool: crowds, which take any number of boxes that find nothing else.
        threshold: least overlap.
    """
    free = np.ones(len(ignored), bool)
    out = []
    for row in overlap:
        chosen = -1
        for allowed in (free & ~ignored, ignored):
            if chosen < 0 and allowed.any():
                best = int(np.where(allowed, row, -1.0).argmax())
                chosen = best if row[best] >= threshold else -1
        if chosen >= 0 and not ignored[chosen]:
            free[chosen] = False
        out.append(chosen)
    return out


def average_precision(images: Sequence[ImageHits], threshold: int = 0) -> float:
    """Of a class over images, at the threshold of that number; NaN where there is no true box."""
    truths = sum(image.truths for image in images)
    if not truths:
        return float("nan")
    scores = np.concatenate([image.scores for image in images])
    hit = np.concatenate([image.hit[threshold] for image in images])
    counted = np.concatenate([image.counted[threshold] for image in images])
    order = np.argsort(-scores, kind="stable")
    order = order[counted[order]]
    right = np.cumsum(hit[order])
    recall, precision = right / truths, right / np.arange(1, len(right) + 1)
    falling = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(recall, RECALLS, side="left")
    return float(np.append(falling, 0.0)[np.minimum(at, len(falling))].mean())


def precisions(classes: Sequence[Sequence[ImageHits]]) -> np.ndarray:
    """(classes, T) average precisions at all thresholds; NaN where there is no true box."""
    thresholds = range(len(THRESHOLDS))
    every = [[average_precision(images, t) for t in thresholds] for images in classes]
    return np.array(every).reshape(len(classes), len(THRESHOLDS))


def bootstrap_interval(
    classes: Sequence[Sequence[ImageHits]], draws: int = 500
) -> tuple[float, float]:
    """95% of the mean AP over classes at the first threshold, were there other such images."""

    def mean(drawn: np.ndarray) -> float:
        values = [average_precision([images[i] for i in drawn]) for images in classes]
        known = [value for value in values if value == value]
        return float(np.mean(known)) if known else 0.0

    return bootstrap(mean, len(classes[0]), draws)


def _overlaps(boxes: np.ndarray, truth: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """(N, M) IoU; with a crowd the share of the box that lies in it."""
    both = (torch.from_numpy(x.astype(np.float64)) for x in (boxes, truth))
    iou = box_iou(*both).numpy()
    area, others = (np.prod(x[:, 2:] - x[:, :2], axis=1) for x in (boxes, truth))
    inside = iou * (area[:, None] + others) / (1 + iou) / np.maximum(area[:, None], 1e-9)
    return np.where(crowd, inside, iou)
