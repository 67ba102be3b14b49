"""Learning rates over the steps of a run."""

from __future__ import annotations

import math
from dataclasses import replace

from matcher.training.config import OptimConfig


def scaled(config: OptimConfig, pairs_a_step: int) -> OptimConfig:
    """The published scaling of learning rate and warm-up with the pairs in a step."""
    if not config.canonical_batch:
        return config
    ratio = pairs_a_step / config.canonical_batch
    return replace(
        config, lr=config.lr * ratio, warmup=round(config.warmup / ratio), canonical_batch=0
    )


def lr_factor(config: OptimConfig, step: int, total: float, steps_an_epoch: float) -> float:
    """Share of the learning rate at optimiser step `step`, counted from 0.

    Args:
        total: steps of the run; infinite keeps ``cosine`` and ``trapezoid`` from going down.
        steps_an_epoch: for the milestones of ``multistep``.
    """
    if step < config.warmup:
        return config.warmup_start + (1 - config.warmup_start) * step / config.warmup
    if config.schedule == "multistep":
        passed = sum(step >= m * steps_an_epoch for m in config.milestones)
        return config.gamma**passed
    if not math.isfinite(total):
        return 1.0
    if config.schedule == "cosine":
        progress = (step - config.warmup) / max(total - config.warmup, 1)
        return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
    left = (total - step) / max(config.cooldown * total, 1)
    return min(max(left, 0.0), 1.0)
