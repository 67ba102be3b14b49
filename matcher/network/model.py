"""The matcher: two images in, matched keypoints in network pixels out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from matcher.config import MatcherConfig
from matcher.network.backbone import Backbone
from matcher.network.coarse import CoarseMatcher
from matcher.network.fine import FineMatcher
from matcher.network.position import PositionEncoding
from matcher.network.transformer import Recording, Transformer, build_transformer
from matcher.structures import CoarseMatches, FeatureMaps, MatcherOutput


class FeatureMatcher(nn.Module):
    """A detector-free matcher assembled from its parts.

    Letters: B batch, L/S cells of image 0/1, C channels, M matches.
    """

    def __init__(
        self,
        config: MatcherConfig,
        backbone: Backbone,
        position: PositionEncoding,
        transformer: Transformer,
        coarse: CoarseMatcher,
        fine: FineMatcher,
    ) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone
        self.position = position
        self.transformer = transformer
        self.coarse = coarse
        self.fine = fine

    def forward(
        self,
        image0: Tensor,
        image1: Tensor,
        mask0: Tensor | None = None,
        mask1: Tensor | None = None,
    ) -> MatcherOutput:
        """Match a batch of pairs.

        Args:
            image0: (B, 1, H0, W0) gray in [0, 1], H0 and W0 divisible by `config.canvas`.
            image1: (B, 1, H1, W1) likewise.
            mask0: (B, H0, W0) bool, True where a pixel may match; None means everywhere.
            mask1: likewise.
        """
        features0, features1 = self.extract(image0), self.extract(image1)
        return self.match(features0, features1, self.cell_mask(mask0), self.cell_mask(mask1))

    def extract(self, image: Tensor) -> FeatureMaps:
        """Backbone features of (B, 1, H, W) images.

        Raises:
            ValueError: H or W is not divisible by `config.canvas`.
        """
        h, w = image.shape[-2:]
        if h % self.config.canvas or w % self.config.canvas:
            raise ValueError(f"image of {h}x{w} is not divisible by {self.config.canvas}")
        return self.backbone(image)

    def attend(
        self,
        coarse0: Tensor,
        coarse1: Tensor,
        mask0: Tensor | None = None,
        mask1: Tensor | None = None,
        recording: Recording | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Position encoding and transformer on (B, C, h, w) maps, masks (B, h, w) of cells."""
        x0, x1 = self.position(coarse0), self.position(coarse1)
        return self.transformer(x0, x1, mask0, mask1, recording)

    def match(
        self,
        features0: FeatureMaps,
        features1: FeatureMaps,
        mask0: Tensor | None = None,
        mask1: Tensor | None = None,
        *,
        threshold: float | None = None,
    ) -> MatcherOutput:
        """Match extracted features.

        Args:
            features0: of image 0; `features1` of image 1.
            mask0: (B, h0, w0) bool of valid coarse cells, None means everywhere; `mask1` likewise.
            threshold: replaces the configured one.
        """
        coarse0, coarse1 = self.attend(features0.coarse, features1.coarse, mask0, mask1)
        matches = self.coarse.match(coarse0, coarse1, mask0, mask1, threshold)
        offset, deviation = self.fine.refine(
            features0.fine, features1.fine, coarse0, coarse1, matches
        )
        centre0 = self.cell_centres(matches.index0, coarse0.shape[-1])
        centre1 = self.cell_centres(matches.index1, coarse1.shape[-1])
        reach = self.fine.window // 2 * self.config.backbone.resolution[1]
        return MatcherOutput(
            keypoints0=centre0,
            keypoints1=centre1 + offset * reach,
            score=matches.score,
            batch=matches.batch,
            deviation=deviation,
            coarse=CoarseMatches(*matches),
        )

    def cell_mask(self, mask: Tensor | None) -> Tensor | None:
        """(B, H, W) mask of pixels to (B, H/8, W/8) of cells: that of the centre pixel (8i, 8j)."""
        stride = self.config.backbone.resolution[0]
        return None if mask is None else mask[:, ::stride, ::stride]

    def cell_centres(self, index: Tensor, columns: int) -> Tensor:
        """(M, 2) pixel (x, y) of cells with raster `index` in a map of `columns` columns."""
        stride = self.config.backbone.resolution[0]
        return torch.stack([index % columns, index // columns], dim=1).float() * stride


def build_matcher(config: MatcherConfig | None = None) -> FeatureMatcher:
    """A matcher with random weights; nothing is downloaded."""
    config = MatcherConfig() if config is None else config
    channels = config.backbone.coarse_dim
    coarse_stride, fine_stride = config.backbone.resolution
    return FeatureMatcher(
        config,
        Backbone(config.backbone),
        PositionEncoding(config.position),
        build_transformer(config.transformer, channels),
        CoarseMatcher(config.coarse),
        FineMatcher(config.fine, channels, config.backbone.fine_dim, coarse_stride // fine_stride),
    )
