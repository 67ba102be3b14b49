"""Which parts of two images show the same: windows around matches that agree."""

from __future__ import annotations

import numpy as np

from matcher.geometry.pixels import Window
from matcher.geometry.robust import Estimator, estimate_fundamental
from matcher.geometry.verdict import judge_model

OUTERMOST = 2.0
"""Percent of the matches on each side that a window leaves out: strays would open it."""
MARGIN = 0.15
"""Of the longer side of what the matches cover, added all around."""
LEAST_MARGIN = 0.025
"""The same, of the longer side of the image."""
MUCH = 0.6
"""Share of both images that is too much to gain by a closer look at it."""


def window_around(points: np.ndarray, size: tuple[int, int]) -> Window:
    """The part of an image that holds most of the points, and some of what is around them.

    Args:
        points: (N, 2) pixels, at least one.
        size: (width, height) of the image.
    """
    low, high = np.percentile(points, [OUTERMOST, 100 - OUTERMOST], axis=0)
    margin = MARGIN * float((high - low).max()) + LEAST_MARGIN * max(size)
    left, top = np.floor(np.maximum(low - margin, 0)).astype(int).tolist()
    right, bottom = np.ceil(np.minimum(high + margin + 1, size)).astype(int).tolist()
    return Window(left, top, right, bottom)


def covisible_windows(
    points0: np.ndarray, points1: np.ndarray, size0: tuple[int, int], size1: tuple[int, int]
) -> tuple[Window, Window] | None:
    """The parts of two images where matches agree on one epipolar geometry.

    Args:
        points0, points1: (N, 2) pixels of matches.
        size0, size1: (width, height) of the images.

    Returns:
        None where both parts are most of their images, or the verdict about the matches is not
        reliable.
    """
    estimator = Estimator()
    found = estimate_fundamental(points0, points1, estimator=estimator)
    if found is None:
        return None
    window0 = window_around(points0[found.inliers], size0)
    window1 = window_around(points1[found.inliers], size1)
    shares = window0.area / (size0[0] * size0[1]), window1.area / (size1[0] * size1[1])
    if min(shares) >= MUCH:
        return None
    limit = estimator.threshold
    verdict = judge_model(points0, points1, found.matrix, kind="fundamental", threshold=limit)
    return (window0, window1) if verdict.reliable else None
