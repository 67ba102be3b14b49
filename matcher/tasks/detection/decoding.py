"""From what the network says of anchors to boxes: the best of each level, without doubles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from matcher.tasks.detection.boxes import clip, decode, nms
from matcher.tasks.detection.model import RetinaOutput

BEST_OF_LEVEL = 1000
LEAST_SCORE = 0.05
OVERLAP = 0.5
MOST = 100
"""Boxes of an image."""


class FoundBoxes(NamedTuple):
    """Boxes of an image, best first."""

    boxes: Tensor
    """(N, 4) pixels that the network sees, corner origin"""
    scores: Tensor
    """(N,)"""
    classes: Tensor
    """(N,) int64"""


def find_boxes(
    output: RetinaOutput, sizes: Sequence[tuple[int, int]], threshold: float = LEAST_SCORE
) -> list[FoundBoxes]:
    """The boxes of each image of a batch.

    Of a level, the 1000 anchors whose best class scores highest take part with every class above
    the threshold; of boxes of a class that overlap by more than 0.5 the best is kept, and of an
    image the best 100.

    Args:
        output: of the batch.
        sizes: (height, width) of the images without padding.
        threshold: least score.
    """
    return [
        _best(_candidates(output, b, size, threshold), threshold) for b, size in enumerate(sizes)
    ]


def _candidates(
    output: RetinaOutput, b: int, size: tuple[int, int], threshold: float
) -> tuple[Tensor, Tensor]:
    """(N, 4) boxes and (N, classes) scores of the best anchors of all levels of an image."""
    boxes, scores = [], []
    for logits, deltas, anchors, valid in zip(*output, strict=True):
        score = logits[b].float().sigmoid()
        best = score.amax(dim=1)
        if valid is not None:
            best = best.masked_fill(~valid[b], 0.0)
        best, chosen = best.topk(min(BEST_OF_LEVEL, len(best)))
        chosen = chosen[best > threshold]
        boxes.append(clip(decode(deltas[b][chosen].float(), anchors[chosen]), size))
        scores.append(score[chosen])
    return torch.cat(boxes), torch.cat(scores)


def _best(candidates: tuple[Tensor, Tensor], threshold: float) -> FoundBoxes:
    boxes, scores = candidates
    parts = []
    for number in (scores > threshold).any(dim=0).nonzero()[:, 0].tolist():
        score = scores[:, number]
        chosen = (score > threshold).nonzero()[:, 0]
        chosen = chosen[nms(boxes[chosen], score[chosen], OVERLAP, MOST)]
        classes = torch.full_like(chosen, number)
        parts.append(FoundBoxes(boxes[chosen], score[chosen], classes))
    if not parts:
        return FoundBoxes(boxes[:0], scores[:0].amax(dim=1), scores[:0].argmax(dim=1))
    every = FoundBoxes(*(torch.cat(values) for values in zip(*parts, strict=True)))
    order = every.scores.argsort(descending=True, stable=True)[:MOST]
    return FoundBoxes(*(values[order] for values in every))
