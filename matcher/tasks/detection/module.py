"""Training of a detector: the loss of a step, the optimizer, and what a validation says."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from matcher.tasks.detection.losses import detection_loss
from matcher.tasks.detection.model import RetinaNet
from matcher.tasks.detection.structures import DetectionBatch
from matcher.tasks.detection.training import DetectionRunConfig
from matcher.tasks.detection.weights import load_backbone, load_detector, save_detector
from matcher.training.export import PAIRS
from matcher.training.rated import RatedModule


class DetectionModule(RatedModule[RetinaNet, DetectionBatch]):
    """Trains a `RetinaNet` on batches of `DetectionBatch`; what others call pairs are images."""

    task = "detection"
    counted = "images"
    shown = ("loss", "classes", "boxes", "rate", "skipped")
    config: DetectionRunConfig

    def __init__(self, config: DetectionRunConfig, images_a_step: int) -> None:
        def build() -> RetinaNet:
            model = RetinaNet(config.model)
            if config.backbone_weights:
                load_backbone(config.backbone_weights, model)
            return model

        super().__init__(config, config.optim, build, images_a_step, config.optim.ema)

    def terms(self, model: RetinaNet, batch: DetectionBatch) -> dict[str, Tensor]:
        return detection_loss(model(batch.images, batch.mask), batch)

    def read(self, path: Path) -> RetinaNet:
        return load_detector(path)

    def export(self, path: Path, **facts: str) -> None:
        facts = {PAIRS: str(self.pairs_seen), **facts}
        save_detector(path, self.average, **facts)
