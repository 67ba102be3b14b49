"""What a training of a classifier is made of, and how its rate falls."""

from __future__ import annotations

import math
from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field

from matcher.network.pyramid import PyramidConfig
from matcher.training.config import BaseRunConfig
from matcher.validation.checked import Positive, Share, checked, invalid


@checked("optim.")
class ClassificationOptimConfig:
    """AdamW whose rate rises, then falls along a cosine."""

    rate: Share = 1e-3
    """Highest learning rate."""
    last_rate: Share = 1e-5
    """Learning rate at the end, at most `rate`."""
    warmup: Share = 0.05
    """Share of all images over which the rate rises."""
    total_images: Positive = 37_876
    """Images after which the rate has fallen to `last_rate`."""
    weight_decay: Share = 0.05
    """Weight decay of AdamW."""
    smoothing: Share = 0.1
    """Probability that is spread over all classes."""
    clip: Annotated[float, Field(ge=1e-6, le=1e6)] = 5.0
    """Largest norm of the gradient."""

    def __post_init__(self) -> None:
        if self.last_rate > self.rate:
            raise invalid("optim.last_rate", self.last_rate, f"at most rate={self.rate}")

    def rate_at(self, images: int, end: float = math.inf) -> float:
        """The learning rate after that many images: a function of them alone, wherever the run
        ends."""
        rise = min(1.0, (images + 1) / max(1.0, self.warmup * self.total_images))
        fall = 0.5 + 0.5 * math.cos(math.pi * min(1.0, images / self.total_images))
        return rise * (self.last_rate + (self.rate - self.last_rate) * fall)


@checked()
class ClassificationRunConfig(BaseRunConfig):
    """One run of train.py that trains a classifier, data excluded."""

    task: Literal["classification"] = "classification"
    """What is trained: ``classification``."""
    model: PyramidConfig = field(default_factory=PyramidConfig)
    optim: ClassificationOptimConfig = field(default_factory=ClassificationOptimConfig)
