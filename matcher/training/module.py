"""The LightningModule: one training step, the optimizer, and what must survive a restart."""

from __future__ import annotations

import hashlib
import math
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from matcher.errors import CheckpointError, Code
from matcher.network.model import build_matcher
from matcher.structures import ImagePair
from matcher.training.config import RunConfig
from matcher.training.loss.total import TrainingLoss, training_loss
from matcher.training.nonfinite import DivergedError, SkippedSteps, StepSnapshot
from matcher.training.optim import averaged_copy, lr_factor, scaled, update_average
from matcher.validation.checked import config_to_dict
from matcher.weights.checkpoint import without_retired

COUNTS = ("batches_seen", "pairs_seen", "unmatched")

LEAST_CHANNELS_LAST = 16
"""Narrowest maps that train in channels-last: strided 1x1 convolutions of 8 channels corrupted the
memory of PyTorch 2.13's process on CPUs with AVX-512."""


class MatcherModule(pl.LightningModule):
    """Trains a `FeatureMatcher` on batches of `ImagePair` with geometry.

    Every random draw of a step comes from a seed made of (run seed, step, rank), so that a resumed
    run draws what an uninterrupted one would have drawn.

    Args:
        config: the run.
        pairs_a_step: pairs of all devices in one optimizer step, for the learning rate.
        steps_an_epoch: for the milestones of the published schedule.
    """

    def __init__(
        self, config: RunConfig, pairs_a_step: int, steps_an_epoch: float = math.inf
    ) -> None:
        super().__init__()
        self.config = config
        self.optim = scaled(config.optim, pairs_a_step)
        self.steps_an_epoch = steps_an_epoch
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.model = build_matcher(config.model)
        narrow = min(config.model.backbone.initial_dim, *config.model.backbone.block_dims)
        if config.trainer.channels_last and narrow >= LEAST_CHANNELS_LAST:
            self.model = self.model.to(memory_format=torch.channels_last)  # pyright: ignore
        self.model.train()
        self.average = averaged_copy(self.model)
        self.skipped = SkippedSteps()
        self.batches_seen = 0
        self.pairs_seen = 0
        self.pairs_before = 0
        """Pairs seen before this run began."""
        self.unmatched = 0
        """Pairs without a true match so far."""
        self.last_pair = "none"
        """Name of the last pair of the last batch."""
        self._finite = True
        self._snapshot = StepSnapshot()
        self._last_end = time.monotonic()

    def step_seed(self) -> int:
        """Seed of the draws of the present batch."""
        key = f"{self.config.seed} {self.batches_seen} {self.global_rank}".encode()
        return int.from_bytes(hashlib.sha256(key).digest()[:7], "big")

    def training_step(self, batch: ImagePair, batch_idx: int) -> Tensor:
        seed, pairs = self.step_seed(), batch.image0.shape[0]
        torch.manual_seed(seed)
        self._snapshot.begin_batch(self.model, batch, seed)
        result = training_loss(self.model, batch, self.config.loss)
        total = result.terms.total
        self._snapshot.end_batch(total)
        self.batches_seen += 1
        self.pairs_seen += pairs * self.trainer.world_size
        self.unmatched += pairs - result.coarse.batch.unique().numel()
        self.last_pair = " ".join(batch.names[-1]) if batch.names else "none"
        self._log_training(result, pairs)
        # An infinite loss can have finite gradients: its square has not.
        return total if torch.isfinite(total) else total * total.detach()

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None
    ) -> None:
        limit = self.optim.clip or float("inf")
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit)
        self._finite = bool(torch.isfinite(norm))
        if not self._finite:
            # AdamW leaves parameters without gradient alone, moments and step count included.
            optimizer.zero_grad(set_to_none=True)

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None
    ) -> None:
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        if self._finite:
            update_average(self.average, self.model, self.optim.ema, self.global_step)
        else:
            self._skip()
        self._snapshot = StepSnapshot()

    def _skip(self) -> None:
        self._snapshot.undo(self.model)
        stop = self.skipped.add(self.batches_seen)
        path = Path(self.config.folder) / f"nonfinite_{self.batches_seen}_{self.global_rank}.pt"
        if self.skipped.total == 1 or stop:
            self._snapshot.save(path, self.model, config_to_dict(self.config))
        if stop:
            what = f"{self.skipped.total} steps were not finite"
            raise DivergedError(Code.DIVERGED, "training", what, f"see {path}")

    def configure_optimizers(self) -> Any:
        lr, decay = self.optim.lr, self.optim.weight_decay
        parameters = self.model.parameters()
        optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=decay, fused=True)
        total = self.trainer.max_steps if self.trainer.max_steps > 0 else math.inf
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: lr_factor(self.optim, step, total, self.steps_an_epoch)
        )
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

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["matcher"] = {
            "config": config_to_dict(self.config),
            **{name: getattr(self, name) for name in COUNTS},
            "guard": self.skipped.state(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on where the checkpoint was saved.

        Raises:
            CheckpointError: it is none of train.py, or of another architecture (E502).
        """
        try:
            state = checkpoint["matcher"]
            model, skipped = without_retired(state["config"]["model"]), state["guard"]
            counts = {name: int(state[name]) for name in COUNTS}
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            what = f"is no checkpoint of train.py ({error!r})"
            raise CheckpointError(Code.WRONG_ARCHITECTURE, "resume", what) from error
        if model != config_to_dict(self.config)["model"]:
            what = "the checkpoint holds another model"
            raise CheckpointError(Code.WRONG_ARCHITECTURE, "resume", what, "set model= to match")
        for name, count in counts.items():
            setattr(self, name, count)
        self.skipped.restore(skipped)

    def on_train_start(self) -> None:
        """The options of this run count, also where a checkpoint brings those of another."""
        self.pairs_before = self.pairs_seen
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
