"""Pictures of matches while a model is being trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from eval.callback import model_of
from matcher.drawing.matches import draw_matches, write_picture
from matcher.geometry.cameras import rescale_intrinsics
from matcher.geometry.epipolar import epipolar_error, fundamental_from_pose
from matcher.structures import ImagePair


class MatchFigures(pl.Callback):
    """Draws the first pairs of every validation, coloured by epipolar error.

    Args:
        count: pairs drawn, of the first batch.
        folder: receives ``STEP_NUMBER.png``.
    """

    def __init__(self, count: int, folder: Path) -> None:
        super().__init__()
        self.count = count
        self.folder = folder

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if batch_idx or not self.count or not trainer.is_global_zero:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with torch.inference_mode():
            output = model_of(pl_module)(batch.image0, batch.image1, batch.mask0, batch.mask1)
        for i, matches in enumerate(output.split(len(batch.image0))[: self.count]):
            errors = match_errors(batch, i, matches.keypoints0, matches.keypoints1)
            found = matches.to("cpu")
            picture = draw_matches(
                gray(batch.image0[i]), gray(batch.image1[i]), found, errors=errors
            )
            write_picture(self.folder / f"{trainer.global_step:08d}_{i}.png", picture)


def match_errors(
    batch: ImagePair, index: int, keypoints0: Tensor, keypoints1: Tensor
) -> np.ndarray | None:
    """(N,) epipolar errors in network pixels of pair `index`; None without geometry."""
    geometry = batch.geometry
    if geometry is None:
        return None
    K0 = rescale_intrinsics(geometry.K0[index].double(), batch.scale0[index].double())
    K1 = rescale_intrinsics(geometry.K1[index].double(), batch.scale1[index].double())
    F = fundamental_from_pose(K0, K1, geometry.T_0to1[index].double())
    return epipolar_error(keypoints0.double(), keypoints1.double(), F).cpu().numpy()


def gray(image: Tensor) -> np.ndarray:
    """(1, H, W) in [0, 1] as (H, W) uint8."""
    return (image[0].float().clamp(0, 1) * 255).round().byte().cpu().numpy()
