"""The published recipes compose and learn, at reduced size on miniature trees."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

import train as program
from conf import compose
from matcher.config import MatcherConfig
from matcher.training.config import RunConfig
from matcher.training.optim import scaled
from matcher.validation.checked import config_from_dict
from tests.helpers.miniature import megadepth_tree, scannet_tree

SMALL = [
    "model.backbone.initial_dim=16",
    "model.backbone.block_dims=[16,24,32]",
    "model.backbone.depths=[1,1,1]",
    "model.transformer.layers=[self,cross]",
    "model.transformer.heads=4",
    "model.fine.heads=4",
    "data.workers=0",
    "optim.canonical_batch=0",
    "optim.lr=2e-3",
    "optim.warmup=2",
    "trainer.devices=1",
    "trainer.strategy=auto",
    "trainer.accelerator=cpu",
    "trainer.threads=1",
    "trainer.sync_batchnorm=false",
    "trainer.progress=false",
    "trainer.log_every=1",
    "trainer.max_steps=20",
    "trainer.validate_steps=0",
]


def losses(folder: Path, *words: str) -> list[float]:
    program.train(compose("train", [*SMALL, f"folder={folder}", *words]))
    with next(folder.glob("logs/*/metrics.csv")).open() as file:
        return [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]


def test_the_outdoor_recipe_learns_on_a_miniature_megadepth(tmp_path: Path) -> None:
    root = megadepth_tree(tmp_path / "tree")
    values = losses(
        tmp_path / "run",
        "experiment=outdoor",
        "data.files.val_root=",
        "data.files.val_scenes=",
        f"data.files.root={root}/test",
        f"data.files.index={root}/index",
        f"data.files.scenes={root}/index/list.txt",
        "data.files.framing.size=[96,128]",
        "data.files.per_scene=2",
    )
    assert len(values) == 20
    assert sum(values[-4:]) < 0.9 * sum(values[:4])


def test_the_indoor_recipe_learns_on_a_miniature_scannet(tmp_path: Path) -> None:
    root = scannet_tree(tmp_path / "tree", flat_intrinsics=True)
    (root / "list.txt").write_text("scene0000_00.npz\nscene0001_01.npz\n")
    values = losses(
        tmp_path / "run",
        "experiment=indoor",
        f"data.files.root={root}",
        f"data.files.index={root}/index",
        f"data.files.scenes={root}/list.txt",
        f"data.files.intrinsics={root}/index/intrinsics.npz",
        "data.files.framing.size=[96,128]",
        "data.files.per_scene=2",
    )
    assert len(values) == 20
    assert sum(values[-4:]) < 0.9 * sum(values[:4])


@pytest.mark.parametrize(
    ("name", "topks", "gpus", "lr", "warmup"),
    [("outdoor", (16, 8, 8), 4, 8e-3, 1875), ("indoor", (32, 16, 16), 8, 6e-3, 4800)],
)
def test_the_recipes_hold_the_published_figures(
    name: str, topks: tuple[int, ...], gpus: int, lr: float, warmup: int
) -> None:
    values = compose("train", [f"experiment={name}"])
    values.pop("data")
    run = config_from_dict(RunConfig, values)
    assert run.model.transformer.topks == topks
    assert run.model.backbone == MatcherConfig().backbone
    assert (run.loss.coarse, run.loss.tolerance, run.loss.level_weight) == ("focal", 0.2, 0)
    assert (run.optim.lr, run.optim.weight_decay, run.optim.clip) == (lr, 0.1, 0.5)
    assert (run.trainer.max_epochs, run.trainer.devices) == (30, gpus)
    optim = scaled(run.optim, pairs_a_step=gpus)
    assert optim.lr == pytest.approx(lr * gpus / 64)
    assert optim.warmup == round(warmup * 64 / gpus)
    first = run.optim.milestones[:4]
    assert first == ((8, 12, 16, 20) if name == "outdoor" else (3, 6, 9, 12))
