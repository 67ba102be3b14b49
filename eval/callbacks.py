"""Callbacks of a training: poses of validation pairs, and pictures of their matches."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytorch_lightning as pl
import torch
import torch.distributed
from torch import Tensor, nn

from eval.benchmarks.folder import Benchmark, read_pairs_with_gt
from eval.benchmarks.sizing import Sizing
from eval.measure import pose_error
from eval.metrics import error_auc
from eval.summary import POSE_LIMITS
from matcher.drawing.matches import draw_matches, write_picture
from matcher.errors import missing
from matcher.geometry.cameras import rescale_intrinsics
from matcher.geometry.epipolar import epipolar_error, fundamental_from_pose
from matcher.geometry.pixels import network_to_original
from matcher.geometry.robust import Estimator, estimate_pose
from matcher.images.load import read_rgb
from matcher.network.model import FeatureMatcher
from matcher.predictor import Predictor
from matcher.structures import ImagePair

T = TypeVar("T")


class PoseAUC(pl.Callback):
    """Logs ``val/auc@5``, ``val/auc@10`` and ``val/auc@20`` in percent.

    They come from the batches of the validation loader, with PoseLib at 1 px. With `pairs`, a
    folder in the format of the ``pairs`` benchmark, `limit` real pairs, taken evenly from its
    list, are matched as well at `max_side` pixels and logged as ``val/<folder>_auc@5`` and so on.
    The averaged weights are used where the module has them.

    Raises:
        UsageError: `pairs` has no list, or not its images (E111), or as `read_pairs_with_gt`.
    """

    def __init__(
        self, pairs: str | Path | None = None, *, limit: int = 40, max_side: int = 640
    ) -> None:
        super().__init__()
        self.estimator = Estimator()
        self.errors: list[float] = []
        self.benchmark: Benchmark | None = None
        if pairs is not None:
            listed = read_pairs_with_gt(Path(pairs))
            chosen = np.linspace(0, len(listed) - 1, min(limit, len(listed))).round().astype(int)
            name = Path(pairs).resolve().name
            kept = tuple(listed[i] for i in chosen)
            for image in (path for pair in kept for path in (pair.image0, pair.image1)):
                if not image.is_file():
                    raise missing(image)
            self.benchmark = Benchmark(name, name, kept, Sizing(max_side=max_side))

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.errors = []

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if isinstance(batch, ImagePair) and batch.geometry is not None:
            self.errors += batch_errors(model_of(pl_module), batch, self.estimator)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        _log(pl_module, "val/auc", self.errors)
        if self.benchmark is not None:
            errors = []
            if trainer.is_global_zero and not trainer.sanity_checking:
                errors = folder_errors(model_of(pl_module), self.benchmark, self.estimator)
            _log(pl_module, f"val/{self.benchmark.name}_auc", errors)


def model_of(module: nn.Module) -> FeatureMatcher:
    """The averaged model of a training module, or its model."""
    for name in ("average", "model"):
        model = getattr(module, name, None)
        model = getattr(model, "module", model)
        if isinstance(model, FeatureMatcher):
            return model
    raise TypeError(f"{type(module).__name__} holds no FeatureMatcher as `average` or `model`")


@torch.inference_mode()
def batch_errors(model: FeatureMatcher, batch: ImagePair, estimator: Estimator) -> list[float]:
    """Pose error of each pair of a batch in degrees; inf without an estimate."""
    geometry = batch.geometry
    if geometry is None:
        raise ValueError("the batch has no geometry")
    training = model.training
    model.eval()
    output = model(batch.image0, batch.image1, batch.mask0, batch.mask1)
    model.train(training)
    out = []
    for i, matches in enumerate(output.split(batch.image0.shape[0])):
        points = (
            _numpy(network_to_original(matches.keypoints0, batch.scale0[i])),
            _numpy(network_to_original(matches.keypoints1, batch.scale1[i])),
        )
        K0, K1, T = (_numpy(m[i]) for m in (geometry.K0, geometry.K1, geometry.T_0to1))
        out.append(pose_error(estimate_pose(*points, K0=K0, K1=K1, estimator=estimator), T))
    return out


def folder_errors(model: FeatureMatcher, benchmark: Benchmark, estimator: Estimator) -> list[float]:
    """Pose error of each pair of a benchmark in degrees; inf without an estimate."""
    training, device = model.training, next(model.parameters()).device
    # The network alone: what a training changes.
    side = benchmark.sizing.max_side
    predictor = Predictor(
        model, device=device, max_side=side, refine="none", zoom="off", stretch=False
    )
    out = []
    for pair in benchmark.pairs:
        if pair.K0 is None or pair.K1 is None or pair.T_0to1 is None:
            raise ValueError(f"{pair.name}: no pose")
        points = predictor.match(read_rgb(pair.image0), read_rgb(pair.image1)).numpy()[:2]
        pose = estimate_pose(*points, K0=pair.K0, K1=pair.K1, estimator=estimator)
        out.append(pose_error(pose, pair.T_0to1))
    model.train(training)
    return out


def _numpy(values: Tensor) -> np.ndarray:
    return values.detach().double().cpu().numpy()


def _log(module: pl.LightningModule, prefix: str, errors: list[float]) -> None:
    """Log the areas of the errors of all processes."""
    errors = gathered(errors)
    if errors:
        areas = error_auc(errors, POSE_LIMITS)
        module.log_dict({f"{prefix}@{t}": 100 * a for t, a in zip(POSE_LIMITS, areas, strict=True)})


def gathered(values: list[T]) -> list[T]:
    """The values of all processes that train together."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return values
    parts: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, values)
    return [value for part in parts for value in part]


class MatchFigures(pl.Callback):
    """Draws the first `count` pairs of every validation, colored by epipolar error, as
    ``STEP_NUMBER.png``."""

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
            images = gray(batch.image0[i]), gray(batch.image1[i])
            errors = match_errors(batch, i, matches.keypoints0, matches.keypoints1)
            picture = draw_matches(*images, matches.to("cpu"), errors=errors)
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
