"""The training data of a run: loaders over one source, resumable at any pair."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset, Subset

from data.config import DataConfig
from data.corrupt import CorruptSample, Replacing, Reporting, collate
from data.mixed import CoarseOnly, Mixed, MixedStream
from data.order import PairStream, SceneBalanced, spread_indices
from data.real.augment import Augmented
from data.real.readers import FilePairs
from data.real.sources import training_pairs, validation_pairs
from data.synthetic.dataset import SyntheticScenes
from data.synthetic.render import render
from data.synthetic.scene import SceneBatch
from matcher.structures import ImagePair
from matcher.validation.checked import config_from_dict, invalid

LOADER_TIMEOUT = 120
"""Seconds after which a loader process counts as hanging."""
VALIDATION_SEED = 1_000_003
"""Added to the seed of validation scenes, so that they are never trained on."""


class TrainingData(LightningDataModule):
    """Endless batches of pairs, drawn as a function of (seed of the run, pairs seen).

    Subclasses say of which data: `pairs_an_epoch`, `_training` and `_validation`.

    Args:
        batch_size: pairs of one process in a batch.
        workers: loader processes; 0 loads in the training process.
    """

    def __init__(self, batch_size: int, workers: int) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.workers = workers

    @property
    def pairs_an_epoch(self) -> int:
        raise NotImplementedError

    def _training(self) -> tuple[Dataset[Any], Callable[[int], Sequence[int]]]:
        """The pairs, and the order of their indices in an epoch."""
        raise NotImplementedError

    def _validation(self) -> Dataset[Any]:
        raise NotImplementedError

    def train_dataloader(self) -> DataLoader[Any]:
        dataset, order = self._training()
        return self._loader(dataset, batch_sampler=self._stream(order))

    def _stream(self, order: Callable[[int], Sequence[int]]) -> PairStream:
        """From the next whole batch on, also where smaller ones were seen before."""
        trainer = self.trainer
        rank, world = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        step = self.batch_size * world
        module = trainer.lightning_module if trainer else None
        seen = int(getattr(module, "first_pair", 0))
        start = math.ceil(seen / step) * step
        return PairStream(order, self.batch_size, start=start, rank=rank, world=world)

    def val_dataloader(self) -> DataLoader[Any]:
        return self._loader(self._validation(), batch_size=self.batch_size)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Raise what a loader process met."""
        if isinstance(batch, CorruptSample):
            raise batch.error
        return batch

    def _pairs_seen(self) -> int:
        module = self.trainer.lightning_module if self.trainer else None
        return int(getattr(module, "pairs_seen", 0))

    @property
    def _folder(self) -> Path:
        """Of the run, which keeps the lists of samples that cannot be read."""
        return Path(self.trainer.default_root_dir if self.trainer else ".")

    def _loader(self, dataset: Dataset[Any], **options: Any) -> DataLoader[Any]:
        return DataLoader(
            Reporting(dataset),
            num_workers=self.workers,
            collate_fn=collate,
            generator=torch.Generator(),
            pin_memory=torch.cuda.is_available(),
            timeout=LOADER_TIMEOUT if self.workers else 0,
            **options,
        )


class PairData(TrainingData):
    """Endless batches of `ImagePair`."""

    def __init__(self, config: DataConfig, seed: int) -> None:
        super().__init__(config.batch_size, config.workers)
        self.config = config
        self.seed = seed

    @property
    def pairs_an_epoch(self) -> int:
        if self.config.source == "synthetic":
            return self.config.synthetic.pairs
        return len(self._order(0))

    @cached_property
    def _files(self) -> FilePairs:
        return training_pairs(self.config.of_files, self.config.files)

    @property
    def _order(self) -> SceneBalanced:
        return SceneBalanced(self._files.counts, self.config.files.per_scene, self.seed)

    def files_in_order(self, notes: Path) -> tuple[Replacing, SceneBalanced]:
        """The pairs of files as a run sees them, and their order; those that cannot be read are
        replaced and listed in `notes`. Errors are those of `training_pairs`."""
        files, seen = self.config.files, self._files
        if files.augment:
            seen = Augmented(seen, files.augment, self.seed)
        if files.coarse_only:
            seen = CoarseOnly(seen)
        return Replacing(seen, notes), self._order

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> ImagePair:
        """Render scenes where the training happens, and raise what a loader process met."""
        batch = super().on_after_batch_transfer(batch, dataloader_idx)
        if not isinstance(batch, SceneBatch):
            return batch
        training = self.trainer is not None and self.trainer.training
        return render(batch.resized(self.size_at(self._pairs_seen())) if training else batch)

    def size_at(self, pairs_seen: int) -> tuple[int, int]:
        """(H, W) of rendered images after so many pairs."""
        size = self.config.synthetic.size
        for start, height, width in self.config.ramp:
            if pairs_seen >= start:
                size = (height, width)
        return size

    def _training(self) -> tuple[Dataset[Any], Callable[[int], Sequence[int]]]:
        if self.config.source != "synthetic":
            return self._real()
        scenes = SyntheticScenes(replace(self.config.synthetic, seed=self.seed))
        return scenes, lambda epoch: range(len(scenes))

    def train_dataloader(self) -> DataLoader[Any]:
        if not self.config.real:
            return super().train_dataloader()
        rendered, order = self._training()
        real, real_order = self._real()
        stream = MixedStream(self._stream(order), real_order, self.config.real_share)
        return self._loader(Mixed(rendered, real), batch_sampler=stream)

    def _real(self) -> tuple[Replacing, SceneBalanced]:
        return self.files_in_order(self._folder / "corrupt_training.txt")

    def _validation(self) -> Dataset[Any]:
        source, count = self.config.of_files, self.config.val_pairs
        if source != "synthetic":
            pairs = validation_pairs(source, self.config.files)
            if pairs is not None:
                readable = Replacing(pairs, self._folder / "corrupt_validation.txt")
                return Subset(readable, spread_indices(count, len(pairs)))
        seed = self.seed + VALIDATION_SEED
        return SyntheticScenes(replace(self.config.synthetic, seed=seed, pairs=count))


def build_datamodule(values: Mapping[str, Any], seed: int, canvas: int = 8) -> PairData:
    """The data of `values`, options of `DataConfig`, for a model whose images have multiples of
    `canvas` pixels as sides.

    Raises:
        UsageError: an unknown option or a value that cannot work.
    """
    config = config_from_dict(DataConfig, values)
    sizes = []
    if config.of_files != "synthetic":
        sizes += [("data.files.framing.size", config.files.framing.size)]
    if config.source == "synthetic":
        sizes += [("data.synthetic.size", config.synthetic.size)]
        sizes += [("data.ramp", stage[1:]) for stage in config.ramp]
    for option, size in sizes:
        if any(side % canvas for side in size):
            raise invalid(option, size, f"(height, width), multiples of {canvas} for this model")
    return PairData(config, seed)
