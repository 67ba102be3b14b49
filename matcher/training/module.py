"""Training of the matcher: the loss of a step, the optimizer, and what a validation says."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from matcher.errors import CheckpointError, Code
from matcher.network.model import FeatureMatcher, build_matcher
from matcher.structures import ImagePair
from matcher.training.base import TrainingModule
from matcher.training.config import RunConfig
from matcher.training.distillation import Distillation, Teacher
from matcher.training.export import export_weights, load_weights
from matcher.training.loss.total import TrainingLoss, training_loss
from matcher.training.optim import lr_factor, scaled

LEAST_CHANNELS_LAST = 16
"""Narrowest maps that train in channels-last: strided 1x1 convolutions of 8 channels corrupted the
memory of PyTorch 2.13's process on CPUs with AVX-512."""


class MatcherModule(TrainingModule[FeatureMatcher, ImagePair]):
    """Trains a `FeatureMatcher` on batches of `ImagePair` with geometry.

    Args:
        config: the run.
        pairs_a_step: pairs of all devices in one optimizer step, for the learning rate.
        pairs_an_epoch: for the milestones of the published schedule.
        teacher: whose features the backbone learns beside the matches.
    """

    task = "matcher"
    counts = (*TrainingModule.counts, "unmatched")
    shown = ("loss", "coarse", "fine", "blocks", "accuracy", "skipped")
    config: RunConfig

    def __init__(
        self,
        config: RunConfig,
        pairs_a_step: int,
        pairs_an_epoch: float = math.inf,
        teacher: Teacher | None = None,
    ) -> None:
        optim = scaled(config.optim, pairs_a_step)
        narrow = min(config.model.backbone.initial_dim, *config.model.backbone.block_dims)
        super().__init__(
            config,
            lambda: build_matcher(config.model),
            clip=optim.clip,
            ema=optim.ema,
            channels_last=config.trainer.channels_last and narrow >= LEAST_CHANNELS_LAST,
        )
        channels = config.model.backbone.block_dims[-1]
        self.distillation = Distillation(teacher, channels) if teacher else None
        self.optim = optim
        self.pairs_an_epoch = pairs_an_epoch
        self.unmatched = 0
        """Pairs without a true match so far."""
        self._last_end = time.monotonic()

    def learn(self, batch: ImagePair) -> Tensor:
        pairs = batch.image0.shape[0]
        result = training_loss(self.model, batch, self.config.loss, self.distillation)
        self.unmatched += pairs - result.coarse.batch.unique().numel()
        self.last_pair = " ".join(batch.names[-1]) if batch.names else "none"
        self._log_training(result, pairs)
        return result.terms.total

    def load(self, path: Path) -> int:
        return load_weights(self.model, path)

    def export(self, path: Path, **facts: str) -> None:
        export_weights(self.average, path, self.pairs_seen, **facts)

    def configure_optimizers(self) -> Any:
        lr, decay = self.optim.lr, self.optim.weight_decay
        optimizer = torch.optim.AdamW(self.trained(), lr=lr, weight_decay=decay, fused=True)
        total = self.trainer.max_steps if self.trainer.max_steps > 0 else math.inf

        def factor(step: int) -> float:
            return lr_factor(self.optim, step, total, self.pairs_learned / self.pairs_an_epoch)

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        schedule = {"scheduler": scheduler, "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def validation_step(self, batch: ImagePair, batch_idx: int) -> None:
        torch.manual_seed(batch_idx)
        result = training_loss(self.average, batch, self.config.loss)
        values = {
            "val/loss": result.terms.total,
            "val/coarse_accuracy": result.correct.float().mean(),
            "val/matches": result.coarse.batch.numel() / batch.image0.shape[0],
        }
        error = (result.offset - result.fine.offset)[result.fine.valid].norm(dim=1)
        if error.numel():
            values["val/pixel_error"] = (error * self.model.reach).median()
        finite = {k: v for k, v in values.items() if torch.isfinite(torch.as_tensor(v))}
        self.log_dict(finite, batch_size=batch.image0.shape[0], sync_dist=True)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        if bool(checkpoint[self.task]["config"].get("teacher")) != (self.distillation is not None):
            what = "the checkpoint was trained with a teacher and this run is not, or the reverse"
            raise CheckpointError(Code.WRONG_ARCHITECTURE, "resume", what, "set teacher= to match")

    def on_train_start(self) -> None:
        """The options of this run count, also where a checkpoint brings those of another."""
        (optimizer,), (schedule,) = self.trainer.optimizers, self.trainer.lr_scheduler_configs
        scheduler: Any = schedule.scheduler
        scheduler.base_lrs = [self.optim.lr] * len(optimizer.param_groups)
        for group, factor in zip(optimizer.param_groups, scheduler.lr_lambdas, strict=True):
            group["initial_lr"] = self.optim.lr
            group["lr"] = self.optim.lr * factor(scheduler.last_epoch)
            group["weight_decay"] = self.optim.weight_decay

    def _log_training(self, result: TrainingLoss, pairs: int) -> None:
        now = time.monotonic()
        rate, self._last_end = pairs / max(now - self._last_end, 1e-9), now
        if (self.global_step + 1) % self.config.trainer.log_every:
            return
        accuracy, terms = result.correct.float().mean(), result.terms._asdict()
        values = {
            "train/loss": terms.pop("total").detach(),
            **{f"train/{name}": term.detach() for name, term in terms.items()},
            "train/accuracy": accuracy,
            "train/matches": result.coarse.batch.numel() / pairs,
            "train/skipped": float(self.skipped.total),
            "train/unmatched": float(self.unmatched),
            "train/pairs": float(self.pairs_seen),
        }
        self.log_dict(values, batch_size=pairs)
        self.log("pairs/s", rate * self.trainer.world_size, prog_bar=True, batch_size=pairs)
        self.log("acc", accuracy, prog_bar=True, logger=False, batch_size=pairs)
