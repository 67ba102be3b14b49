"""Patches of two images brought to lie on each other, by their pixels alone.

Inverse compositional Gauss-Newton on the translation (Baker and Matthews, "Lucas-Kanade 20 Years
On", 2004), with the gain and the bias of the light solved for. Every match by itself: sums run
over one patch, in the same order in any batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

FLAT = 0.5 / 255
"""Deviation of a patch, of white, below which it shows nothing but the steps of 8 bits."""
CURVATURE = 0.003
"""Squared slope per pixel of a patch of deviation 1 below which a direction is not to be trusted.
On rendered warps the tenth of the matches below it end within 0.5 px half as often as the next."""
SETTLED = 0.1
"""Last step in samples above which the steps have not come to rest."""
FALL = 0.02
"""Correlation that may be lost: Gauss-Newton on noise does not always gain. Of 1,444 matches that a
limit of 0.001 rejects on rendered warps, 1,387 are right within 1 px."""
SUPPORT = 0.3
"""Least share of a patch that lies on usable pixels."""


class Level(NamedTuple):
    """A blurred image, and how far its pixels may be used."""

    values: Tensor
    """(h, w)"""
    weight: Tensor
    """(h', w') in [0, 1]; covers the same area"""
    extent: tuple[float, float]
    """(width, height) of that area in pixels of the image"""

    def offsets(self, places: Tensor, warp: Tensor | None = None) -> Tensor:
        """Ways from a center to (2, G) places in pixels, (1, 2, G), or under (M, 2, 2) maps to
        pixels, (M, 2, G)."""
        unit = 2 / places.new_tensor(self.extent)[:, None]
        if warp is None:
            return (places * unit)[None]
        # Coordinates in planes, of which each place is a whole row: five times as fast as pairs.
        rows = warp * unit
        return torch.addcmul(rows[..., :1] * places[0], rows[..., 1:], places[1])

    def sample(self, centers: Tensor, offsets: Tensor) -> Tensor:
        """(M, G) values at (M, 2, G) or (1, 2, G) `offsets` from (M, 2) pixels of the image."""
        return self._read(self.values, centers, offsets, "border")

    def weigh(self, centers: Tensor, offsets: Tensor) -> Tensor:
        """(M, G) weights, as `sample`; 0 outside of the image."""
        return self._read(self.weight, centers, offsets, "zeros")

    def _read(self, values: Tensor, centers: Tensor, offsets: Tensor, beyond: str) -> Tensor:
        starts = (centers + 0.5) * (2 / centers.new_tensor(self.extent)) - 1
        grid = (starts[..., None] + offsets).mT
        # One item of a batch for each match: torch runs threads over the batch only.
        items = values.expand(len(grid), 1, *values.shape)
        return F.grid_sample(items, grid[:, None], padding_mode=beyond, align_corners=False)[
            :, 0, 0
        ]


@dataclass(frozen=True)
class Fit:
    """How patches are aligned. A sample is the unit in which `align` is told its two images."""

    radius: int
    """Places of the patch on each side of its center"""
    stride: int
    """Samples between the places"""
    blur: float
    """Gaussian sigma of both images in samples"""
    limit: float
    """Farthest move in samples that is accepted"""
    correlation: float
    """Least correlation that is accepted"""
    steps: int
    exact: bool
    """See `blurred`."""

    def places(self, like: Tensor, margin: int = 0) -> Tensor:
        """(2, G) of a patch with `margin` more places on each side, row by row, in samples."""
        return square_grid(self.radius + margin, like) * self.stride


def square_grid(radius: int, like: Tensor) -> Tensor:
    """(2, G) whole x and y from -radius to radius, row by row."""
    line = torch.arange(-radius, radius + 1, dtype=like.dtype, device=like.device)
    return torch.stack(torch.meshgrid(line, line, indexing="xy")).flatten(1)


class Aligned(NamedTuple):
    """Where patches came to rest."""

    points1: Tensor
    """(M, 2)"""
    correlation: Tensor
    """(M,) there"""
    accepted: Tensor
    """(M,) bool: it moved little, came to rest, and the patches agree"""
    both_ways: Tensor
    """(M,) bool: the patch fixes the position in both directions, not only across an edge"""


def align(
    level0: Level,
    level1: Level,
    points0: Tensor,
    points1: Tensor,
    unit0: float,
    warp: Tensor,
    fit: Fit,
) -> Aligned:
    """Moves points of image 1 to where the patches around them look like those of image 0.

    Args:
        level0, level1: the images under the blur of `fit`.
        points0, points1: (M, 2) pixels.
        unit0: pixels of image 0 in a sample.
        warp: (M, 2, 2) a sample of the patch in pixels of image 1.
        fit: size, steps and limits.
    """
    around = level1.offsets(fit.places(points0), warp)
    support = level1.weigh(points1, around)
    template = _template(level0, points0, unit0, support, fit)
    moved, last = points1, torch.zeros_like(points1[:, 0])
    total = torch.zeros_like(points1)
    before = None
    for _ in range(fit.steps):
        view = template.compare(level1.sample(moved, around))
        before = view.correlation if before is None else before
        length = view.step.norm(dim=1, keepdim=True)
        step = view.step * (fit.stride / length.clamp(min=fit.stride))
        total, last = total - step, length[:, 0]
        moved = points1 + (warp * total[:, None]).sum(-1)
    after = template.compare(level1.sample(moved, around))
    before = after.correlation if before is None else before
    seen = template.support > SUPPORT
    seen &= torch.minimum(template.deviation, after.deviation) > FLAT
    accepted = (
        seen
        & (last < SETTLED)
        & (total.norm(dim=1) < fit.limit)
        & (after.correlation > fit.correlation)
        & (after.correlation > before - FALL)
    )
    correlation = torch.where(seen, after.correlation, 0.0).clamp(-1, 1)
    return Aligned(moved, correlation, accepted, template.curvature > 2 * CURVATURE)


class View(NamedTuple):
    """A patch of image 1 beside its template."""

    step: Tensor
    """(M, 2) of Gauss-Newton, in samples, to be taken back"""
    correlation: Tensor
    """(M,)"""
    deviation: Tensor
    """(M,)"""


class Template(NamedTuple):
    """Patches of image 0, prepared once for all steps."""

    weight: Tensor
    """(M, G) that sums to 1"""
    rows: Tensor
    """(M, 4, G) whose products with a patch are: both slopes, the covariance, the mean"""
    inverse: Tensor
    """(M, 2, 2) of the curvature; nothing along directions that are not to be trusted"""
    curvature: Tensor
    """(M,) the lesser one"""
    deviation: Tensor
    """(M,) of the patch"""
    support: Tensor
    """(M,) share of it on usable pixels"""

    def compare(self, patch: Tensor) -> View:
        """The (M, G) `patch` of image 1 against the template."""
        products = (self.rows * patch[:, None]).sum(-1)
        slopes, covariance, mean = products[:, :2], products[:, 2], products[:, 3]
        centred = patch - mean[:, None]
        deviation = (self.weight * centred.square()).sum(1).clamp(min=1e-12).sqrt()
        # The gain of the light; where patches do not agree yet, one that keeps the step short.
        gain = torch.maximum(covariance, 0.3 * deviation).clamp(min=1e-4)
        step = (self.inverse * (slopes / gain[:, None])[:, None]).sum(-1)
        return View(step, covariance / deviation.clamp(min=FLAT / 2), deviation)


def _template(level: Level, points: Tensor, unit: float, support: Tensor, fit: Fit) -> Template:
    """Slopes free of what gain and bias explain, and their curvature; `support` (M, G) is the
    weight of the patches of image 1."""
    side, step = 2 * fit.radius + 3, 2 * fit.stride
    patch = level.sample(points, level.offsets(fit.places(points, margin=1) * unit))
    patch = patch.view(-1, side, side)
    slope_x = (patch[:, 1:-1, 2:] - patch[:, 1:-1, :-2]).flatten(1) / step
    slope_y = (patch[:, 2:, 1:-1] - patch[:, :-2, 1:-1]).flatten(1) / step
    places = fit.places(points)
    window = torch.exp(places.square().sum(0) / (-2 * (0.7 * fit.radius * fit.stride) ** 2))
    weight = window * level.weigh(points, level.offsets(places * unit)) * support
    total = weight.sum(1)
    weight = weight / total.clamp(min=1e-6)[:, None]
    patch = patch[:, 1:-1, 1:-1].flatten(1)
    patch = patch - (weight * patch).sum(1, keepdim=True)
    deviation = (weight * patch.square()).sum(1).clamp(min=1e-12).sqrt()
    scale = deviation.clamp(min=1e-4)[:, None]
    patch = patch / scale
    slopes = torch.stack([slope_x, slope_y], dim=1) / scale[:, None]
    slopes = slopes - (weight[:, None] * slopes).sum(2, keepdim=True)
    slopes = slopes - patch[:, None] * (weight * patch)[:, None].mul(slopes).sum(2, keepdim=True)
    weighted = weight[:, None] * slopes
    xx, yy = (weighted * slopes).sum(2).unbind(1)
    inverse, curvature = _trusted_inverse(xx, (weighted[:, 0] * slopes[:, 1]).sum(1), yy)
    rows = torch.cat([weighted, (weight * patch)[:, None], weight[:, None]], dim=1)
    return Template(weight, rows, inverse, curvature, deviation, total / window.sum())


def _trusted_inverse(xx: Tensor, xy: Tensor, yy: Tensor) -> tuple[Tensor, Tensor]:
    """(M, 2, 2) inverse of symmetric matrices along trusted directions, and lesser eigenvalue."""
    half, mean = (xx - yy) / 2, (xx + yy) / 2
    root = (half.square() + xy.square() + 1e-20).sqrt()
    large, small = mean + root, mean - root
    along, across = (
        torch.where(value > CURVATURE, 1 / value.clamp(min=CURVATURE), 0.0)
        for value in (large, small)
    )
    # (I + R) / 2 projects on the direction of the larger one, (I - R) / 2 on the other.
    turn = torch.stack([half, xy, xy, -half], dim=-1).view(-1, 2, 2) / root[:, None, None]
    identity = torch.eye(2, dtype=xx.dtype, device=xx.device)
    sum_, difference = (along + across) / 2, (along - across) / 2
    return sum_[:, None, None] * identity + difference[:, None, None] * turn, small
