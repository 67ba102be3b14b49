"""What a training of a detector is made of, and how its rate falls."""

from __future__ import annotations

import math
from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field

from matcher.tasks.detection.config import DetectorConfig
from matcher.training.config import BaseRunConfig
from matcher.training.optim import cosine_rate, require_falling, risen
from matcher.validation.checked import Positive, Share, checked, invalid


@checked("optim.")
class DetectionOptimConfig:
    """AdamW, as published for 12 epochs of COCO by default."""

    rate: Share = 1e-4
    """Highest learning rate."""
    warmup_images: Positive = 8_000
    """Images over which the rate rises."""
    total_images: Positive = 1_407_192
    """Images after which the rate has fallen."""
    schedule: Literal["steps", "cosine"] = "steps"
    """``steps``: a tenth after two thirds and again after 11 twelfths of the images, as published;
    ``cosine``: down to `last_rate`."""
    last_rate: Share = 1e-6
    """``cosine`` only: the rate at the end, at most `rate`."""
    weight_decay: Share = 1e-4
    """Weight decay of AdamW."""
    clip: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    """Largest norm of the gradient; 0 turns clipping off."""
    ema: Annotated[float, Field(ge=0, le=0.99999)] = 0.0
    """Decay of the averaged weights a step; 0 means that the average is the last weights."""

    def __post_init__(self) -> None:
        require_falling(self.rate, self.last_rate)

    def rate_at(self, images: int, end: float = math.inf) -> float:
        """The learning rate after that many images, wherever the run ends."""
        if self.schedule == "cosine":
            rates = self.rate, self.last_rate
            return cosine_rate(rates, images, self.warmup_images, self.total_images)
        passed = sum(images / self.total_images >= part for part in (8 / 12, 11 / 12))
        return risen(images, self.warmup_images) * self.rate * 0.1**passed


@checked()
class DetectionRunConfig(BaseRunConfig):
    """One run of train.py that trains a detector, data excluded."""

    task: Literal["detection"] = "detection"
    """What is trained: ``detection``."""
    backbone_weights: str = ""
    """Weights of a pyramid (safetensors), such as a classifier's, from which the backbone starts;
    empty: random ones."""
    model: DetectorConfig = field(default_factory=DetectorConfig)
    optim: DetectionOptimConfig = field(default_factory=DetectionOptimConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.backbone_weights and self.init_weights:
            given = self.backbone_weights
            raise invalid("backbone_weights", given, "empty when `init_weights` is given")
