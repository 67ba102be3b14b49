"""Learning rate over a run, and the running average of the weights."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import TypeVar

import torch
from torch import nn

from matcher.training.config import OptimConfig
from matcher.validation.checked import invalid


def scaled(config: OptimConfig, pairs_a_step: int) -> OptimConfig:
    """The published scaling of learning rate and warm-up with the pairs in a step."""
    if not config.canonical_batch:
        return config
    ratio = pairs_a_step / config.canonical_batch
    return replace(
        config, lr=config.lr * ratio, warmup=round(config.warmup / ratio), canonical_batch=0
    )


def lr_factor(config: OptimConfig, step: int, total: float, epochs: float) -> float:
    """Share of the learning rate at optimizer step `step`, counted from 0.

    Args:
        total: steps of the run; infinite keeps ``cosine`` and ``trapezoid`` from going down.
        epochs: that the run has seen, for the milestones of ``multistep``.
    """
    if step < config.warmup:
        return config.warmup_start + (1 - config.warmup_start) * step / config.warmup
    if config.schedule == "multistep":
        passed = sum(epochs >= milestone for milestone in config.milestones)
        return config.gamma**passed
    if not math.isfinite(total):
        return 1.0
    if config.schedule == "cosine":
        progress = (step - config.warmup) / max(total - config.warmup, 1)
        return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
    left = (total - step) / max(config.cooldown * total, 1)
    return min(max(left, 0.0), 1.0)


def require_falling(rate: float, last_rate: float) -> None:
    """Refuse a last rate above the highest one (E201)."""
    if last_rate > rate:
        raise invalid("optim.last_rate", last_rate, f"at most rate={rate}")


def risen(seen: int, warmup: float) -> float:
    """Share of a learning rate after `seen` samples, while it rises over `warmup` of them."""
    return min(1.0, (seen + 1) / max(1.0, warmup))


def cosine_rate(rates: tuple[float, float], seen: int, warmup: float, total: int) -> float:
    """A learning rate that rises over `warmup` samples, and falls from the first to the second of
    `rates` along a cosine over `total`: a function of the samples seen alone, wherever a run ends.
    """
    highest, lowest = rates
    fall = 0.5 + 0.5 * math.cos(math.pi * min(1.0, seen / total))
    return risen(seen, warmup) * (lowest + (highest - lowest) * fall)


T = TypeVar("T", bound=nn.Module)


def averaged_copy(model: T) -> T:
    """A copy of `model` to hold the average: in evaluation mode, without gradients."""
    return copy.deepcopy(model).eval().requires_grad_(False)


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, decay: float, updates: int) -> None:
    """Move `average` towards `model`, BatchNorm statistics included.

    Integers are copied: an average lowers them (findings/torch_average_integers.sh).

    Args:
        decay: share of the average that stays. Early on (1 + n) / (10 + n) is used if smaller, so
            that the random start is forgotten.
        updates: n, earlier calls.
    """
    decay = min(decay, (1 + updates) / (10 + updates))
    old, new = [], []
    means, values = ([*m.parameters(), *m.buffers()] for m in (average, model))
    for mean, value in zip(means, values, strict=True):
        if mean.is_floating_point():
            old.append(mean)
            new.append(value)
        else:
            mean.copy_(value)
    torch._foreach_lerp_(old, new, 1 - decay)
