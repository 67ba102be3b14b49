"""A short description of each image, by which those that show the same place are found.

Features of the backbone are pooled over the image by the generalized mean (Radenović, Tolias and
Chum, PAMI 2019), positive and negative parts apart, and brought to length 1. Nothing is trained for
it: it finds what looks alike, and does not stand beside NetVLAD where light or season change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from matcher.errors import MatcherError
from matcher.images.load import ImageSource
from matcher.predictor import Predictor
from matcher.runtime import own_settings

POWER = 3.0
"""Of the mean: the higher, the more the strongest features count."""
MAX_SIDE = 320
"""Images are shrunk to it: what a place looks like as a whole tells more than its bricks."""


def describe(images: Sequence[ImageSource], predictor: Predictor) -> np.ndarray:
    """(N, 2 C) float32 descriptors of images, each of length 1; their products tell how alike two
    images are. An image that cannot be read has zeros.

    Args:
        predictor: its network, and how it reads images; of their sizes `MAX_SIDE` decides.
    """
    small = Predictor(predictor.model, replace(predictor.options, max_side=MAX_SIDE))
    width = 2 * small.model.config.backbone.coarse_dim
    return np.stack([_described(small, image, width) for image in images])


def pooled(features: Tensor) -> Tensor:
    """(2 C,) of length 1 from (C, N) features."""
    parts = torch.cat([features.clamp(min=0), (-features).clamp(min=0)])
    return F.normalize(parts.pow(POWER).mean(dim=1).pow(1 / POWER), dim=0)


@own_settings()
def _described(predictor: Predictor, source: ImageSource, width: int) -> np.ndarray:
    try:
        image = predictor.reader.read_one(source)
    except MatcherError:
        return np.zeros(width, np.float32)
    cells = predictor.extract(image).coarse[0].float()[:, image.valid.to(predictor.device)]
    return pooled(cells).cpu().numpy() if cells.shape[1] else np.zeros(width, np.float32)
