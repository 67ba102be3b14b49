"""Training of a stereo network: the loss of a step, the optimizer, and what a validation says."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from matcher.tasks.stereo.losses import stereo_loss
from matcher.tasks.stereo.model import Stereo
from matcher.tasks.stereo.structures import StereoOutput, StereoPair
from matcher.tasks.stereo.training import StereoRunConfig
from matcher.tasks.stereo.weights import load_stereo, save_stereo
from matcher.training.export import PAIRS
from matcher.training.rated import RatedModule


class StereoModule(RatedModule[Stereo, StereoPair]):
    """Trains a `Stereo` network on batches of `StereoPair`."""

    task = "stereo"
    shown = ("loss", "match", "coarse", "full", "occlusion", "rate", "skipped")
    config: StereoRunConfig

    def __init__(self, config: StereoRunConfig, pairs_a_step: int) -> None:
        optim = config.optim
        super().__init__(config, optim, lambda: Stereo(config.model), pairs_a_step, optim.ema)

    def terms(self, model: Stereo, batch: StereoPair) -> dict[str, Tensor]:
        return stereo_loss(model(batch.left, batch.right), batch)

    def figures(self, batch: StereoPair) -> dict[str, Tensor]:
        output = self.average(batch.left, batch.right)
        loss = torch.stack(list(stereo_loss(output, batch).values())).sum()
        return {"loss": loss} | figures(output, batch)

    def read(self, path: Path) -> Stereo:
        return load_stereo(path)

    def export(self, path: Path, **facts: str) -> None:
        facts = {PAIRS: str(self.pairs_seen), **facts}
        save_stereo(path, self.average, **facts)


def figures(output: StereoOutput, pair: StereoPair) -> dict[str, Tensor]:
    """Figures of the pixels of a batch.

    Returns:
        ``end_point`` error in pixels and ``bad3``, the share above 3, where both views see the
        point; ``occluded_iou`` of occluded pixels, NaN where there are none.
    """
    error = (output.disparity[:, 0] - pair.disparity).abs()[pair.valid & ~pair.occluded]
    hidden = output.occlusion[:, 0] > 0
    either = ((hidden | pair.occluded) & pair.valid).sum()
    both = (hidden & pair.occluded & pair.valid).sum()
    return {
        "end_point": error.mean(),
        "bad3": (error > 3).float().mean(),
        "occluded_iou": both / either,
    }
