"""What one optimiser step may spoil, kept until it is known whether its gradient is finite."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from matcher.structures import ImagePair
from matcher.training.repro import save_step


@dataclass
class Attempt:
    """One optimiser step, which may consist of several batches."""

    buffers: list[Tensor] = field(default_factory=list)
    """Of the model before the step; empty until it has begun."""
    pair: ImagePair | None = None
    """The first batch whose loss is not finite, otherwise the latest."""
    seed: int = 0
    """Of the draws of that batch."""
    faulty: bool = False
    """A loss of the step is not finite."""

    def begin_batch(self, model: nn.Module, pair: ImagePair, seed: int) -> None:
        """Note the batch, and the buffers if it is the first one."""
        if not self.buffers:
            self.buffers = [b.clone() for b in model.buffers()]
        if not self.faulty:
            self.pair, self.seed = pair, seed

    def end_batch(self, loss: Tensor) -> None:
        self.faulty = self.faulty or not bool(torch.isfinite(loss))

    def undo(self, model: nn.Module) -> None:
        """Give the model the buffers that it had before."""
        for buffer, before in zip(model.buffers(), self.buffers, strict=True):
            buffer.copy_(before)

    def save(self, path: Path, model: nn.Module, config: dict[str, Any]) -> None:
        """Write the file that brings the batch at fault back."""
        if self.pair is not None:
            save_step(path, model.state_dict(), self.pair, self.seed, config)
