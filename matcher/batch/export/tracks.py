"""One position an image for every track: what all its pairs see as one spot.

Each pair of images has placed a point towards its own partner. Here every keypoint of a track is
laid once more on the pixels, now of one view of the track, so that all of them mean the same spot.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from matcher.batch.export.keypoints import Merged, PairMatches
from matcher.batch.image_names import Root
from matcher.batch.options import CollectionOptions
from matcher.batch.run import Run
from matcher.errors import MatcherError
from matcher.geometry.pixels import network_size
from matcher.images.load import LoadedImage, Reading, load_image
from matcher.network.patches import usable
from matcher.network.photometric import refine

FARTHEST = 1.0
"""Longest move in pixels of the network; beyond, a wrong match has joined two tracks."""
IMAGES = 16
"""Images that are kept in memory."""


class Pixels(NamedTuple):
    """An image as `matcher.network.patches.usable` takes it."""

    gray: Tensor
    """(H, W) in [0, 1], as stored"""
    mask: Tensor | None
    """(H, W) bool, where the file holds something"""
    scale: float
    """Pixels in a pixel that the network saw"""

    @staticmethod
    def of(image: LoadedImage, max_side: int | None) -> Pixels:
        mask = None if image.valid is None else torch.from_numpy(image.valid)
        scale = max(image.size) / max(network_size(*image.size, max_side))
        return Pixels(torch.from_numpy(image.gray), mask, scale)


Load = Callable[[int], Pixels]
"""The pixels of an image by its number."""


def pixels_of(run: Run, root: Root, options: CollectionOptions) -> Load | None:
    """How the tracks of a run see its images; None where they are not to be refined."""
    if not options.refine_tracks or options.refine == "none":
        return None
    reading: Reading = {**options.reading, "apply_exif": False}

    def load(image: int) -> Pixels:
        return Pixels.of(load_image(root.path(run.pairs.names[image]), **reading), options.max_side)

    return load


@torch.inference_mode()
def refine_tracks(
    merged: Merged, pairs: Iterable[PairMatches], load: Load, *, placed_only: bool = False
) -> tuple[int, int]:
    """Moves the keypoints of `merged` to where the reference of their track is in their images.

    The reference is the keypoint with most matches; it stays. So do those that the pixels do not
    place, and all of an image that cannot be read. Memory holds all keypoints and matches, not as
    `merged`.

    Args:
        pairs: those that were merged.
        placed_only: leave out the matches of keypoints that the pixels do not place.

    Returns:
        The number of keypoints that were placed, and of all that are not references.
    """
    load = lru_cache(IMAGES)(load)
    starts = np.concatenate([[0], np.cumsum(merged.counts)])
    points = np.concatenate([merged.keypoints(image)[0] for image in range(len(merged.counts))])
    reference = references(_edges(merged, pairs, starts), len(points))
    others = np.flatnonzero(reference != np.arange(len(points)))
    placed, left, count = points.copy(), np.zeros(len(points), bool), 0
    for group in _by_images(others, reference, starts):
        image0, image1 = _image_of(np.array([reference[group[0]], group[0]]), starts).tolist()
        if image0 == image1:
            continue
        try:
            pixels0, pixels1 = load(image0), load(image1)
        except MatcherError:
            continue
        points0, points1 = map(torch.from_numpy, (points[reference[group]], points[group]))
        found = refine(usable(*pixels0), usable(*pixels1), points0, points1)
        there = found.points1.numpy()
        moved = np.linalg.norm(there - points[group], axis=1) / pixels1.scale
        good = found.converged.numpy() & (moved < FARTHEST)
        placed[group[good]] = there[good]
        left[group] = ~good & placed_only
        count += int(good.sum())
    for image, (start, end) in enumerate(pairwise(starts.tolist())):
        merged.place(image, placed[start:end], left[start:end])
    return count, len(others)


def references(edges: np.ndarray, count: int) -> np.ndarray:
    """(count,) for each keypoint the one of its track that has most matches, the first of several.

    Args:
        edges: (E, 2) matches between keypoints.
        count: of keypoints.
    """
    matches = np.bincount(edges.ravel(), minlength=count)
    # Ranks, so that the best of a track is the least that reaches all others along the matches.
    order = np.lexsort((np.arange(count), -matches))
    rank = np.empty(count, np.int64)
    rank[order] = np.arange(count)
    first, second = rank[edges].T
    best = np.arange(count)
    while True:
        least = np.minimum(best[first], best[second])
        before = best.copy()
        np.minimum.at(best, first, least)
        np.minimum.at(best, second, least)
        best = best[best]
        if (best == before).all():
            return order[best[rank]]


def _edges(merged: Merged, pairs: Iterable[PairMatches], starts: np.ndarray) -> np.ndarray:
    """(E, 2) matches between keypoints, numbered through all images."""
    found = [
        merged.matches(pair)[0].astype(np.int64) + starts[[pair.image0, pair.image1]]
        for pair in pairs
    ]
    return np.concatenate([np.zeros((0, 2), np.int64), *found])


def _by_images(
    others: np.ndarray, reference: np.ndarray, starts: np.ndarray
) -> Iterator[np.ndarray]:
    """Keypoints that share their image and that of their reference, in order of the latter."""
    image0, image1 = (_image_of(each, starts) for each in (reference[others], others))
    both = image0 * len(starts) + image1
    order = np.argsort(both, kind="stable")
    cuts = np.flatnonzero(np.diff(both[order])) + 1
    yield from (group for group in np.split(others[order], cuts) if len(group))


def _image_of(keypoints: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """(K,) numbers of the images that keypoints belong to."""
    return np.searchsorted(starts, keypoints, side="right") - 1
