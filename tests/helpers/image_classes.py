"""Folders of small pictures, a color a class, that a network can tell apart at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

import train as program
from conf import compose_run

COLORS = {"blue": (40, 60, 200), "green": (40, 180, 60), "red": (200, 50, 40)}

WORDS = (
    "task=classification", "data.side=32", "data.batch_size=6", "model.dims=[8,16,24,32]",
    "model.depths=[1,1,1,1]", "model.heads=[1,2,3,4]", "model.mlp_ratios=[2,2,2,2]",
    "model.topk=4", "optim.rate=3e-3", "optim.total_images=240", "trainer.accelerator=cpu",
    "trainer.progress=false", "trainer.threads=1", "trainer.log_every=1",
    "trainer.validate_steps=0",
)  # fmt: skip
"""A small classifier of such folders."""


def write_set(root: Path) -> Path:
    """`root` with such folders to train and to validate on."""
    for part in ("train", "val"):
        write_classes(root / part)
    return root


def train_classifier(folder: Path, *more: str, run: str = "run") -> dict[str, float]:
    """Train one in ``FOLDER/run`` on ``FOLDER/set``; the last metrics."""
    data = folder / "set"
    if not data.is_dir():
        write_set(data)
    words = [*WORDS, f"data.folder={data}", f"folder={folder / run}", *more]
    return program.train(compose_run(words))


def write_classes(root: Path, each: int = 4, size: tuple[int, int] = (50, 40)) -> Path:
    """`root` with a folder a color and `each` noisy pictures in it; the last one is gray."""
    rng = np.random.default_rng(0)
    for name, color in COLORS.items():
        (root / name).mkdir(parents=True)
        for i in range(each):
            noise = rng.normal(0, 15, (size[1], size[0], 3))
            pixels = np.clip(np.array(color) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i}.png")
    Image.fromarray(pixels[..., 0]).save(root / "red" / "gray.png")
    return root
