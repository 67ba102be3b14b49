"""A small stereo network, its data, and a plain loop that trains it."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from matcher.tasks.stereo.config import StereoConfig
from matcher.tasks.stereo.losses import stereo_loss
from matcher.tasks.stereo.module import StereoModule
from matcher.tasks.stereo.structures import StereoPair
from matcher.tasks.stereo.training import StereoOptimConfig, StereoRunConfig

TINY = StereoConfig(channels=16, fine_channels=8, deep_channels=16, layers=1, heads=2,
                    refine_channels=8)  # fmt: skip


def plain_training(
    config: StereoConfig, optim: StereoOptimConfig, batches: Iterable[StereoPair]
) -> tuple[StereoModule, list[float]]:
    """A network trained without a trainer, and the loss of each step."""
    module = StereoModule(StereoRunConfig(model=config, optim=optim, seed=0), pairs_a_step=4)
    optimizer = module.configure_optimizers()
    pairs, losses = 0, []
    for batch in batches:
        for group in optimizer.param_groups:
            group["lr"] = optim.rate_at(pairs)
        terms = stereo_loss(module.model(batch.left, batch.right), batch)
        loss = torch.stack(list(terms.values())).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(module.model.parameters(), optim.clip)
        optimizer.step()
        pairs += batch.left.shape[0]
        losses.append(float(loss.detach()))
    return module, losses
