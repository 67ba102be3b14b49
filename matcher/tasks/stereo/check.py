"""Whether two images can be a rectified pair: what a few sure matches say about it.

A network answers anything with some disparity. Swapped sides, pairs that were never rectified and
images of different places are told here, before it runs, from SIFT matches.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from matcher.errors import Code, UsageError
from matcher.geometry.robust import Estimator, estimate_fundamental

ENOUGH = 25
"""Matches below which nothing is said: scenes without texture are no error."""
TEXTURED = 150
"""Points of interest from which a view shows enough to be found again."""
FEW = 4
"""Matches along rows below which two textured views have nothing in common."""
LONG_SIDE = 1000
"""Images are shrunk to this for the check."""
RATIO = 0.75
"""Largest ratio of the nearest to the second nearest descriptor (Lowe, IJCV 2004)."""


class SureMatches(NamedTuple):
    """Offsets of matches, left minus right, in pixels of the images."""

    horizontal: np.ndarray
    """(M,)"""
    vertical: np.ndarray
    """(M,)"""
    agreeing: float
    """Share of them that one epipolar geometry explains."""
    points: int
    """Points of interest of the view that has fewer."""


def require_rectified(left: np.ndarray, right: np.ndarray, names: tuple[str, str]) -> None:
    """Refuse what cannot be a rectified left and right view.

    Args:
        left, right: (H, W) float32 gray in [0, 1].
        names: of both, for messages.

    Raises:
        UsageError: sizes differ, one image twice, sides swapped, not rectified, or two images
            without a common part (E222).
    """
    subject = " and ".join(names)
    if left.shape != right.shape:
        sizes = " and ".join(f"{a.shape[1]} x {a.shape[0]}" for a in (left, right))
        raise UsageError(
            Code.NOT_RECTIFIED, subject, f"sizes {sizes}", "views of a pair have one size"
        )
    if min(left.shape) < 16:
        size = f"{left.shape[1]} x {left.shape[0]} pixels"
        raise UsageError(Code.NOT_RECTIFIED, subject, size, "give at least 16 x 16")
    if np.array_equal(left, right):
        raise UsageError(
            Code.NOT_RECTIFIED, subject, "the same picture twice", "give a left and a right view"
        )
    matches = find_matches(left, right)
    verdict = judge(matches, max(left.shape)) if matches else None
    if verdict:
        raise UsageError(Code.NOT_RECTIFIED, subject, *verdict)


def judge(matches: SureMatches, side: int) -> tuple[str, str] | None:
    """What is wrong and what to do about it; None where nothing is.

    Args:
        matches: of a pair.
        side: longer side of the images in pixels.
    """
    count = len(matches.vertical)
    tolerance = max(2.0, 0.004 * side)
    level = np.abs(matches.vertical) <= tolerance
    if count < ENOUGH:
        if matches.points < TEXTURED or level.sum() >= FEW:
            return None
        what = f"{level.sum()} of {matches.points} points match along rows"
        return what, "give a rectified pair of one scene, or pass check=false"
    if level.mean() >= 0.6:
        if np.mean(np.hypot(matches.horizontal, matches.vertical) < 0.5) > 0.95:
            return "the same picture twice", "give a left and a right view"
        backward = float((matches.horizontal[level] < -1).mean())
        if backward > 0.7:
            what = f"{backward:.0%} of {count} matches lie further right in the right view"
            return what, "swap the two images, or pass check=false"
        return None
    if matches.agreeing < 0.4:
        return f"{count} matches do not agree on one scene", "give two views of the same scene"
    offset = float(np.median(np.abs(matches.vertical)))
    what = f"not rectified, matches differ by {offset:.1f} pixels vertically"
    return what, "rectify the pair first, or pass check=false"


def find_matches(left: np.ndarray, right: np.ndarray) -> SureMatches | None:
    """SIFT matches that pass the ratio test in both directions; None where there are few points."""
    scale = min(1.0, LONG_SIDE / max(left.shape))
    sift = cv2.SIFT_create(nfeatures=1500)  # pyright: ignore[reportAttributeAccessIssue]
    described = []
    for image in (left, right):
        pixels = (np.clip(image, 0, 1) * 255).astype(np.uint8)
        small = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        points, descriptors = sift.detectAndCompute(small, None)
        if descriptors is None or len(points) < ENOUGH:
            return None
        described.append((cv2.KeyPoint.convert(points) / scale, descriptors))
    (points0, first), (points1, second) = described
    forward, backward = _nearest(first, second), _nearest(second, first)
    pairs = [(i, j) for i, j in forward.items() if backward.get(j) == i]
    first_index, second_index = np.array(pairs, dtype=int).reshape(-1, 2).T
    a, b = np.asarray(points0)[first_index], np.asarray(points1)[second_index]
    offset = a - b
    fewer = min(len(points0), len(points1))
    return SureMatches(offset[:, 0], offset[:, 1], _agreement(a, b), fewer)


def _nearest(first: np.ndarray, second: np.ndarray) -> dict[int, int]:
    found = cv2.BFMatcher(cv2.NORM_L2).knnMatch(first, second, k=2)
    return {
        m[0].queryIdx: m[0].trainIdx
        for m in found
        if len(m) == 2 and m[0].distance < RATIO * m[1].distance
    }


def _agreement(a: np.ndarray, b: np.ndarray) -> float:
    if len(a) < ENOUGH:
        return 0.0
    found = estimate_fundamental(a, b, estimator=Estimator(threshold=1.5))
    return 0.0 if found is None else float(found.inliers.mean())
