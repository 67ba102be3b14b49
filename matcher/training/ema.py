"""The running average of the weights."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import nn

T = TypeVar("T", bound=nn.Module)


def averaged_copy(model: T) -> T:
    """A copy of `model` to hold the average: in evaluation mode, without gradients."""
    return copy.deepcopy(model).eval().requires_grad_(False)


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, decay: float, updates: int) -> None:
    """Move `average` towards `model`, BatchNorm statistics included.

    Args:
        decay: share of the average that stays. Early on (1 + n) / (10 + n) is used if smaller, so
            that the random start is forgotten.
        updates: n, earlier calls.
    """
    decay = min(decay, (1 + updates) / (10 + updates))
    old, new = [], []
    for mean, value in zip(_state(average), _state(model), strict=True):
        if mean.is_floating_point():
            old.append(mean)
            new.append(value)
        else:
            mean.copy_(value)
    torch._foreach_lerp_(old, new, 1 - decay)


def _state(module: nn.Module) -> list[torch.Tensor]:
    return [*module.parameters(), *module.buffers()]
