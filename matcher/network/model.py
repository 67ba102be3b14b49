"""The matcher: two images in, matched keypoints in network pixels out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from matcher.config import MatcherConfig
from matcher.network.backbone import Backbone
from matcher.network.coarse import CoarseMatcher
from matcher.network.fine import FineMatcher
from matcher.network.position import PositionEncoding
from matcher.network.transformer import build_transformer
from matcher.structures import CoarseMatches, FeatureMaps, MatcherOutput, TrainingOutput


class FeatureMatcher(nn.Module):
    """A detector-free matcher in five stages (LoFTR, Sun et al., CVPR 2021).

    1. `extract`: the backbone turns an image into a coarse and a fine feature map.
    2. `position`: coarse features learn where they are.
    3. `transformer`: self- and cross-attention between the coarse maps of the two images.
    4. `coarse`: cells that are each other's best become matches.
    5. `fine`: the position of each match in image 1 below a pixel, from the fine maps.

    There are two compositions of these: `match` for inference (`forward` from images on) and
    `forward_training`, which refines given true matches and returns what the losses need.

    Letters: B batch, L/S cells of image 0/1, C channels, M matches.
    """

    def __init__(self, config: MatcherConfig) -> None:
        super().__init__()
        self.config = config
        self.canvas = config.canvas
        self.stride, self.fine_stride = config.backbone.resolution
        channels, ratio = config.backbone.coarse_dim, self.stride // self.fine_stride
        self.backbone = Backbone(config.backbone)
        self.position = PositionEncoding(config.position)
        self.transformer = build_transformer(config.transformer, channels)
        self.coarse = CoarseMatcher(config.coarse)
        self.fine = FineMatcher(config.fine, channels, config.backbone.fine_dim, ratio)
        self.reach = self.fine.window // 2 * self.fine_stride
        """Pixels of half a fine window."""

    def extract(self, image: Tensor) -> FeatureMaps:
        """Stage 1: backbone features of (B, 1, H, W) images.

        Raises:
            ValueError: H or W is not divisible by `config.canvas`.
        """
        h, w = image.shape[-2:]
        if h % self.canvas or w % self.canvas:
            raise ValueError(f"image of {h}x{w} is not divisible by {self.canvas}")
        return self.backbone(image)

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
        coarse0, coarse1 = self.position(features0.coarse), self.position(features1.coarse)
        coarse0, coarse1 = self.transformer(coarse0, coarse1, mask0, mask1)
        matches = self.coarse.match(coarse0, coarse1, mask0, mask1, threshold)
        fine = features0.fine, features1.fine
        offset, deviation = self.fine.refine(*fine, coarse0, coarse1, matches)
        return MatcherOutput(
            keypoints0=self.cell_centers(matches.index0, coarse0.shape[-1]),
            keypoints1=self.cell_centers(matches.index1, coarse1.shape[-1]) + offset * self.reach,
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
        coarse0, coarse1 = self.position(features0.coarse), self.position(features1.coarse)
        coarse0, coarse1 = self.transformer(coarse0, coarse1, cells0, cells1)
        count, device = matches.batch.numel(), matches.batch.device
        chosen = torch.arange(count, device=device)
        if count > limit:
            chosen = torch.randperm(count)[:limit].sort().values.to(device)
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
        return None if mask is None else mask[:, :: self.stride, :: self.stride]

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
        row = index // columns
        return torch.stack([index - row * columns, row], dim=1).float() * self.stride


def build_matcher(config: MatcherConfig | None = None) -> FeatureMatcher:
    """A matcher with random weights; nothing is downloaded."""
    return FeatureMatcher(config or MatcherConfig())
