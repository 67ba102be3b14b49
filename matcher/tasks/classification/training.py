"""What a training of a classifier is made of, and how its rate falls."""

from __future__ import annotations

import math
from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field

from matcher.network.pyramid import PyramidConfig
from matcher.training.config import BaseRunConfig
from matcher.training.optim import cosine_rate, require_falling
from matcher.validation.checked import Positive, Share, checked


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
        require_falling(self.rate, self.last_rate)

    def rate_at(self, images: int, end: float = math.inf) -> float:
        """The learning rate after that many images, wherever the run ends."""
        warmup = self.warmup * self.total_images
        return cosine_rate((self.rate, self.last_rate), images, warmup, self.total_images)


@checked()
class ClassificationRunConfig(BaseRunConfig):
    """One run of train.py that trains a classifier, data excluded."""

    task: Literal["classification"] = "classification"
    """What is trained: ``classification``."""
    model: PyramidConfig = field(default_factory=PyramidConfig)
    optim: ClassificationOptimConfig = field(default_factory=ClassificationOptimConfig)
