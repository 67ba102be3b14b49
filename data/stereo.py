"""The training data of a stereo run: rendered pairs, resumable at any pair."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, replace
from typing import Any

from torch.utils.data import Dataset

from data.datamodule import TrainingData
from data.synthetic.stereo import StereoSceneConfig, StereoScenes
from matcher.validation.checked import NotNegative, Positive, checked, config_from_dict, invalid

VALIDATION_SEED = 9001
"""Of the scenes that a validation shows; their procedural textures are none of the training."""


@checked("data.")
class StereoDataConfig:
    """What a stereo run trains on."""

    batch_size: Positive = 4
    """Pairs of one process in a batch."""
    workers: NotNegative = 0
    """Loader processes; 0 loads in the training process. Pairs do not depend on it."""
    val_pairs: Positive = 24
    """Pairs of a validation, of the first of `stereo.sizes`."""
    stereo: StereoSceneConfig = field(default_factory=StereoSceneConfig)


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
        if self.scenes.group % step or self._pairs_seen() % step:
            # Pairs of a batch are stacked, and those of one group have one size.
            expected = f"a multiple of the {step} pairs a step, as when the run began"
            raise invalid("data.stereo.group", self.scenes.group, expected)
        return StereoScenes(self.scenes), lambda epoch: range(self.scenes.pairs)

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
