"""From a relative pose to a rectified pair: two virtual cameras side by side that look one way.

OpenCV turns both cameras until a point lies in the same row of both (Fusiello et al., 2000). What
is decided here is which photograph is the left one, how far photographs of cameras above each
other are turned, and where the views begin: each has a principal column of its own, so that the
least disparity of the scene, not that of infinity, is near 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from matcher.errors import Code, UsageError
from matcher.geometry.cameras import Camera, Size
from matcher.geometry.transforms import warp

MOST_STRETCH = 3.0
"""Times as wide as the photograph, in the tangent of angles, that a rectified view may become."""
ROOM = 0.5
"""Of the range of the matched disparities, left free on both sides for what is not matched."""
SMALLEST = 48
"""Pixels of the shorter side of a rectified view, at least."""


class Motion(NamedTuple):
    """Where the second camera is: x1 ~ rotation x0 + translation."""

    rotation: np.ndarray
    """(3, 3)"""
    translation: np.ndarray
    """(3,) of length 1"""


@dataclass(frozen=True)
class Rectification:
    """How two photographs become a left and a right view, and pixels of the left one points."""

    swapped: bool
    """The second photograph is the left view."""
    left: np.ndarray
    """(3, 3) homography from pixels of the left photograph to those of its view"""
    right: np.ndarray
    """(3, 3) likewise"""
    size: Size
    """of both views"""
    focal: float
    """pixels"""
    center: tuple[float, float]
    """principal point (x, y) of the left view"""
    offset: float
    """principal column of the right view minus that of the left one, 0 or more"""
    most: float
    """largest disparity of the views that matches speak for"""
    pose: np.ndarray
    """(3, 4) from the left view's camera to that of the first photograph, in baselines"""

    def views(self, first: np.ndarray, second: np.ndarray) -> list[np.ndarray]:
        """Left and right (H, W, ...) views of the photographs, black where these end."""
        photographs = (second, first) if self.swapped else (first, second)
        return [
            cv2.warpPerspective(photograph, homography, self.size, flags=cv2.INTER_LINEAR)
            for photograph, homography in zip(photographs, (self.left, self.right), strict=True)
        ]

    def points(self, depth: np.ndarray, baseline: float) -> tuple[np.ndarray, np.ndarray]:
        """Points that the left view sees.

        Args:
            depth: (H, W) of the left view, 0 where it is unknown.
            baseline: distance of the cameras in the same unit.

        Returns:
            (N, 3) before the first camera, x right, y down, z ahead, and the (H, W) bool of the
            pixels they belong to.
        """
        known = depth > 0
        y, x = np.nonzero(known)
        rays = np.stack([x - self.center[0], y - self.center[1], np.full(len(x), self.focal)], 1)
        points = rays / self.focal * depth[known][:, None]
        return points @ self.pose[:, :3].T + baseline * self.pose[:, 3], known


