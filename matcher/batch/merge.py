"""Matches of many pairs to keypoints of each image that pairs share.

Points of an image that fall into the same cell of a grid become one keypoint. Cells are centred
on multiples of their side, as the points that the network starts from are at full size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from matcher.batch.run import Run
from matcher.batch.shards import OK


@dataclass(frozen=True)
class PairMatches:
    """Matches of the pair with a number in the list."""

    number: int
    image0: int
    image1: int
    keypoints0: np.ndarray
    """(M, 2) float32"""
    keypoints1: np.ndarray
    scores: np.ndarray
    """(M,) float32"""


@dataclass(frozen=True)
class Merged:
    """Keypoints of images, and matches as indices into them."""

    keypoints: list[np.ndarray]
    """(K, 2) float32 of each image"""
    scores: list[np.ndarray]
    """(K,) float32 the best of each keypoint"""
    pairs: list[tuple[int, int]]
    """images of each pair that has matches"""
    matches: list[np.ndarray]
    """(M, 2) uint32 of each pair, one to one"""
    match_scores: list[np.ndarray]
    """(M,) float32"""


def pair_matches(run: Run) -> Iterator[PairMatches]:
    """Every pair of a finished run that was matched; those without a match are empty.

    Raises:
        UsageError: the run is not finished (E208).
        StorageError: a shard is damaged (E402).
    """
    for number, shard in run.read_all():
        first = run.range(number).start
        ends = np.cumsum(shard.count)
        for i in np.flatnonzero(shard.status <= OK + 1):
            part = slice(int(ends[i] - shard.count[i]), int(ends[i]))
            image0, image1 = run.pairs.index[first + i].tolist()
            yield PairMatches(
                first + int(i),
                image0,
                image1,
                shard.keypoints0[part],
                shard.keypoints1[part],
                shard.scores[part],
            )


def merge_keypoints(found: list[PairMatches], images: int, side: float) -> Merged:
    """Keypoints of all images at once.

    Args:
        found: matches of pairs of different images.
        images: their number.
        side: of a cell in pixels.

    Returns:
        A keypoint lies at the mean of the points of its cell, weighted by their scores. Of several
        matches of a keypoint in one pair the best is kept.
    """
    found = [pair for pair in found if len(pair.scores) and pair.image0 != pair.image1]
    sizes = [len(pair.scores) for pair in found]
    scores = _joined([pair.scores for pair in found], (0,))
    sides = np.array([(p.image0, p.image1) for p in found], np.int64).reshape(-1, 2)
    image = np.repeat(sides, sizes, axis=0)
    points = np.stack(
        [
            _joined([getattr(pair, name) for pair in found], (0, 2))
            for name in ("keypoints0", "keypoints1")
        ]
    )  # (2, M, 2)
    index, where, best, of_image = _cells(
        points.reshape(-1, 2), image.T.ravel(), np.tile(scores, 2), side
    )
    counts = np.bincount(of_image, minlength=images)
    starts = np.cumsum(counts) - counts
    index = index.reshape(2, -1).T - starts[image]
    pair_of = np.repeat(np.arange(len(found)), sizes)
    keep = one_to_one(pair_of, index, scores)
    cuts = np.cumsum(np.bincount(pair_of[keep], minlength=len(found)))[:-1]
    return Merged(
        np.split(where.astype(np.float32), np.cumsum(counts)[:-1]),
        np.split(best, np.cumsum(counts)[:-1]),
        [(pair.image0, pair.image1) for pair in found],
        np.split(index[keep].astype(np.uint32), cuts) if found else [],
        np.split(scores[keep], cuts) if found else [],
    )


def one_to_one(pair: np.ndarray, index: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Matches to keep, in order: in each pair every keypoint once, the best scores first.

    Args:
        pair: (M,) number of the pair of each match.
        index: (M, 2) keypoints in image 0 and image 1.
        scores: (M,).
    """
    order = np.lexsort((np.arange(len(scores)), -scores, pair))
    for side in (0, 1):
        key = pair[order].astype(np.int64) * (int(index.max(initial=0)) + 1) + index[order, side]
        order = order[np.sort(np.unique(key, return_index=True)[1])]
    return np.sort(order)


def _cells(
    points: np.ndarray, image: np.ndarray, scores: np.ndarray, side: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Cells that hold points, by image: the cell of each point, and of each cell the mean of its
    points, the best score and the image."""
    cell = np.floor(points / side + 0.5).astype(np.int64)
    cell -= cell.min(axis=0, initial=0)
    width, height = cell.max(axis=0, initial=0) + 1
    key = (image * height + cell[:, 1]) * width + cell[:, 0]
    unique, index = np.unique(key, return_inverse=True)
    weight = np.maximum(scores.astype(np.float64), 1e-6)
    total = np.bincount(index, weight, len(unique))
    mean = [np.bincount(index, weight * points[:, axis], len(unique)) / total for axis in (0, 1)]
    best = np.zeros(len(unique), np.float32)
    np.maximum.at(best, index, scores)
    return index, np.stack(mean, axis=1), best, unique // (width * height)


def _joined(parts: list[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    return np.concatenate([np.zeros(shape, np.float32), *parts])
