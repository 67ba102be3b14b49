"""Feature maps of several sizes as one batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from matcher.structures import FeatureMaps


def pad_feature_maps(
    maps: Sequence[FeatureMaps], cells: Sequence[Tensor]
) -> tuple[FeatureMaps, Tensor | None]:
    """Feature maps of several sizes as one batch, padded at the bottom and the right.

    Batches pad feature maps and never images: an image must not feel its batch mates.

    Args:
        maps: of one image each, (1, C, h, w) and (1, D, H, W).
        cells: (h, w) bool of the valid cells of each.

    Returns:
        (B, C, h, w) and (B, D, H, W) maps and the (B, h, w) mask of valid cells, None where all
        are.
    """
    mask = stack_padded([each[None] for each in cells])
    features = FeatureMaps(
        stack_padded([each.coarse for each in maps]), stack_padded([each.fine for each in maps])
    )
    return features, None if mask.all() else mask


def stack_padded(maps: Sequence[Tensor]) -> Tensor:
    """(B, …, H, W) of (1, …, h, w) maps; zeros where one ends before the largest."""
    if len(maps) == 1:
        return maps[0]
    height, width = (max(each.shape[side] for each in maps) for side in (-2, -1))
    return torch.cat(
        [F.pad(each, (0, width - each.shape[-1], 0, height - each.shape[-2])) for each in maps]
    )
