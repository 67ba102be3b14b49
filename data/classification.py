"""The training data of a classifier: photographs by class, resumable at any of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from data.corrupt import Replacing
from data.datamodule import TrainingData
from data.real.image_folder import CenterImages, ImageFolder, TrainingImages, find_images
from matcher.errors import Code, UsageError
from matcher.validation.checked import (
    NotNegative,
    Positive,
    Workers,
    checked,
    config_from_dict,
    invalid,
)


@checked("data.")
class ClassificationDataConfig:
    """What a classifier trains on."""

    folder: str = ""
    """Folder with ``train`` and ``val``, each with a folder a class."""
    side: Positive = 224
    """Pixels of the square that the network sees."""
    val_images: NotNegative = 0
    """Images of a validation, spread over all classes; 0: all."""
    batch_size: Positive = 64
    """Images of one process in a batch."""
    workers: Workers = 0
    """Loader processes; 0 loads in the training process."""

    def __post_init__(self) -> None:
        if not self.folder:
            remedy = "give data.folder=FOLDER with train/CLASS/IMAGE and val/CLASS/IMAGE"
            raise UsageError(Code.INVALID_VALUE, "data.folder", "there are no images", remedy)


class ClassificationData(TrainingData):
    """Endless batches of `ImageBatch`, drawn as a function of (seed, images seen)."""

    def __init__(self, config: ClassificationDataConfig, seed: int) -> None:
        super().__init__(config.batch_size, config.workers)
        self.config = config
        self.seed = seed

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes; errors are those of `training_images`."""
        return self.training_images.labels

    @property
    def pairs_an_epoch(self) -> int:
        return len(self.training_images.files)

    @cached_property
    def training_images(self) -> ImageFolder:
        """Those that are learned; errors are those of `find_images`."""
        return find_images(Path(self.config.folder) / "train")

    @cached_property
    def validation_images(self) -> ImageFolder:
        """The images of a validation.

        Raises:
            UsageError: there are none (E111), or those of other classes (E201).
        """
        found = find_images(Path(self.config.folder) / "val")
        if found.labels != self.labels:
            raise invalid("data.folder", self.config.folder, "the same classes in train and val")
        return found.spread(self.config.val_images)

    def _training(self) -> tuple[Dataset[Any], Callable[[int], Sequence[int]]]:
        images = TrainingImages(self.training_images, self.config.side, self.seed)

        def order(epoch: int) -> list[int]:
            return np.random.default_rng((self.seed, epoch)).permutation(len(images)).tolist()

        return Replacing(images, self._folder / "corrupt_training.txt"), order

    def _validation(self) -> Dataset[Any]:
        images = CenterImages(self.validation_images, self.config.side)
        return Replacing(images, self._folder / "corrupt_validation.txt")


def build_classification_data(values: Mapping[str, Any], seed: int) -> ClassificationData:
    """The data of `values`, options of `ClassificationDataConfig`.

    Raises:
        UsageError: an unknown option or a value that cannot work.
    """
    config = config_from_dict(ClassificationDataConfig, values, "data.")
    return ClassificationData(config, seed)
