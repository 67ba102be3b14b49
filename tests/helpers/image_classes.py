"""A folder of small pictures, a color a class, that a network can tell apart at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

COLORS = {"blue": (40, 60, 200), "green": (40, 180, 60), "red": (200, 50, 40)}


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
