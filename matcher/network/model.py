"""The matcher: two images in, matched keypoints in network pixels out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from matcher.config import MatcherConfig
from matcher.network.backbone import Backbone
from matcher.network.coarse import CoarseMatcher
from matcher.network.fine import FineMatcher
from matcher.network.position import PositionEncoding
from matcher.network.transformer import Transformer, build_transformer
from matcher.structures import CoarseMatches, FeatureMaps, MatcherOutput, TrainingOutput


class FeatureMatcher(nn.Module):
    """A detector-free matcher in five stages (LoFTR, Sun et al., CVPR 2021).

    1. `extract`: the backbone turns an image into a coarse and a fine feature map.
    2. `add_position`: coarse features learn where they are.
    3. `transform`: self- and cross-attention between the coarse maps of the two images.
    4. `match_coarse`: cells that are each other's best become matches.
    5. `refine`: the position of each match in image 1 below a pixel, from the fine maps.

    There are two compositions of these: `match` for inference (`forward` from images on) and
    `forward_training`, which refines given true matches and returns what the losses need.

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

    def extract(self, image: Tensor) -> FeatureMaps:
        """Stage 1: backbone features of (B, 1, H, W) images.

        Raises:
            ValueError: H or W is not divisible by `config.canvas`.
        """
        h, w = image.shape[-2:]
        if h % self.config.canvas or w % self.config.canvas:
            raise ValueError(f"image of {h}x{w} is not divisible by {self.config.canvas}")
        return self.backbone(image)

    def add_position(self, coarse0: Tensor, coarse1: Tensor) -> tuple[Tensor, Tensor]:
        """Stage 2: (B, C, h, w) coarse features with the code of their row and column."""
        return self.position(coarse0), self.position(coarse1)

    def transform(
        self, coarse0: Tensor, coarse1: Tensor, mask0: Tensor | None, mask1: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Stage 3: coarse maps that have looked at themselves and at each other.

        Args:
            coarse0: (B, C, h0, w0); coarse1: (B, C, h1, w1).
            mask0: (B, h0, w0) bool of valid cells, None means everywhere; mask1 likewise.
        """
        return self.transformer(coarse0, coarse1, mask0, mask1)

    def match_coarse(
        self,
        coarse0: Tensor,
        coarse1: Tensor,
        mask0: Tensor | None,
        mask1: Tensor | None,
        threshold: float | None = None,
    ) -> CoarseMatches:
        """Stage 4: mutual best cells above the threshold; arguments as of `transform`."""
        return self.coarse.match(coarse0, coarse1, mask0, mask1, threshold)

    def refine(
        self, fine0: Tensor, fine1: Tensor, coarse0: Tensor, coarse1: Tensor, matches: CoarseMatches
    ) -> tuple[Tensor, Tensor]:
        """Stage 5: (M, 2) offset (x, y) of each match in image 1 from the center of its cell, and
        (M,) standard deviation, both in half windows.

        Args:
            fine0: (B, D, H0/2, W0/2) fine map; fine1 likewise.
            coarse0, coarse1: after the transformer.
            matches: M matched cells.
        """
        return self.fine.refine(fine0, fine1, coarse0, coarse1, matches)

    def forward(
        self,
        image0: Tensor,
        image1: Tensor,
        mask0: Tensor | None = None,
        mask1: Tensor | None = None,
        *,
        threshold: float | None = None,
    ) -> MatcherOutput:
        """Match a batch of pairs: stages 1 to 5.

        Args:
            image0: (B, 1, H0, W0) gray in [0, 1], H0 and W0 divisible by `config.canvas`.
            image1: (B, 1, H1, W1) likewise.
            mask0: (B, H0, W0) bool, True where a pixel may match; None means everywhere.
            mask1: likewise.
            threshold: replaces the configured one.
        """
        features0, features1 = self.extract(image0), self.extract(image1)
        cells0, cells1 = self.cell_mask(mask0), self.cell_mask(mask1)
        return self.match(features0, features1, cells0, cells1, threshold=threshold)

    def match(
        self,
        features0: FeatureMaps,
        features1: FeatureMaps,
        mask0: Tensor | None = None,
        mask1: Tensor | None = None,
        *,
        threshold: float | None = None,
    ) -> MatcherOutput:
        """Match extracted features: stages 2 to 5, the composition for inference.

        Args:
            features0: of image 0; `features1` of image 1.
            mask0: (B, h0, w0) bool of valid coarse cells, None means everywhere; `mask1` likewise.
            threshold: replaces the configured one.
        """
        coarse0, coarse1 = self.add_position(features0.coarse, features1.coarse)
        coarse0, coarse1 = self.transform(coarse0, coarse1, mask0, mask1)
        matches = self.match_coarse(coarse0, coarse1, mask0, mask1, threshold)
        offset, deviation = self.refine(features0.fine, features1.fine, coarse0, coarse1, matches)
        center0 = self.cell_centers(matches.index0, coarse0.shape[-1])
        center1 = self.cell_centers(matches.index1, coarse1.shape[-1])
        reach = self.fine.window // 2 * self.config.backbone.resolution[1]
        return MatcherOutput(
            keypoints0=center0,
            keypoints1=center1 + offset * reach,
            score=matches.score,
            batch=matches.batch,
            deviation=deviation,
            coarse=matches,
            coarse0=coarse0,
            coarse1=coarse1,
        )

    def forward_training(
        self,
        image0: Tensor,
        image1: Tensor,
        mask0: Tensor | None,
        mask1: Tensor | None,
        matches: CoarseMatches,
        limit: int,
    ) -> TrainingOutput:
        """Refine true matches: the composition for training.

        The losses take stage 4 from here: they know which confidences they need.

        Args:
            image0, image1, mask0, mask1: as of `forward`.
            matches: M true matches of cells, at least one.
            limit: at most so many are refined, drawn at random.
        """
        features0, features1 = self._extract_both(image0, image1)
        cells0, cells1 = self.cell_mask(mask0), self.cell_mask(mask1)
        coarse0, coarse1 = self.add_position(features0.coarse, features1.coarse)
        coarse0, coarse1 = self.transform(coarse0, coarse1, cells0, cells1)
        chosen = _draw(matches.batch, limit)
        log_heatmap = self.fine.correlate(
            features0.fine, features1.fine, coarse0, coarse1, *(x[chosen] for x in matches[:3])
        )
        return TrainingOutput(
            features0,
            features1,
            coarse0,
            coarse1,
            cells0,
            cells1,
            chosen,
            log_heatmap,
            *self.fine.soft_argmax(log_heatmap),
        )

    def cell_mask(self, mask: Tensor | None) -> Tensor | None:
        """(B, H, W) mask of pixels to (B, H/8, W/8) of cells: that of the center pixel (8i, 8j)."""
        stride = self.config.backbone.resolution[0]
        return None if mask is None else mask[:, ::stride, ::stride]

    def _extract_both(self, image0: Tensor, image1: Tensor) -> tuple[FeatureMaps, FeatureMaps]:
        """Features of both images, in one pass where their sizes agree."""
        if image0.shape != image1.shape:
            return self.extract(image0), self.extract(image1)
        both = self.extract(torch.cat([image0, image1]))
        halves = zip(both.coarse.chunk(2), both.fine.chunk(2), strict=True)
        features0, features1 = (FeatureMaps(*maps) for maps in halves)
        return features0, features1

    def cell_centers(self, index: Tensor, columns: int) -> Tensor:
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


def _draw(matches: Tensor, limit: int) -> Tensor:
    """(R,) indices, in order, of at most `limit` of M matches, drawn at random where M is more."""
    count = matches.numel()
    if count > limit:
        return torch.randperm(count)[:limit].sort().values.to(matches.device)
    return torch.arange(count, device=matches.device)