def rectify(
    cameras: tuple[Camera, Camera], motion: Motion, points0: np.ndarray, points1: np.ndarray
) -> Rectification:
    """The rectification of two photographs.

    Args:
        cameras: of both, with sizes and without distortion.
        motion: between them.
        points0, points1: (N, 2) pixels of matches that agree with it.

    Raises:
        UsageError: a camera moved towards what the other one sees, or hardly anything is seen by
            both (E222).
    """
    for camera, direction in zip(
        cameras, (-motion.rotation.T @ motion.translation, motion.translation), strict=True
    ):
        require_sideways(camera, direction)
    turns, swapped = rotations(cameras, motion)
    order = (1, 0) if swapped else (0, 1)
    left, right = (cameras[i] for i in order)
    to_left, to_right = (turns[i] @ np.linalg.inv(cameras[i].K) for i in order)
    seen = [(points0, points1)[i] for i in order]
    columns = warp(seen[0], to_left)[:, 0] - warp(seen[1], to_right)[:, 0]
    low, high = np.percentile(columns, (2, 98))
    room = ROOM * (high - low)
    least, most = max(0.0, low - room), high + room
    (l0, top0), (l1, bottom0) = extent(left, to_left)
    (r0, top1), (r1, bottom1) = extent(right, to_right)
    x0, x1 = max(l0, r0 + least), min(l1, r1 + most)
    y0, y1 = max(top0, top1), min(bottom0, bottom1)
    focal = float(np.mean([camera.K[i, i] for camera in cameras for i in (0, 1)]))
    longest = max(max(size_of(camera)) for camera in cameras)
    focal *= min(1.0, longest / focal / max(x1 - x0, y1 - y0))
    size = round((x1 - x0) * focal), round((y1 - y0) * focal)
    if min(size) < SMALLEST:
        raise refused("their cameras see hardly anything together", "turn them more alike")
    start = np.array([[focal, 0, -x0 * focal], [0, focal, -y0 * focal], [0, 0, 1]])
    offset = float(least * focal)
    shifted = np.array([[1, 0, offset], [0, 1, 0], [0, 0, 1]]) @ start
    pose = np.column_stack([turns[order[0]].T, np.zeros(3)])
    if swapped:
        pose[:, 3] -= motion.translation
        pose = motion.rotation.T @ pose
    center = float(start[0, 2]), float(start[1, 2])
    reach = float((most - least) * focal)
    return Rectification(
        swapped, start @ to_left, shifted @ to_right, size, focal, center, offset, reach, pose
    )


def rotations(
    cameras: tuple[Camera, Camera], motion: Motion
) -> tuple[tuple[np.ndarray, np.ndarray], bool]:
    """(3, 3) turns of both cameras after which the second one is straight to the right of the
    first, or to the left of it, which is told too."""
    none = np.zeros(5)
    shift = motion.translation.reshape(3, 1)
    first, second, *_ = cv2.stereoRectify(
        cameras[0].K, none, cameras[1].K, none, size_of(cameras[0]), motion.rotation, shift
    )
    place = -second @ motion.translation
    if abs(place[1]) > abs(place[0]):
        quarter = np.array([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]])
        first, second, place = (quarter @ value for value in (first, second, place))
    return (first, second), bool(place[0] < 0)


def require_sideways(camera: Camera, direction: np.ndarray) -> None:
    """Refuse a camera that sees the other one, or almost: rows would run through a point.

    Args:
        camera: one of both.
        direction: (3,) in which it sees the other one, or behind itself.
    """
    (width, height), point = size_of(camera), camera.K @ direction
    if abs(point[2]) < 1e-9:
        return
    x, y = point[:2] / point[2]
    beyond = max(-x / width, x / width - 1, -y / height, y / height - 1)
    if beyond < 0.1:
        where = f"the cameras stand one behind the other (epipole at {x:.0f}, {y:.0f})"
        raise refused(where, "take the second photograph from a step to the side")


def extent(camera: Camera, turn: np.ndarray) -> np.ndarray:
    """(2, 2) lowest and highest (x, y) of a turned photograph, at depth 1."""
    width, height = size_of(camera)
    corners = np.array([[0, 0], [width, 0], [0, height], [width, height]]) - 0.5
    rays = np.column_stack([corners, np.ones(4)]) @ turn.T
    far = max(width / camera.K[0, 0], height / camera.K[1, 1]) * MOST_STRETCH
    if rays[:, 2].min() <= 0 or np.ptp(rays[:, :2] / rays[:, 2:], axis=0).max() > far:
        raise refused(
            "the cameras stand one behind the other, or look apart",
            "take the second photograph from a step to the side",
        )
    corners = rays[:, :2] / rays[:, 2:]
    return np.stack([corners.min(axis=0), corners.max(axis=0)])


def size_of(camera: Camera) -> Size:
    """The size of a photograph by its camera."""
    if camera.size is None:
        raise ValueError("the camera of a photograph has its size")
    return camera.size


def refused(what: str, remedy: str) -> UsageError:
    """The error for photographs that cannot be rectified (E222)."""
    return UsageError(Code.NOT_RECTIFIED, "rectify", what, remedy)
