"""What a row learns: trained on equal images, measured on all others, written run by run."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from data.classification import ClassificationData, ClassificationDataConfig
from data.real.image_folder import CenterImages, center_batches
from eval.attention_kinds.rows import ROWS, SIDE, seed_by_name
from eval.classification import ranks
from eval.training import content_of_files, read_result, train_on, write_result
from matcher.files import make_folder
from matcher.network.pyramid import PyramidConfig
from matcher.tasks.classification.module import ClassificationModule
from matcher.tasks.classification.training import ClassificationOptimConfig, ClassificationRunConfig
from matcher.training.config import Precision, TrainerConfig
from matcher.training.trainer import precision

FINAL = "final.safetensors"
"""The weights of a run that has ended."""


@dataclass(frozen=True)
class Recipe:
    """How every row is trained."""

    data: Path
    """folder with ``train`` and ``val``, each with a folder a class"""
    epochs: float
    batch: int
    most_images: int
    """of the validation that are measured; 0: all"""
    workers: int
    precision: Precision = "32-true"


def train_row(name: str, seed: int, recipe: Recipe, folder: Path) -> np.ndarray:
    """(N,) ranks of the right class for the images of ``val``, from `folder` where they stand.

    The run continues where it was interrupted. Rows of one seed see the same images in the same
    order and start from the same weights, as far as they share them.

    Args:
        name: of a row.
        seed: of weights and images.
        recipe: how it is trained.
        folder: of all runs; this one has ``<name>-<seed>`` in it.

    Raises:
        UsageError: the run in the folder has other settings (E206), or ``train`` and ``val`` have
            other classes (E201).
    """
    options = ClassificationDataConfig(
        folder=str(recipe.data), side=SIDE, val_images=recipe.most_images,
        batch_size=recipe.batch, workers=recipe.workers,
    )  # fmt: skip
    images = ClassificationData(options, seed)
    labels, count, val = images.labels, images.pairs_an_epoch, images.validation_images
    model = replace(ROWS[name], classes=len(labels))
    optim = ClassificationOptimConfig(total_images=round(recipe.epochs * count))
    path = folder / f"{name}-{seed}"
    make_folder(path)
    steps = math.ceil(optim.total_images / recipe.batch)
    trainer = TrainerConfig(
        max_steps=steps, precision=recipe.precision, progress=False,
        checkpoint_steps=64, log_every=1,
    )  # fmt: skip
    settings = _settings(model, optim, seed, recipe, labels, count)
    settings["precision"] = precision(trainer)
    settings["files"] = content_of_files([*images.training_images.files, *val.files])
    done = read_result(path / "result.json", settings, "ranks")
    if done is not None:
        return np.array(done, dtype=int)
    run = ClassificationRunConfig(
        name=name, folder=str(path), seed=seed, model=model, optim=optim, trainer=trainer
    )
    module = ClassificationModule(run, labels, SIDE, recipe.batch)
    seed_by_name(module.model, seed)
    train_on(module, images, settings)
    batches = center_batches(CenterImages(val, SIDE))
    found = ranks(module.average, batches, range(len(labels)))
    module.export(path / FINAL)
    write_result(path / "result.json", settings, ranks=found.tolist())
    return found


def interval_of_difference(
    first: Mapping[int, np.ndarray], second: Mapping[int, np.ndarray], draws: int = 2000
) -> tuple[float, float, float]:
    """Top-1 of the first minus that of the second row, and its interval of 95%, as shares.

    A bootstrap over images and seeds: both rows are drawn with the same images and seeds.

    Args:
        first, second: ranks (N,) of the runs by seed.
    """
    seeds = sorted(first.keys() & second.keys())
    gain = np.stack([(first[s] < 1).astype(float) - (second[s] < 1) for s in seeds])
    rng = np.random.default_rng(0)
    count = gain.shape[1]
    drawn = [
        gain[rng.integers(len(seeds), size=len(seeds))][:, rng.integers(count, size=count)].mean()
        for _ in range(draws)
    ]
    low, high = np.percentile(drawn, (2.5, 97.5))
    return float(gain.mean()), float(low), float(high)


def _settings(
    model: PyramidConfig,
    optim: ClassificationOptimConfig,
    seed: int,
    recipe: Recipe,
    labels: tuple[str, ...],
    count: int,
) -> dict[str, Any]:
    return {
        "model": json.loads(json.dumps(asdict(model))),
        "optim": asdict(optim),
        "seed": seed,
        "batch": recipe.batch,
        "validation": recipe.most_images,
        "labels": list(labels),
        "images": count,
    }
