"""Trainings by AdamW whose learning rate is a function of the samples seen: stereo, detection."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, Protocol

import torch
from torch import Tensor

from matcher.training.base import Batch, Network, TrainingModule, pairs_in
from matcher.training.config import BaseRunConfig
from matcher.training.export import take_over


class RatedOptim(Protocol):
    """Options of AdamW, and how its rate goes."""

    @property
    def rate(self) -> float: ...

    @property
    def weight_decay(self) -> float: ...

    @property
    def clip(self) -> float: ...

    def rate_at(self, seen: int, end: float, /) -> float:
        """The learning rate after so many samples of a run that ends after `end`."""
        ...


class RatedModule(TrainingModule[Network, Batch], Generic[Network, Batch]):
    """Trains a network whose loss is the sum of named terms. Subclasses say which: `terms`, and
    `read` and `export` of its weights.

    Args:
        samples_a_step: of all devices in one step of the optimizer: with the steps of the run they
            tell where it ends.
    """

    counted: str = "pairs"
    """What a sample is called in logs."""

    def __init__(
        self,
        config: BaseRunConfig,
        optim: RatedOptim,
        build: Callable[[], Network],
        samples_a_step: int,
        ema: float,
    ) -> None:
        channels_last = config.trainer.channels_last
        super().__init__(config, build, clip=optim.clip, ema=ema, channels_last=channels_last)
        self.optim = optim
        self.samples_a_step = samples_a_step

    @abstractmethod
    def terms(self, model: Network, batch: Batch) -> dict[str, Tensor]:
        """The terms of the loss of a batch."""

    @abstractmethod
    def read(self, path: Path) -> Network:
        """The network in a file of weights."""

    def rate(self) -> float:
        """The learning rate of the next step, by what this training has seen itself."""
        left = self.trainer.max_steps - self.steps_before
        end = self.pairs_before - self.pairs_inherited + left * self.samples_a_step
        return self.optim.rate_at(self.pairs_learned, end if left > 0 else math.inf)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = self.rate()

    def learn(self, batch: Batch) -> Tensor:
        terms = self.terms(self.model, batch)
        total = torch.stack(list(terms.values())).sum()
        if (self.global_step + 1) % self.config.trainer.log_every == 0:
            rate = self.trainer.optimizers[0].param_groups[0]["lr"]
            values: dict[str, Any] = {"loss": total, **terms, "rate": rate}
            values |= {"skipped": float(self.skipped.total), self.counted: float(self.pairs_seen)}
            plain = {f"train/{name}": torch.as_tensor(v).detach() for name, v in values.items()}
            self.log_dict(plain, batch_size=pairs_in(batch))
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
        self.trainer.optimizers[0].param_groups[0]["weight_decay"] = self.optim.weight_decay

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        values = self.figures(batch)
        found = {f"val/{name}": value for name, value in values.items() if value.isfinite()}
        self.log_dict(found, batch_size=pairs_in(batch), sync_dist=True)

    def figures(self, batch: Batch) -> dict[str, Tensor]:
        """What a validation says of a batch: the terms and their sum."""
        terms = self.terms(self.average, batch)
        return terms | {"loss": torch.stack(list(terms.values())).sum()}

    def load(self, path: Path) -> int:
        source: Any = self.read(path)
        model: Any = self.model
        return take_over(model, source, source.config == model.config, path)
