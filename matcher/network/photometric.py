"""Sub-pixel refinement of matches by the pixels themselves; it needs no training.

Each match: the patch of image 0, and that of image 1 warped by the affine map that the matches
around it give (`local_affine`), are laid on each other (`patches`), first blurred and wide, then
sharp, then, where the network saw shrunk images, at the resolution of the stored ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from matcher.images.normalize import unpack_gray
from matcher.images.preprocess import PreparedImage, PreparedPair
from matcher.network.alignment import Aligned, Fit, Level, align, square_grid
from matcher.network.local_affine import common_similarity, determinant, local_affines, nearest
from matcher.network.patches import Usable, blurred, usable
from matcher.structures import Matches

__all__ = ["PhotometricMatches", "local_affines", "refine", "refine_matches"]

COARSE = Fit(radius=5, stride=2, blur=1.8, limit=6.0, correlation=0.8, steps=5, exact=False)
"""21 x 21 pixels, every other one: under that blur those between add nothing. Below a correlation
of 0.8 rendered scenes with noise end right less often than where the network left them."""
FINE = Fit(radius=6, stride=1, blur=0.7, limit=3.0, correlation=0.75, steps=6, exact=True)
"""13 x 13 pixels; 11 x 11 are worse by 1% within 0.25 px and as good within 1."""
FINER = replace(FINE, limit=2.0, steps=4, exact=False)
"""At more pixels than the network saw: from a tenth of a pixel of the network it is not far, and
twice the pixels of a large photograph would fill the memory."""
DOUBT = 0.3
"""Trust in a match that was not accepted, as a neighbor of others."""
SNAP = 3
"""Farthest move to a corner in pixels of the network."""
CHUNK = 512
"""Matches at a time: 4 MB of patches, which the caches of a CPU hold."""
GPU_CHUNK = 8192
"""The same on a GPU, which wants more at once."""


class PhotometricMatches(NamedTuple):
    """Refined matches, in the order they came in."""

    points0: Tensor
    """(M, 2) as given, or the corner that `snap` found"""
    points1: Tensor
    """(M, 2) refined; as given where no pass was accepted"""
    converged: Tensor
    """(M,) bool: the patches agree and fix the position in both directions"""
    correlation: Tensor
    """(M,) of the patches at the resolution of the network, in [-1, 1]; 0 where they cannot be
    compared"""


def refine_matches(
    pair: PreparedPair, matches: Matches, device: torch.device, *, snap: bool = False
) -> Matches:
    """`matches`, in pixels of the upright images in full size, refined there, on the CPU."""
    source0, source1 = (source_of(each, device) for each in pair)
    points0, points1 = matches.keypoints0.to(device), matches.keypoints1.to(device)
    found = refine(source0, source1, points0, points1, snap=snap)
    points0, points1, converged, correlation = (each.to("cpu") for each in found)
    return replace(
        matches,
        keypoints0=points0,
        keypoints1=points1,
        converged=converged,
        correlation=correlation,
    )


def source_of(image: PreparedImage, device: torch.device) -> Usable:
    """The pixels of an image in full size, upright, and what of them is good for comparing."""
    gray = torch.from_numpy(unpack_gray(image.image.gray)).to(device)
    mask = None if image.mask is None else torch.from_numpy(image.mask).to(device)
    return usable(gray, mask, max(1.0, float(image.scale.mean())))


def refine(
    source0: Usable,
    source1: Usable,
    points0: Tensor,
    points1: Tensor,
    *,
    snap: bool = False,
    chunk: int | None = None,
) -> PhotometricMatches:
    """Refine the matches of one pair of images.

    A match that a pass does not accept stays where the pass before, or the network, left it. On an
    edge it moves across the edge alone and counts as not converged. Patches and limits count in
    pixels of the network, of the image that shows less detail.

    Args:
        source0, source1: both images, which may be of different sizes.
        points0, points1: (M, 2) pixels of these images.
        snap: move points of image 0 to the strongest corner within 3 pixels of the network first.
        chunk: matches at a time; it bounds the memory and does not change the result.

    Returns:
        Of the same M, on the same device, the same for any order of them; nothing is NaN.
    """
    if len(points0) == 0:
        nothing = points0.new_zeros(0)
        return PhotometricMatches(points0, points1, nothing.bool(), nothing)
    order = _raster_order(points0)
    back = order.argsort()
    chunk = chunk or (CHUNK if points0.device.type == "cpu" else GPU_CHUNK)
    found = _refine_in_order(source0, source1, points0[order], points1[order], snap, chunk)
    return PhotometricMatches(*(values[back] for values in found))


def _raster_order(points: Tensor) -> Tensor:
    """(M,) indices of (M, 2) points row by row: scores that differ by rounding alone would change
    which of two neighbors at one distance counts."""
    by_x = points[:, 0].argsort(stable=True)
    return by_x[points[by_x, 1].argsort(stable=True)]


def _refine_in_order(
    source0: Usable,
    source1: Usable,
    points0: Tensor,
    points1: Tensor,
    snap: bool,
    chunk: int,
) -> PhotometricMatches:
    scale0, scale1 = source0.scale, source1.scale
    zoom = common_zoom(points0 / scale0, points1 / scale1) * scale1 / scale0
    start0, start1 = points0, points1
    moved = torch.zeros_like(points0[:, 0], dtype=torch.bool)
    converged, correlation = moved, torch.zeros_like(points0[:, 0])
    trust = torch.ones_like(correlation)
    near = nearest(points0 / scale0)
    for number, (unit0, fit) in enumerate(schedule(scale0, scale1, zoom)):
        warp = local_affines(points0 / scale0, points1 / scale1, near=near, weights=trust)
        warp = warp * (scale1 / scale0)
        if snap and number == 0:
            sharp = blurred(source0, FINE.blur * unit0)
            corners = strongest_corners(sharp, points0, unit0)
            points1 = points1 + (warp * (corners - points0)[:, None]).sum(-1)
            points0 = corners
            near = nearest(points0 / scale0)
        level0 = blurred(source0, fit.blur * unit0, fit.exact)
        level1 = blurred(source1, fit.blur * unit0 * zoom, fit.exact)
        found = align_chunks(level0, level1, points0, points1, unit0, warp * unit0, fit, chunk)
        del level0, level1  # The next ones may be as large.
        points1 = torch.where(found.accepted[:, None], found.points1, points1)
        moved = moved | found.accepted
        trust = torch.where(found.accepted, torch.ones_like(trust), DOUBT)
        if number == 1:
            converged, correlation = found.accepted & found.both_ways, found.correlation
    return PhotometricMatches(
        torch.where(moved[:, None], points0, start0),
        torch.where(moved[:, None], points1, start1),
        converged,
        correlation,
    )


def schedule(scale0: float, scale1: float, zoom: float) -> Iterator[tuple[float, Fit]]:
    """Passes, each with the pixels of image 0 in a sample; coarse to fine.

    Args:
        scale0, scale1: pixels of both images in a pixel that the network saw, at least 1.
        zoom: pixels of image 1 to a pixel of image 0.
    """
    network, stored = max(scale0, scale1 / zoom), max(1.0, 1 / zoom)
    yield network, COARSE
    yield network, FINE
    # From one level to the next by at most two: what is left of an error stays within the limit.
    levels = math.ceil(math.log2(max(network / stored, 1.0)) - 0.2)
    for level in range(1, levels + 1):
        yield network * (stored / network) ** (level / levels), FINER


def common_zoom(points0: Tensor, points1: Tensor) -> float:
    """Pixels of image 1 to a pixel of image 0, in quarter octaves: few matches do not change it."""
    area = float(determinant(common_similarity(points0, points1)))
    return 2 ** (round(2 * math.log2(area)) / 4)


def align_chunks(
    level0: Level,
    level1: Level,
    points0: Tensor,
    points1: Tensor,
    unit0: float,
    warp: Tensor,
    fit: Fit,
    chunk: int,
) -> Aligned:
    parts = [
        align(level0, level1, at0, at1, unit0, linear, fit)
        for at0, at1, linear in zip(
            points0.split(chunk), points1.split(chunk), warp.split(chunk), strict=True
        )
    ]
    return Aligned(*(torch.cat(column) for column in zip(*parts, strict=True)))


def strongest_corners(level: Level, points: Tensor, unit: float) -> Tensor:
    """(M, 2) where the lesser eigenvalue of the structure tensor is largest near each point.

    Points keep their place where nothing near is stronger, nearer places being preferred
    (Shi and Tomasi, "Good Features to Track", 1994).
    """
    image = F.pad(level.values[None, None], (1, 1, 1, 1), mode="replicate")[0, 0]
    x, y = image[1:-1, 2:] - image[1:-1, :-2], image[2:, 1:-1] - image[:-2, 1:-1]
    tensors = torch.stack([x * x, x * y, y * y])[:, None]
    xx, xy, yy = F.avg_pool2d(tensors, 5, stride=1, padding=2)[:, 0]
    strength = (xx + yy) / 2 - (((xx - yy) / 2).square() + xy.square()).sqrt()
    places = square_grid(SNAP, points)
    strongest = level._replace(values=strength)
    offsets = strongest.offsets(places * unit)
    value = strongest.sample(points, offsets) * strongest.weigh(points, offsets)
    value = value * torch.exp(places.square().sum(0) / -50)
    best = value.max(dim=1, keepdim=True)
    better = best.values > value[:, places.shape[1] // 2, None]
    return torch.where(better, points + unit * places.T[best.indices[:, 0]], points)
