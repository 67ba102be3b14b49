"""Real pairs under other light: photometric differences that files from one day do not have."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from kornia import augmentation as K
from torch import Tensor, nn
from torch.utils.data import Dataset

from data.order import Key
from matcher.structures import ImagePair


class Augmented(Dataset[ImagePair]):
    """The pairs of `dataset`, each picture exposed, blurred, noisy and compressed by itself.

    What is drawn depends on (seed, epoch, index) alone. Geometry stays; padding stays black.

    Args:
        dataset: pairs by index or by (epoch, index), of one pair each.
        strength: 1 for what cameras and seasons do; 0.5 for half of it.
        seed: of the run.
    """

    def __init__(self, dataset: Any, strength: float, seed: int) -> None:
        self.dataset = dataset
        self.seed = seed
        self.tone, self.compression = photometry(strength)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: int | Key) -> ImagePair:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        pair = self.dataset[epoch, index]
        (state,) = np.random.SeedSequence((self.seed, epoch, index)).generate_state(1, np.uint64)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(state) >> 1)
            image0 = self._photograph(pair.image0, pair.mask0)
            image1 = self._photograph(pair.image1, pair.mask1)
        return replace(pair, image0=image0, image1=image1)

    def _photograph(self, image: Tensor, mask: Tensor | None) -> Tensor:
        image = self.tone(image).clamp(0, 1)
        image = self.compression(image.expand(-1, 3, -1, -1))[:, :1].clamp(0, 1)
        return image if mask is None else image * mask[:, None]


def photometry(strength: float) -> tuple[nn.Module, nn.Module]:
    """Tone, blur and noise of gray pictures, and the compression of RGB ones."""
    factor = (1 - 0.3 * strength, 1 + 0.3 * strength)
    tone = nn.Sequential(
        K.RandomBrightness(factor, p=0.8),
        K.RandomContrast(factor, p=0.8),
        K.RandomGamma((2**-strength, 2**strength), p=0.5),
        K.RandomGaussianBlur(9, (0.3, 0.3 + 1.2 * strength), p=0.2),
        K.RandomMotionBlur((3, 9), 180.0, 0.5, p=0.1),
        K.RandomGaussianNoise(std=0.02 * strength, p=0.5),
    )
    return tone, K.RandomJPEG((max(10.0, 95 - 50 * strength), 95.0), p=0.2)
