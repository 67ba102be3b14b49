"""Training of a detector: the loss of a step, the optimizer, and what a validation says."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from matcher.errors import CheckpointError, Code
from matcher.tasks.detection.losses import detection_loss
from matcher.tasks.detection.model import RetinaNet
from matcher.tasks.detection.structures import DetectionBatch
from matcher.tasks.detection.training import DetectionRunConfig
from matcher.tasks.detection.weights import load_backbone, load_detector, save_detector
from matcher.training.base import TrainingModule
from matcher.training.export import PAIRS
from matcher.weights.checkpoint import read_weights


class DetectionModule(TrainingModule[RetinaNet, DetectionBatch]):
    """Trains a `RetinaNet` on batches of `DetectionBatch`; what others call pairs are images.

    Args:
        config: the run.
        images_a_step: is not used; the rate is a function of images.
        steps_an_epoch: is not used either.
    """

    task = "detection"
    shown = ("loss", "classes", "boxes", "rate", "skipped")
    config: DetectionRunConfig

    def __init__(
        self, config: DetectionRunConfig, images_a_step: int, steps_an_epoch: float = math.inf
    ) -> None:
        def build() -> RetinaNet:
            model = RetinaNet(config.model)
            if config.backbone_weights:
                load_backbone(config.backbone_weights, model)
            return model

        super().__init__(
            config,
            build,
            clip=config.optim.clip,
            ema=config.optim.ema,
            channels_last=config.trainer.channels_last,
        )
        self.optim = config.optim

    def on_train_batch_start(self, batch: DetectionBatch, batch_idx: int) -> None:
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = self.optim.rate_at(self.pairs_seen)

    def learn(self, batch: DetectionBatch) -> Tensor:
        terms = detection_loss(self.model(batch.images, batch.mask), batch)
        total = torch.stack(list(terms.values())).sum()
        if (self.global_step + 1) % self.config.trainer.log_every == 0:
            values = {
                "loss": total,
                **terms,
                "rate": self.trainer.optimizers[0].param_groups[0]["lr"],
            }
            values |= {"skipped": float(self.skipped.total), "images": float(self.pairs_seen)}
            plain = {f"train/{name}": torch.as_tensor(v).detach() for name, v in values.items()}
            self.log_dict(plain, batch_size=batch.images.shape[0])
        return total

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW; gains, shifts and single numbers do not decay."""
        decayed, kept = [], []
        for parameter in self.model.parameters():
            (decayed if parameter.ndim > 1 else kept).append(parameter)
        groups = [
            {"params": decayed, "weight_decay": self.optim.weight_decay},
            {"params": kept, "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=self.optim.rate)

    def on_train_start(self) -> None:
        """The options of this run count, also where a checkpoint brings those of another."""
        super().on_train_start()
        self.trainer.optimizers[0].param_groups[0]["weight_decay"] = self.optim.weight_decay

    def validation_step(self, batch: DetectionBatch, batch_idx: int) -> None:
        terms = detection_loss(self.average(batch.images, batch.mask), batch)
        terms["loss"] = torch.stack(list(terms.values())).sum()
        found = {f"val/{name}": value for name, value in terms.items() if value.isfinite()}
        self.log_dict(found, batch_size=batch.images.shape[0], sync_dist=True)

    def load(self, path: Path) -> int:
        source = load_detector(path)
        if source.config != self.config.model:
            what = "holds another architecture"
            raise CheckpointError(Code.WRONG_ARCHITECTURE, path, what, "set model= to match")
        self.model.load_state_dict(source.state_dict())
        seen = read_weights(path).metadata.get(PAIRS, "0")
        return int(seen) if seen.isdecimal() else 0

    def export(self, path: Path) -> None:
        save_detector(path, self.average, **{PAIRS: str(self.pairs_seen)})
