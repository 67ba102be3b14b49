"""Relative pose of two cameras, whatever is known of them.

Points are undistorted first, so that every estimator sees pinholes. A focal length that is not
known is found from the matches, then the pose with it. One that both images share comes from
PoseLib's samples of six points; else it comes out of the fundamental matrix: next to a known camera
by the singular values of the essential matrix, which are equal, for two unknown ones by PoseLib
(Kocur et al., CVPR 2024).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import poselib

from matcher.geometry.cameras import Camera
from matcher.geometry.robust import (
    Estimator,
    PoseEstimate,
    estimate_fundamental,
    estimate_pose,
    poselib_options,
)

LEAST = 8
"""Matches for a focal length."""
FOCALS = np.geomspace(0.2, 6.0, 4000)
"""Focal lengths that are looked at, over the one that is guessed."""


@dataclass(frozen=True)
class CameraPose(PoseEstimate):
    """Relative pose of two cameras."""

    camera0: Camera
    """The camera that was given, or with the focal length that was found"""
    camera1: Camera


def estimate_camera_pose(
    keypoints0: np.ndarray,
    keypoints1: np.ndarray,
    *,
    camera0: Camera,
    camera1: Camera,
    estimator: Estimator | None = None,
    exact: np.ndarray | None = None,
) -> CameraPose | None:
    """Relative pose from pixels as stored; None if it cannot be had.

    Args:
        keypoints0, keypoints1: (N, 2) pixels; those that no ray of a camera reaches are no inliers.
        camera0: of image 0; where its focal length is not known, one is found. Two unknown ones of
            images of one size are taken for the same camera.
        estimator: how; PoseLib finds focal lengths whichever is named.
        exact: (N,) bool, as of `estimate_pose`.
    """
    estimator = estimator or Estimator()
    points0, points1 = camera0.undistorted(keypoints0), camera1.undistorted(keypoints1)
    seen = np.isfinite(points0 + points1).all(axis=1)
    points0, points1 = points0[seen], points1[seen]
    found = with_focals(points0, points1, camera0, camera1, estimator)
    if found is None:
        return None
    K0, K1 = (camera.K for camera in found)
    exact = None if exact is None else exact[seen]
    pose = estimate_pose(points0, points1, K0=K0, K1=K1, estimator=estimator, exact=exact)
    if pose is None:
        return None
    inliers = np.zeros(len(keypoints0), bool)
    inliers[seen] = pose.inliers
    return CameraPose(pose.rotation, pose.translation, inliers, *found)


def with_focals(
    points0: np.ndarray,
    points1: np.ndarray,
    camera0: Camera,
    camera1: Camera,
    estimator: Estimator | None = None,
) -> tuple[Camera, Camera] | None:
    """The cameras with focal lengths that explain (N, 2) undistorted points; None if there are
    none."""
    known = camera0.focal_known, camera1.focal_known
    if all(known):
        return camera0, camera1
    if len(points0) < LEAST:
        return None
    estimator = replace(estimator or Estimator(), name="poselib")
    if not any(known) and camera0.size == camera1.size:
        focal = _shared_focal(points0, points1, camera0.center, estimator)
        focals = focal, focal
    else:
        model = estimate_fundamental(points0, points1, estimator=estimator)
        if model is None:
            return None
        focals = _focals(model.matrix, camera0, camera1)
    if not all(np.isfinite(f) and f > 0 for f in focals):
        return None
    cameras = zip((camera0, camera1), focals, strict=True)
    found = [c if c.focal_known else c.with_focal(focal) for c, focal in cameras]
    return found[0], found[1]


def _shared_focal(
    points0: np.ndarray, points1: np.ndarray, center: np.ndarray, estimator: Estimator
) -> float:
    """Pixels of both cameras; 0 where none is found."""
    options = poselib_options(estimator)
    found, info = poselib.estimate_shared_focal_relative_pose(points0, points1, center, options, {})
    return float(found.camera1.focal()) if info["num_inliers"] >= LEAST else 0.0


def _focals(F: np.ndarray, camera0: Camera, camera1: Camera) -> tuple[float, float]:
    """Pixels of both cameras; of a known one anything."""
    if camera0.focal_known:
        return 1.0, _other_focal(F, camera0, camera1)
    if camera1.focal_known:
        return _other_focal(F.T, camera1, camera0), 1.0
    guess0, guess1 = (
        {"model": "SIMPLE_PINHOLE", "width": 1, "height": 1, "params": [c.focal[0], *c.center]}
        for c in (camera0, camera1)
    )
    first, second, _ = poselib.focals_from_fundamental_iterative(F, guess0, guess1)
    return float(first.focal()), float(second.focal())


def _other_focal(F: np.ndarray, known: Camera, unknown: Camera) -> float:
    """Pixels of the camera of image 1, where that of image 0 is known: of the essential matrix
    K1^T F K0 the first two singular values are then closest to each other."""
    focals = FOCALS * unknown.focal.mean()
    K1 = np.tile(np.eye(3), (len(focals), 1, 1))
    K1[:, [0, 1], [0, 1]] = focals[:, None]
    K1[:, :2, 2] = unknown.center
    values = np.linalg.svd(K1.mT @ F @ known.K, compute_uv=False)
    return float(focals[np.argmin((values[:, 0] - values[:, 1]) / (values[:, 0] + values[:, 1]))])
