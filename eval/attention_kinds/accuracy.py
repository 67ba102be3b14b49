"""What a row learns: trained on equal images, measured on all others, written run by run."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data.real.image_folder import (
    CenterImages,
    ImageFolder,
    TrainingImages,
    center_batches,
    find_images,
    training_batches,
)
from eval.attention_kinds.rows import ROWS, SIDE, seed_by_name
from eval.classification import ranks
from matcher.errors import Code, StorageError, UsageError
from matcher.files import make_folder, write_atomically
from matcher.network.pyramid import PyramidConfig
from matcher.tasks.classification.training import ClassificationOptimConfig, ClassifierModule, fit
from matcher.validation.checked import config_to_dict, invalid
from matcher.weights.pyramid import save_pyramid


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
    train, val = (find_images(recipe.data / part) for part in ("train", "val"))
    if train.labels != val.labels:
        raise invalid("data", str(recipe.data), "the same classes in train and val")
    config = replace(ROWS[name], classes=len(train.labels))
    optim = ClassificationOptimConfig(total_images=round(recipe.epochs * len(train.files)))
    run = folder / f"{name}-{seed}"
    make_folder(run)
    settings = _settings(config, seed, recipe, optim, train)
    done = _read(run / "result.json", settings)
    if done is not None:
        return done
    torch.manual_seed(seed)
    module = ClassifierModule(config, optim)
    seed_by_name(module.model, seed)
    images = TrainingImages(train, SIDE, seed)
    fit(
        module,
        lambda start: training_batches(images, recipe.batch, start, recipe.workers),
        run / "state.pt",
        report=_lines(run / "log.csv"),
    )
    found = ranks(module.model, center_batches(CenterImages(spread(val, recipe.most_images), SIDE)),
                  range(len(val.labels)))  # fmt: skip
    save_pyramid(run / "final.safetensors", module.model, train.labels, SIDE)
    content = {"settings": settings, "ranks": found.tolist()}
    write_atomically(run / "result.json", json.dumps(content).encode())
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


def spread(images: ImageFolder, most: int) -> ImageFolder:
    """At most so many images, spread over all classes."""
    if not most or most >= len(images.files):
        return images
    chosen = np.linspace(0, len(images.files) - 1, most).astype(int)
    files, classes = (tuple(x[i] for i in chosen) for x in (images.files, images.classes))
    return ImageFolder(images.labels, files, classes)


def _settings(
    config: PyramidConfig,
    seed: int,
    recipe: Recipe,
    optim: ClassificationOptimConfig,
    train: ImageFolder,
) -> dict[str, Any]:
    return {
        "model": json.loads(json.dumps(config_to_dict(config))),
        "optim": config_to_dict(optim),
        "seed": seed,
        "batch": recipe.batch,
        "validation": recipe.most_images,
        "labels": list(train.labels),
        "images": len(train.files),
    }


def _read(path: Path, settings: dict[str, Any]) -> np.ndarray | None:
    """The ranks of a finished run; None where there is none."""
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text())
        found, stored = np.array(content["ranks"], dtype=int), content["settings"]
    except (ValueError, KeyError, TypeError) as error:
        what = f"not a readable result ({error})"
        raise StorageError(Code.DAMAGED_RESULT, path, what, "delete it") from error
    if stored != settings:
        what, remedy = "a run with other settings", "give another output folder"
        raise UsageError(Code.OTHER_SETTINGS, path, what, remedy)
    return found


def _lines(path: Path) -> Callable[[int, dict[str, float]], None]:
    """Appends the loss of every step to a file."""

    def report(images: int, values: dict[str, float]) -> None:
        with path.open("a", encoding="utf-8") as file:
            file.write(f"{images},{values['loss']:.4f},{values['gradient']:.4f}\n")

    return report
