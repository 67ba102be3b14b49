"""The training data of a detector: annotated pictures, resumable at any of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field
from torch.utils.data import Dataset

from data.corrupt import Replacing
from data.datamodule import TrainingData
from data.order import Key, spread_indices
from data.real.boxes import AnnotatedImage, TrueBoxes, read_annotated, read_coco, read_voc
from matcher.errors import Code, UsageError
from matcher.tasks.detection.config import DetectorConfig
from matcher.tasks.detection.preprocess import fitted_size, resized, scaled, to_batch
from matcher.tasks.detection.structures import DetectionBatch
from matcher.validation.checked import Positive, Workers, checked, config_from_dict, invalid

Factor = Annotated[float, Field(ge=0.1, le=10)]


@checked("data.")
class DetectionDataConfig:
    """What a detector trains on: a folder in VOC's form, or COCO's JSON and its pictures."""

    folder: str = ""
    """VOC's folder, or that of the pictures of `annotations`."""
    annotations: str = ""
    """COCO's JSON of instances; empty: `folder` has VOC's form."""
    val_folder: str = ""
    """Pictures of a validation; empty: `folder`."""
    val_annotations: str = ""
    """COCO's JSON of a validation."""
    split: str = "train"
    """VOC's list of pictures in ImageSets/Main; empty: all."""
    val_split: str = "val"
    """VOC's list of the pictures of a validation."""
    val_images: Positive = 64
    """Pictures of a validation, at most."""
    batch_size: Positive = 16
    """Pictures of one process in a batch."""
    workers: Workers = 0
    """Loader processes; 0 loads in the training process."""
    flip: Literal["none", "horizontal", "both"] = "horizontal"
    """Along which axes half of the pictures are mirrored."""
    scales: tuple[Factor, Factor] = (1.0, 1.0)
    """Range of a factor by which a picture is larger than the sides of the model say."""

    def __post_init__(self) -> None:
        if not self.folder:
            remedy = "give data.folder=FOLDER (and data.annotations=FILE.json for COCO)"
            raise UsageError(Code.INVALID_VALUE, "data.folder", "there are no pictures", remedy)
        if self.scales[0] > self.scales[1]:
            raise invalid("data.scales", self.scales, "the smaller factor first")


@dataclass(eq=False)
class TrainingPictures(Dataset[DetectionBatch]):
    """Batches of one, resized and mirrored as (seed, epoch, index) alone tell."""

    images: Sequence[AnnotatedImage]
    model: DetectorConfig
    config: DetectionDataConfig
    seed: int

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: Key) -> DetectionBatch:
        epoch, index = key
        rng = np.random.default_rng((self.seed, epoch, index))
        low, high = self.config.scales
        factor = float(np.exp(rng.uniform(np.log(low), np.log(high))))
        pixels, truth = read_annotated(self.images[index])
        mirrored = {"none": 0, "horizontal": 1, "both": 2}[self.config.flip]
        for axis in (1, 0)[:mirrored]:
            if rng.random() < 0.5:
                pixels, truth = flipped(pixels, truth, axis)
        return as_batch(pixels, truth, self.model, factor)


@dataclass(eq=False)
class PlainPictures(Dataset[DetectionBatch]):
    """Batches of one, as a detector is measured."""

    images: Sequence[AnnotatedImage]
    model: DetectorConfig

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: int | Key) -> DetectionBatch:
        index = key[1] if isinstance(key, tuple) else key
        return as_batch(*read_annotated(self.images[index]), self.model)


class DetectionData(TrainingData):
    """Endless batches of `DetectionBatch`, drawn as a function of (seed, images seen)."""

    def __init__(self, config: DetectionDataConfig, model: DetectorConfig, seed: int) -> None:
        super().__init__(config.batch_size, config.workers)
        self.config = config
        self.model = model
        self.seed = seed

    @property
    def pairs_an_epoch(self) -> int:
        return len(self._images)

    @cached_property
    def _images(self) -> list[AnnotatedImage]:
        config = self.config
        return find_annotated(config.folder, config.annotations, config.split, self.model)

    def _training(self) -> tuple[Dataset[Any], Callable[[int], Sequence[int]]]:
        pictures = TrainingPictures(self._images, self.model, self.config, self.seed)

        def order(epoch: int) -> list[int]:
            return np.random.default_rng((self.seed, 11, epoch)).permutation(len(pictures)).tolist()

        return Replacing(pictures, self._folder / "corrupt_training.txt"), order

    def _validation(self) -> Dataset[Any]:
        config = self.config
        if config.annotations and not config.val_annotations:
            remedy = "give COCO's JSON of a validation, or trainer.validate_steps=0"
            raise UsageError(Code.UNUSABLE_WORD, "data.val_annotations", "is not set", remedy)
        folder = config.val_folder or config.folder
        images = find_annotated(folder, config.val_annotations, config.val_split, self.model)
        kept = [images[i] for i in spread_indices(config.val_images, len(images))]
        pictures = PlainPictures(kept, self.model)
        return Replacing(pictures, self._folder / "corrupt_validation.txt")


def find_annotated(
    folder: str, annotations: str, split: str, model: DetectorConfig
) -> list[AnnotatedImage]:
    """The pictures of a folder in VOC's form, or those of COCO's `annotations`; errors are those of
    `read_voc` and `read_coco`."""
    if annotations:
        return read_coco(annotations, folder, model.names)
    return read_voc(folder, split, model.names)


def as_batch(
    pixels: np.ndarray, truth: TrueBoxes, model: DetectorConfig, factor: float = 1.0
) -> DetectionBatch:
    """A picture and its boxes at the size that a network sees, times `factor`."""
    old = (pixels.shape[0], pixels.shape[1])
    new = fitted_size(old, round(model.shorter * factor), round(model.longer * factor))
    counted = truth.where(~truth.ignored)
    return to_batch(resized(pixels, new), scaled(counted.boxes, old, new), counted.classes)


def flipped(pixels: np.ndarray, truth: TrueBoxes, axis: int) -> tuple[np.ndarray, TrueBoxes]:
    """A picture and its boxes mirrored: `axis` 1 swaps left and right, 0 top and bottom."""
    first, last = (0, 2) if axis == 1 else (1, 3)
    boxes = truth.boxes.copy()
    boxes[:, first] = pixels.shape[axis] - truth.boxes[:, last]
    boxes[:, last] = pixels.shape[axis] - truth.boxes[:, first]
    return np.flip(pixels, axis).copy(), truth._replace(boxes=boxes)


def build_detection_data(
    values: Mapping[str, Any], model: DetectorConfig, seed: int
) -> DetectionData:
    """The data of `values`, options of `DetectionDataConfig`, for a model.

    Raises:
        UsageError: an unknown option or a value that cannot work.
    """
    return DetectionData(config_from_dict(DetectionDataConfig, values, "data."), model, seed)
