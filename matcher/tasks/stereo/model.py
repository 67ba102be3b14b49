"""The stereo network: rectified images of any size to disparity and occlusion."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from matcher.tasks.stereo.config import StereoConfig
from matcher.tasks.stereo.features import StereoBackbone, StereoTransformer, ViewFeatures
from matcher.tasks.stereo.matching import RowMatching
from matcher.tasks.stereo.refine import Refinement
from matcher.tasks.stereo.structures import StereoOutput


class Stereo(nn.Module):
    """Dense disparity of the left view by QuadTree attention (Tang et al., ICLR 2022).

    The setting is that of STTR (Li et al., ICCV 2021): attention along rows and a dustbin for what
    is hidden. Self-attention descends a 2-D QuadTree, cross-attention a tree of each row.
    """

    def __init__(self, config: StereoConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = StereoBackbone(config)
        self.transformer = StereoTransformer(config)
        self.matching = RowMatching(config)
        self.refinement = Refinement(config)

    def forward(self, left: Tensor, right: Tensor, valid: Tensor | None = None) -> StereoOutput:
        """Match both views.

        Args:
            left, right: (B, 1, H, W) gray in [0, 1], of any size: they are padded on the right and
                at the bottom, and what is padded takes no part.
            valid: (B, H, W) bool of pixels that belong to the images; None means all.

        Raises:
            ValueError: the views differ in size.
        """
        if left.shape != right.shape:
            raise ValueError(f"views of {tuple(left.shape)} and {tuple(right.shape)}")
        size = left.shape[-2], left.shape[-1]
        both, mask = self._padded(torch.cat([left, right]), valid)
        # 1. Features of both views, each by itself.
        features = self.backbone(both)
        # 2. Attention within each view and along the rows between them.
        cells = None if mask is None else mask[:, ::4, ::4]
        coarse = self.transformer(features.coarse, _twice(cells))
        # 3. The column of the right view that each left cell matches.
        left_map, right_map = coarse.chunk(2)
        matches = self.matching(left_map, right_map, cells)
        # 4. Full size.
        refined = self.refinement(matches, left_map, ViewFeatures(coarse, features.fine))
        return StereoOutput(
            matches.probability,
            matches.disparity,
            refined.disparity[..., : size[0], : size[1]],
            refined.occlusion[..., : size[0], : size[1]],
        )

    def _padded(self, both: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """(2B, 1, H', W') images, 0 outside, and (B, H', W') bool of pixels; None if all are."""
        border = [
            n
            for side in (both.shape[-1], both.shape[-2])
            for n in (0, -side % self.config.multiple)
        ]
        if valid is None and not any(border):
            return both, None
        if valid is None:
            valid = torch.ones_like(both[: len(both) // 2, 0], dtype=torch.bool)
        both = both.masked_fill(~torch.cat([valid, valid])[:, None], 0.0)
        return F.pad(both, border), F.pad(valid, border)


def _twice(mask: Tensor | None) -> Tensor | None:
    return None if mask is None else torch.cat([mask, mask])
