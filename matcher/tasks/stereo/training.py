"""What a training of a stereo network is made of, and how its rate falls."""

from __future__ import annotations

import math
from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field

from matcher.tasks.stereo.config import StereoConfig
from matcher.training.config import BaseRunConfig
from matcher.training.optim import cosine_rate, require_falling
from matcher.validation.checked import NotNegative, Positive, Share, checked


@checked("optim.")
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
    cooldown_pairs: NotNegative = 4_000
    """Pairs over which the rate falls to `last_rate` in a run that `trainer.max_steps` ends before
    `total_pairs`; 0: it does not."""
    weight_decay: Share = 1e-2
    """Weight decay of AdamW."""
    clip: Annotated[float, Field(ge=1e-6, le=1e6)] = 1.0
    """Largest norm of the gradient."""
    ema: Annotated[float, Field(ge=0, le=0.99999)] = 0.0
    """Decay of the averaged weights a step; 0 means that the average is the last weights."""

    def __post_init__(self) -> None:
        require_falling(self.rate, self.last_rate)

    def rate_at(self, pairs: int, end: float = math.inf) -> float:
        """The learning rate after that many pairs: a function of them alone.

        Args:
            pairs: that the run has seen.
            end: pairs after which it ends. Where that is before `total_pairs`, what the cosine is
                above `last_rate` shrinks to nothing over the last `cooldown_pairs`.
        """
        rates = self.rate, self.last_rate
        rate = cosine_rate(rates, pairs, self.warmup_pairs, self.total_pairs)
        if not self.cooldown_pairs or end >= self.total_pairs:
            return rate
        left = (end - pairs) / min(self.cooldown_pairs, end)
        return self.last_rate + (rate - self.last_rate) * min(1.0, max(0.0, left))


@checked()
class StereoRunConfig(BaseRunConfig):
    """One run of train.py that trains a stereo network, data excluded."""

    task: Literal["stereo"] = "stereo"
    """What is trained: ``stereo``."""
    model: StereoConfig = field(default_factory=StereoConfig)
    optim: StereoOptimConfig = field(default_factory=StereoOptimConfig)
