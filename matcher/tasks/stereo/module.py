"""Training of a stereo network: the loss of a step, the optimizer, and what a validation says."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from matcher.errors import CheckpointError, Code
from matcher.tasks.stereo.losses import stereo_loss
from matcher.tasks.stereo.model import Stereo
from matcher.tasks.stereo.structures import StereoOutput, StereoPair
from matcher.tasks.stereo.training import StereoRunConfig
from matcher.tasks.stereo.weights import load_stereo, save_stereo
from matcher.training.base import TrainingModule
from matcher.training.export import PAIRS
from matcher.weights.checkpoint import read_weights


class StereoModule(TrainingModule[Stereo, StereoPair]):
    """Trains a `Stereo` network on batches of `StereoPair`.

    Args:
        config: the run.
        pairs_a_step: pairs of all devices in one optimizer step: with the steps of the run they
            tell where it ends.
        steps_an_epoch: is not used; the rate is a function of pairs.
    """

    task = "stereo"
    shown = ("loss", "match", "coarse", "full", "occlusion", "rate", "skipped")
    config: StereoRunConfig

    def __init__(
        self, config: StereoRunConfig, pairs_a_step: int, steps_an_epoch: float = math.inf
    ) -> None:
        super().__init__(
            config,
            lambda: Stereo(config.model),
            clip=config.optim.clip,
            ema=config.optim.ema,
            # Convolutions on the CPU are faster by a tenth in this order of memory.
            channels_last=config.trainer.channels_last,
        )
        self.optim = config.optim
        self.pairs_a_step = pairs_a_step

    def rate(self) -> float:
        """The learning rate of the next step."""
        steps = self.trainer.max_steps
        end = steps * self.pairs_a_step if steps > 0 else math.inf
        return self.optim.rate_at(self.pairs_seen, end)

    def on_train_batch_start(self, batch: StereoPair, batch_idx: int) -> None:
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = self.rate()

    def learn(self, batch: StereoPair) -> Tensor:
        terms = stereo_loss(self.model(batch.left, batch.right), batch)
        total = torch.stack(list(terms.values())).sum()
        if (self.global_step + 1) % self.config.trainer.log_every == 0:
            values = {
                "loss": total,
                **terms,
                "rate": self.trainer.optimizers[0].param_groups[0]["lr"],
            }
            values |= {"skipped": float(self.skipped.total), "pairs": float(self.pairs_seen)}
            plain = {f"train/{name}": torch.as_tensor(v).detach() for name, v in values.items()}
            self.log_dict(plain, batch_size=batch.left.shape[0])
        return total

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW; gains, shifts and single numbers do not decay."""
        decayed, kept = [], []
        for parameter in self.model.parameters():
            (decayed if parameter.ndim > 1 else kept).append(parameter)
        groups = [
            {"params": decayed, "weight_decay": self.optim.weight_decay},
            {"params": kept, "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=self.optim.rate)

    def on_train_start(self) -> None:
        """The options of this run count, also where a checkpoint brings those of another."""
        super().on_train_start()
        self.trainer.optimizers[0].param_groups[0]["weight_decay"] = self.optim.weight_decay

    def validation_step(self, batch: StereoPair, batch_idx: int) -> None:
        output = self.average(batch.left, batch.right)
        values = {"loss": torch.stack(list(stereo_loss(output, batch).values())).sum()}
        values |= figures(output, batch)
        found = {f"val/{name}": value for name, value in values.items() if value.isfinite()}
        self.log_dict(found, batch_size=batch.left.shape[0], sync_dist=True)

    def load(self, path: Path) -> int:
        source = load_stereo(path)
        if source.config != self.config.model:
            what = "holds another architecture"
            raise CheckpointError(Code.WRONG_ARCHITECTURE, path, what, "set model= to match")
        self.model.load_state_dict(source.state_dict())
        seen = read_weights(path).metadata.get(PAIRS, "0")
        return int(seen) if seen.isdecimal() else 0

    def export(self, path: Path) -> None:
        save_stereo(path, self.average, **{PAIRS: str(self.pairs_seen)})


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
