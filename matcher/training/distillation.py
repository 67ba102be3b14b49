"""Another network's features as a teacher of the backbone's coarse map.

A 1x1 head that only training has maps our features to the teacher's; the loss is the cosine between
both, cell by cell. It needs pictures alone: no depth, no pose, no matches.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from matcher.structures import ImagePair, TrainingOutput


class Teacher(Protocol):
    """A network whose features are worth having."""

    channels: int

    def features(self, image: Tensor) -> Tensor:
        """(B, `channels`, h, w) of (B, 1, H, W) gray values in [0, 1]."""
        ...


class Distillation(nn.Module):
    """The head, and the loss that it trains.

    Args:
        teacher: is not trained and not part of the state.
        channels: C of the backbone's coarse map.
    """

    def __init__(self, teacher: Teacher, channels: int) -> None:
        super().__init__()
        self.head = nn.Conv2d(channels, teacher.channels, 1)
        self._teacher = [teacher]

    def _apply(self, fn: Any, recurse: bool = True) -> Distillation:
        """The teacher goes to the device that the head goes to."""
        if isinstance(self._teacher[0], nn.Module):
            self._teacher[0]._apply(fn, recurse)
        return super()._apply(fn, recurse)

    def forward(self, output: TrainingOutput, pair: ImagePair) -> Tensor:
        """Mean of 1 - cosine over the cells with content of both images."""
        sides = (
            (pair.image0, output.features0.coarse, output.mask0),
            (pair.image1, output.features1.coarse, output.mask1),
        )
        return torch.cat([self._distances(*side) for side in sides]).mean()

    def _distances(self, image: Tensor, ours: Tensor, mask: Tensor | None) -> Tensor:
        with torch.no_grad():
            theirs = self._teacher[0].features(image)
        theirs = F.interpolate(theirs, ours.shape[-2:], mode="bilinear", align_corners=False)
        distance = 1 - F.cosine_similarity(self.head(ours).float(), theirs.float(), dim=1)
        return distance.flatten() if mask is None else distance[mask]
