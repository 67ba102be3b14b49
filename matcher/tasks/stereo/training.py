"""Training of a stereo network: one step, its optimizer, and how its rate falls.

Free of any framework: `StereoModule` serves a plain loop as well as a trainer.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from matcher.tasks.stereo.config import StereoConfig
from matcher.tasks.stereo.losses import stereo_loss
from matcher.tasks.stereo.model import Stereo
from matcher.tasks.stereo.structures import StereoPair
from matcher.validation.checked import Positive, Share, checked, invalid


@checked("stereo.optim.")
class StereoOptimConfig:
    """AdamW whose rate rises, then falls along a cosine."""

    rate: Share = 1e-3
    """Highest learning rate."""
    last_rate: Share = 2e-5
    """Learning rate at the end, at most `rate`."""
    warmup_pairs: Positive = 400
    """Pairs over which the rate rises."""
    total_pairs: Positive = 40_000
    """Pairs after which the rate has fallen to `last_rate`."""
    weight_decay: Share = 1e-2
    """Weight decay of AdamW."""
    clip: Annotated[float, Field(ge=1e-6, le=1e6)] = 1.0
    """Largest norm of the gradient."""

    def __post_init__(self) -> None:
        if self.last_rate > self.rate:
            raise invalid("stereo.optim.last_rate", self.last_rate, f"at most rate={self.rate}")

    def rate_at(self, pairs: int) -> float:
        """The learning rate after that many pairs: a function of them alone."""
        rise = min(1.0, (pairs + 1) / self.warmup_pairs)
        fall = 0.5 + 0.5 * math.cos(math.pi * min(1.0, pairs / self.total_pairs))
        return rise * (self.last_rate + (self.rate - self.last_rate) * fall)


class StereoModule(nn.Module):
    """A network with its loss and its optimizer."""

    def __init__(self, model: StereoConfig, optim: StereoOptimConfig) -> None:
        super().__init__()
        # Convolutions on the CPU are faster by a tenth in this order of memory.
        self.model = Stereo(model)
        self.model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.optim = optim

    def terms(self, pair: StereoPair) -> dict[str, Tensor]:
        """The terms of the loss of a batch."""
        return stereo_loss(self.model(pair.left, pair.right), pair)

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

    def step(
        self, pair: StereoPair, optimizer: torch.optim.Optimizer, pairs: int
    ) -> dict[str, float]:
        """One update on a batch after `pairs` pairs; a step that is not finite is left out.

        Returns:
            The terms, ``loss`` and ``gradient``, the norm before clipping.
        """
        for group in optimizer.param_groups:
            group["lr"] = self.optim.rate_at(pairs)
        terms = self.terms(pair)
        loss = torch.stack(list(terms.values())).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.optim.clip)
        if torch.isfinite(norm):
            optimizer.step()
        values = {name: term.detach() for name, term in terms.items()}
        values |= {"loss": loss.detach(), "gradient": norm}
        return {name: float(value) for name, value in values.items()}
