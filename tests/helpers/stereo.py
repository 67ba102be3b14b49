"""A small stereo network, its data, and a plain loop that trains it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
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


def write_frames(folder: Path, numbers: tuple[int, ...] = (0, 1), known: float = 0.9) -> Path:
    """Frames of smooth texture before a wall with a box, some depth of which is not known."""
    rng = np.random.default_rng(0)
    for number in numbers:
        gray = cv2.resize(rng.integers(0, 256, (12, 16)).astype(np.uint8), (128, 96))
        depth = np.full((48, 64), 3000, np.uint16)
        depth[10:40, 20:40] = 1500
        depth[rng.random(depth.shape) > known] = 0
        cv2.imwrite(str(folder / f"{number:06d}.jpg"), gray)
        cv2.imwrite(str(folder / f"{number:06d}.depth.png"), depth)
    poses = np.repeat(np.eye(4, dtype=np.float32)[None], len(numbers), 0)
    np.savez(folder / "cameras.npz", frame=np.array(numbers), K=np.eye(3) * 100, pose=poses)
    return folder
