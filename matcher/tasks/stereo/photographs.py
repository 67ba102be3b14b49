"""Two photographs to a rectified pair: matches, pose, rectification."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from matcher.geometry.cameras import Camera
from matcher.geometry.epipolar import fundamental_from_essential
from matcher.geometry.robust import Estimator, PoseEstimate, estimate_pose
from matcher.geometry.transforms import warp
from matcher.geometry.verdict import judge_model
from matcher.images.load import read_rgb
from matcher.options import rows_of
from matcher.predictor import load_matcher
from matcher.tasks.stereo.predictor import Disparity
from matcher.tasks.stereo.rectify import Motion, Rectification, rectify, refused

LEAST_PARALLAX = 0.5
"""Degrees: the median of matches between rays to both cameras, at least."""
FARTHEST = 1.0
"""Pixels of disparity of the farthest points: beyond, depth is a guess."""


class Photograph(NamedTuple):
    """A photograph at the size at which it is used."""

    pixels: np.ndarray
    """(H, W, 3) uint8"""
    camera: Camera


@dataclass(frozen=True)
class RectifiedPair:
    """Left and right view of two photographs."""

    left: np.ndarray
    """(H, W, 3) uint8"""
    right: np.ndarray
    """(H, W, 3) uint8"""
    filled: tuple[np.ndarray, np.ndarray]
    """(H, W) bool of both: a photograph reaches here"""
    rectification: Rectification
    points: tuple[np.ndarray, np.ndarray]
    """(N, 2) pixels of the matches that agree with the pose, in the left and the right view"""
    matches: int
    """found"""

    @property
    def row_error(self) -> float:
        """Median difference of the rows of matches in pixels."""
        return float(np.median(np.abs(self.points[0][:, 1] - self.points[1][:, 1])))

    def told(self, found: Disparity) -> Disparity:
        """The disparity, occluded too where a photograph ends or where no match is as near or as
        far: there it would be a guess."""
        how = self.rectification
        columns = np.arange(how.size[0]) - np.round(found.disparity).astype(int)
        rows = np.arange(how.size[1])[:, None]
        known = self.filled[0] & self.filled[1][rows, columns.clip(0)] & (columns >= 0)
        known &= (found.disparity <= how.most) & (found.disparity + how.offset > FARTHEST)
        return Disparity(found.disparity, np.where(known, found.occlusion, np.float32(1)))

    def agreement(self, found: Disparity) -> float:
        """Share of the matches within 3 pixels of the disparity where both views see a point; NaN
        where none lies there."""
        left, right = self.points
        x, y = np.round(left).astype(int).T
        inside = (
            (x >= 0) & (y >= 0) & (x < found.disparity.shape[1]) & (y < found.disparity.shape[0])
        )
        x, y, wanted = x[inside], y[inside], (left - right)[inside, 0]
        seen = ~found.occluded[y, x]
        error = np.abs(found.disparity[y, x] - wanted)[seen]
        return float((error <= 3).mean()) if error.size else float("nan")


def read_photograph(
    path: str, side: int, intrinsics: tuple[float, ...] | None = None, focal: float = 0.0
) -> Photograph:
    """A photograph, its longer side shrunk to `side`.

    Args:
        path: of it.
        side: pixels.
        intrinsics: [fx,fy,cx,cy] or nine numbers, in pixels as stored; None takes `focal` and a
            central axis.
        focal: pixels; 0 guesses it.
    """
    pixels = read_rgb(path)
    height, width = pixels.shape[:2]
    if intrinsics:
        camera = Camera.of_matrix(rows_of(intrinsics), (width, height))
    else:
        camera = Camera.guessed((width, height))
        camera = camera.with_focal(focal) if focal else camera
    scale = min(1.0, side / max(width, height))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    if scale < 1:
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    return Photograph(pixels, camera.resized(size))


def rectify_photographs(
    first: Photograph, second: Photograph, device: str | None = None
) -> RectifiedPair:
    """Match two photographs and rectify them.

    Raises:
        UsageError: one photograph twice, too few matches, no parallax, or cameras one behind the
            other (E222).
    """
    if np.array_equal(first.pixels, second.pixels):
        raise refused("the same picture twice", "give two photographs from different places")
    matches = load_matcher("compact", device=device).match(first.pixels, second.pixels)
    points0, points1 = (points.astype(np.float64) for points in matches.numpy()[:2])
    pose = estimate_pose(points0, points1, K0=first.camera.K, K1=second.camera.K)
    if pose is None:
        raise refused(f"no pose explains {len(points0)} matches", "give two views of one scene")
    require_reliable(points0, points1, pose, (first.camera, second.camera))
    motion = Motion(pose.rotation, pose.translation)
    inner = points0[pose.inliers], points1[pose.inliers]
    require_parallax(first.camera, second.camera, motion, *inner)
    how = rectify((first.camera, second.camera), motion, *inner)
    left, right = how.views(first.pixels, second.pixels)
    filled = how.views(*(np.full(p.pixels.shape[:2], 255, np.uint8) for p in (first, second)))
    ordered = inner[::-1] if how.swapped else inner
    there = [warp(p, h) for p, h in zip(ordered, (how.left, how.right), strict=True)]
    filled = filled[0] == 255, filled[1] == 255
    return RectifiedPair(left, right, filled, how, (there[0], there[1]), len(points0))


def require_reliable(
    points0: np.ndarray,
    points1: np.ndarray,
    pose: PoseEstimate,
    cameras: tuple[Camera, Camera],
) -> None:
    """Refuse matches that chance explains as well."""
    matrix = fundamental_from_essential(pose.essential, cameras[0].K, cameras[1].K)
    threshold = Estimator().threshold
    verdict = judge_model(points0, points1, matrix, kind="essential", threshold=threshold)
    if not verdict.reliable:
        what = f"{verdict.inliers} of {len(points0)} matches agree, which is no more than chance"
        raise refused(what, "give two views of one scene")


def require_parallax(
    first: Camera, second: Camera, motion: Motion, points0: np.ndarray, points1: np.ndarray
) -> None:
    """Refuse cameras that stand at one place, as far as the matches can tell."""
    rays = []
    for points, camera, turn in (
        (points0, first, motion.rotation), (points1, second, np.eye(3))
    ):  # fmt: skip
        ray = np.column_stack([points, np.ones(len(points))]) @ np.linalg.inv(camera.K).T @ turn.T
        rays.append(ray / np.linalg.norm(ray, axis=1, keepdims=True))
    cosine = np.clip((rays[0] * rays[1]).sum(axis=1), -1, 1)
    angle = float(np.degrees(np.median(np.arccos(cosine))))
    if angle < LEAST_PARALLAX:
        what = f"the cameras stand at one place (parallax of {angle:.2f} degrees)"
        raise refused(what, "take the second photograph from a step to the side")
