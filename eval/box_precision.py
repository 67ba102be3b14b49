"""Average precision at the validations of a detector's training."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from data.real.boxes import TrueBoxes
from eval.average_precision import ImageHits, image_hits, precisions
from eval.callbacks import gathered
from matcher.tasks.detection.decoding import find_boxes
from matcher.tasks.detection.model import RetinaNet
from matcher.tasks.detection.structures import DetectionBatch, Detections


class BoxPrecision(pl.Callback):
    """Logs ``val/ap`` and ``val/ap50`` of the averaged weights, from 0 to 1, on the pictures as the
    network sees them: what is marked as difficult counts as nothing."""

    def __init__(self, labels: tuple[str, ...]) -> None:
        super().__init__()
        self.labels = labels
        self.images: list[list[ImageHits]] = []
        """Of each picture, by class."""

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.images = []

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        model = getattr(pl_module, "average", None)
        if isinstance(model, RetinaNet) and isinstance(batch, DetectionBatch):
            for found, truth in looked_at(model, batch, self.labels):
                classes = range(len(self.labels))
                self.images.append([image_hits(found, truth, number) for number in classes])

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        images = gathered(self.images)
        if images:
            table = precisions([*zip(*images, strict=True)])
            known = table[~np.isnan(table[:, 0])]
            if len(known):
                pl_module.log_dict({"val/ap": known.mean(), "val/ap50": known[:, 0].mean()})


@torch.inference_mode()
def looked_at(
    model: RetinaNet, batch: DetectionBatch, labels: tuple[str, ...]
) -> Iterator[tuple[Detections, TrueBoxes]]:
    """What a network finds in each image of a batch, and what is there, in its pixels."""
    rows, columns = batch.mask.any(dim=2).sum(dim=1), batch.mask.any(dim=1).sum(dim=1)
    sizes = [*zip(rows.tolist(), columns.tolist(), strict=True)]
    found = find_boxes(model(batch.images, batch.mask), sizes)
    for b, ((height, width), of_image) in enumerate(zip(sizes, found, strict=True)):
        boxes, scores, classes = (values.cpu().numpy() for values in of_image)
        names = tuple(labels[i] for i in classes)
        own = batch.index == b
        corners, numbers = (values[own].cpu().numpy() for values in (batch.boxes, batch.classes))
        yield (
            Detections(boxes - np.float32(0.5), names, scores, classes, (width, height)),
            TrueBoxes(corners, numbers, np.zeros(len(numbers), bool)),
        )
