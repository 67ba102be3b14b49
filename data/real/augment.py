"""Real pairs under other light: photometric differences that files from one day do not have."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from data.order import Key
from data.synthetic.photometry import draw_photometry, photographed
from matcher.structures import ImagePair


@dataclass(eq=False)
class Augmented(Dataset[ImagePair]):
    """The pairs of `dataset`, photographed anew as rendered scenes are.

    What is drawn depends on (seed, epoch, index) alone. Geometry stays; padding stays black.
    """

    dataset: Any
    """pairs by index or by (epoch, index), of one pair each, sides multiples of 8"""
    strength: float
    """1 for what cameras and seasons do; 0.5 for half of it"""
    seed: int

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: int | Key) -> ImagePair:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        pair = self.dataset[epoch, index]
        rng = np.random.default_rng((self.seed, epoch, index))
        photometry = draw_photometry(rng, self.strength)
        both = photographed(torch.cat([pair.image0, pair.image1], dim=1), photometry).clamp(0, 1)
        image0, image1 = (
            image.contiguous() if mask is None else image * mask[:, None]
            for image, mask in zip(both.split(1, dim=1), (pair.mask0, pair.mask1), strict=True)
        )
        return replace(pair, image0=image0, image1=image1)
