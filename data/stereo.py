"""The training data of a stereo run: rendered pairs and warped frames, resumable at any pair."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from data.config import Frames, require_unset
from data.datamodule import TrainingData
from data.order import Key
from data.real.stereo_frames import StereoFrames
from data.synthetic.stereo import StereoSceneConfig, StereoScenes
from matcher.tasks.stereo.structures import StereoPair
from matcher.validation.checked import (
    Positive,
    Share,
    Workers,
    checked,
    config_from_dict,
    invalid,
)

VALIDATION_SEED = 9001
"""Of the scenes that a validation shows; their procedural textures are none of the training."""


@checked("data.")
class StereoDataConfig:
    """What a stereo run trains on."""

    batch_size: Positive = 4
    """Pairs of one process in a batch."""
    workers: Workers = 0
    """Loader processes; 0 loads in the training process. Pairs do not depend on it."""
    val_pairs: Positive = 24
    """Pairs of a validation, of the first of `stereo.sizes`."""
    frames: str = ""
    """Folder of an RGB-D sequence, whose frames are warped to pairs with real texture; empty: none.
    """
    frame_numbers: Frames = (0, 10**9)
    """Numbers (first, behind the last) of the frames to use."""
    frame_share: Share = 0.25
    """Share of the groups of pairs that are of `frames`, where there are some."""
    stereo: StereoSceneConfig = field(default_factory=StereoSceneConfig)

    def __post_init__(self) -> None:
        for name in () if self.frames else ("frame_numbers", "frame_share"):
            require_unset(self, name, "data.frames= without a folder")


@dataclass(eq=False)
class WithFrames(Dataset[StereoPair]):
    """Rendered pairs, and in the place of a share of their groups warped frames of the same size.

    A pair depends on (seed, epoch, index), the textures and the frames alone.
    """

    scenes: StereoScenes
    frames: StereoFrames
    share: float

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, key: Key) -> StereoPair:
        epoch, index = key
        config = self.scenes.config
        by_group = np.random.default_rng((config.seed, 31, epoch, index // config.group))
        if by_group.random() >= self.share:
            return self.scenes[key]
        rng = np.random.default_rng((config.seed, 32, epoch, index))
        size = self.scenes.size_at(epoch, index)
        return self.frames.draw(rng, size, config.disparity, config.misalignment)


class StereoData(TrainingData):
    """Endless batches of `StereoPair`, drawn as a function of (seed of the run, pairs seen)."""

    def __init__(self, config: StereoDataConfig, seed: int) -> None:
        super().__init__(config.batch_size, config.workers)
        self.config = config
        self.scenes = replace(config.stereo, seed=seed)

    @property
    def pairs_an_epoch(self) -> int:
        return self.scenes.pairs

    def _training(self) -> tuple[Dataset[Any], Callable[[int], Sequence[int]]]:
        step = self.batch_size * (self.trainer.world_size if self.trainer else 1)
        if self.scenes.group % step:
            # Pairs of a batch are stacked, and those of one group have one size.
            expected = f"a multiple of the {step} pairs a step"
            raise invalid("data.stereo.group", self.scenes.group, expected)
        pairs: Any = StereoScenes(self.scenes)
        if self.config.frames:
            notes = self._folder / "corrupt_training.txt"
            frames = StereoFrames(self.config.frames, self.config.frame_numbers, notes)
            pairs = WithFrames(pairs, frames, self.config.frame_share)
        return pairs, lambda epoch: range(self.scenes.pairs)

    def _validation(self) -> Dataset[Any]:
        scenes = self.scenes
        unseen = replace(
            scenes, sizes=scenes.sizes[:1], shares=(1.0,), group=1, pairs=self.config.val_pairs,
            texture_seed=scenes.texture_seed + 1, seed=scenes.seed + VALIDATION_SEED,
        )  # fmt: skip
        return StereoScenes(unseen)


def build_stereo_data(values: Mapping[str, Any], seed: int) -> StereoData:
    """The data of `values`, options of `StereoDataConfig`.

    Raises:
        UsageError: an unknown option or a value that cannot work.
    """
    return StereoData(config_from_dict(StereoDataConfig, values, "data."), seed)
