"""Photographs in one folder a class, as ImageNet and its subsets are stored."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from data.corrupt import CorruptSample, Reporting, collate
from data.order import Key
from matcher.errors import Code, UsageError, missing
from matcher.images.imagenet import to_input
from matcher.images.load import read_rgb
from matcher.images.suffixes import is_read
from matcher.tasks.classification.preprocess import center_square
from matcher.tasks.classification.structures import ImageBatch

MIN_AREA = 0.35
"""Least share of an image that a training crop shows."""
RATIO = 4 / 3
"""Most that a training crop is stretched along one axis."""


@dataclass(frozen=True)
class ImageFolder:
    """Files and their classes."""

    labels: tuple[str, ...]
    """Names of the folders, sorted"""
    files: tuple[Path, ...]
    """Sorted by class, then by name"""
    classes: tuple[int, ...]
    """Of the files"""

    def spread(self, most: int) -> ImageFolder:
        """At most so many images, spread over all classes; 0: all."""
        if not most or most >= len(self.files):
            return self
        chosen = np.linspace(0, len(self.files) - 1, most).astype(int)
        files, classes = (tuple(x[i] for i in chosen) for x in (self.files, self.classes))
        return ImageFolder(self.labels, files, classes)


def find_images(folder: Path | str) -> ImageFolder:
    """All images in the folders of a folder, but for hidden ones.

    Raises:
        UsageError: there is no such folder (E111), or nothing in it (E111).
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise missing(folder, "no such folder")
    found = {
        part.name: sorted(p for p in part.iterdir() if is_read(p.name) and p.name[0] != ".")
        for part in sorted(folder.iterdir())
        if part.is_dir() and part.name[0] != "."
    }
    found = {name: files for name, files in found.items() if files}
    if not found:
        what = "no folders with images in it"
        raise UsageError(Code.MISSING_FILE, folder, what, "expected FOLDER/CLASS/IMAGE")
    classes = [i for i, files in enumerate(found.values()) for _ in files]
    files = [path for part in found.values() for path in part]
    return ImageFolder(tuple(found), tuple(files), tuple(classes))


@dataclass(eq=False)
class TrainingImages(Dataset[ImageBatch]):
    """Batches of one: random crops, half of them mirrored, as (seed, epoch, index) alone tell."""

    folder: ImageFolder
    side: int
    """pixels of a crop"""
    seed: int

    def __len__(self) -> int:
        return len(self.folder.files)

    def __getitem__(self, key: Key) -> ImageBatch:
        epoch, index = key
        rng = np.random.default_rng((self.seed, epoch, index))
        pixels = random_crop(read_rgb(self.folder.files[index]), self.side, rng)
        return _batch_of_one(pixels, self.folder.classes[index])


@dataclass(eq=False)
class CenterImages(Dataset[ImageBatch]):
    """Batches of one: the center of every image, as classifiers are measured."""

    folder: ImageFolder
    side: int

    def __len__(self) -> int:
        return len(self.folder.files)

    def __getitem__(self, key: int | Key) -> ImageBatch:
        index = key[1] if isinstance(key, tuple) else key
        pixels = center_square(read_rgb(self.folder.files[index]), self.side)
        return _batch_of_one(pixels, self.folder.classes[index])


def random_crop(pixels: np.ndarray, side: int, rng: np.random.Generator) -> np.ndarray:
    """(side, side, 3) uint8 of a random part of (H, W, 3) uint8 pixels, mirrored half of the time.

    The part has a random area and shape (Szegedy et al., CVPR 2015), and lies within the image.
    """
    height, width = pixels.shape[:2]
    area = rng.uniform(MIN_AREA, 1.0) * height * width
    ratio = np.exp(rng.uniform(-np.log(RATIO), np.log(RATIO)))
    w, h = min(width, np.sqrt(area * ratio)), min(height, np.sqrt(area / ratio))
    left, top = rng.uniform(0, width - w), rng.uniform(0, height - h)
    image = Image.fromarray(pixels)
    box = (left, top, left + w, top + h)
    crop = np.asarray(image.resize((side, side), Image.Resampling.BICUBIC, box=box))
    return crop[:, ::-1].copy() if rng.random() < 0.5 else crop


def center_batches(
    images: CenterImages, batch_size: int = 64, workers: int = 0
) -> Iterator[ImageBatch]:
    """All images once, in order; errors are those of `read_rgb`, whichever process reads."""
    for batch in DataLoader(Reporting(images), batch_size, num_workers=workers, collate_fn=collate):
        if isinstance(batch, CorruptSample):
            raise batch.error
        yield batch


def _batch_of_one(pixels: np.ndarray, number: int) -> ImageBatch:
    return ImageBatch(to_input(pixels[None]), torch.tensor([number]))
