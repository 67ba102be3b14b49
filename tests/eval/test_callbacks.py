"""Pose AUC as training sees it."""

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader

from data.config import SyntheticConfig
from data.corrupt import collate
from data.synthetic.dataset import SyntheticScenes
from data.synthetic.render import render
from eval.callbacks import PoseAUC, batch_errors, model_of
from matcher.config import (
    BackboneConfig,
    CoarseConfig,
    FineConfig,
    MatcherConfig,
    TransformerConfig,
)
from matcher.errors import UsageError
from matcher.geometry.robust import Estimator
from matcher.network.model import build_matcher
from matcher.structures import CoarseMatches, ImagePair, MatcherOutput, PairGeometry
from tests.helpers.eval_folders import exact_matches, pairs_folder, relative_pose
from tests.helpers.miniature import rendered_scenes

TINY = MatcherConfig(
    backbone=BackboneConfig(
        initial_dim=8, block_dims=(8, 16, 32), depths=(1, 1, 1), pyramid="lean"
    ),
    transformer=TransformerConfig(layers=("self", "cross"), heads=2, topks=(4, 4, 4), mlp_ratio=1),
    coarse=CoarseConfig(threshold=0.0, border=0),
    fine=FineConfig(window=3, layers=(), heads=2),
)


class Module(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.model = build_matcher(TINY)

    def validation_step(self, batch: ImagePair, batch_idx: int) -> None:
        pass


class Oracle(nn.Module):
    """Answers with what it is told."""

    def __init__(self, output: MatcherOutput) -> None:
        super().__init__()
        self.output = output

    def forward(self, *_: object) -> MatcherOutput:
        return self.output


def rendered_batches() -> DataLoader:
    config = SyntheticConfig(
        size=(64, 96), pairs=2, texture_side=64, procedural=9, mix={"room": 1.0}
    )
    scenes = SyntheticScenes(config)
    return DataLoader([render(scenes[i]) for i in range(2)], batch_size=2, collate_fn=collate)


def test_true_matches_have_no_pose_error_and_none_has_an_infinite_one():
    frame0, frame1 = rendered_scenes(1, (240, 320), seed=11)[0]
    points0, points1 = (torch.from_numpy(p).float() for p in exact_matches(frame0, frame1))
    # The network saw both images at half size; the second pair of the batch got no match.
    network0, network1 = ((p + 0.5) / 2 - 0.5 for p in (points0, points1))
    count = len(points0)
    index = torch.zeros(count, dtype=torch.int64)
    ones = torch.ones(count)
    coarse = CoarseMatches(index, index, index, ones)
    unused = torch.zeros(0)
    output = MatcherOutput(network0, network1, ones, index, ones, coarse, unused, unused)
    K0, K1, T = (
        torch.from_numpy(m).float().expand(2, -1, -1)
        for m in (frame0.K, frame1.K, relative_pose(frame0, frame1))
    )
    depth, image = torch.ones(2, 120, 160), torch.zeros(2, 1, 120, 160)
    scale = torch.full((2, 2), 2.0)
    batch = ImagePair(image, image, scale, scale, geometry=PairGeometry(depth, depth, K0, K1, T))
    errors = batch_errors(Oracle(output), batch, Estimator())
    assert errors[0] < 0.1
    assert errors[1] == float("inf")


def test_validation_logs_auc_of_batches_and_of_a_folder(tmp_path):
    folder = pairs_folder(tmp_path / "rooms", 3)
    module = Module().train()
    trainer = pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        callbacks=[PoseAUC(folder, limit=2, max_side=64)],
    )
    (metrics,) = trainer.validate(module, rendered_batches(), verbose=False)
    expected = {f"val/{name}auc@{t}" for name in ("", "rooms_") for t in (5, 10, 20)}
    assert metrics.keys() == expected
    assert all(0 <= value <= 100 for value in metrics.values())


def test_pairs_without_their_images_are_told_before_the_training(tmp_path):
    folder = pairs_folder(tmp_path, 1)
    next((folder / "images").iterdir()).unlink()
    with pytest.raises(UsageError, match="E111"):
        PoseAUC(folder)


def test_averaged_weights_come_first():
    module = Module()
    assert model_of(module) is module.model
    module.average = torch.optim.swa_utils.AveragedModel(module.model)
    assert model_of(module) is module.average.module
    with pytest.raises(TypeError, match="Linear"):
        model_of(nn.Linear(1, 1))
