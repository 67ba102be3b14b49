"""Robust estimation from correspondences: relative pose, fundamental matrix, homography.

Keypoints are (N, 2) pixels. The same input and seed give the same result. Too few or degenerate
correspondences are not an error: the estimate is then None.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import cv2
import numpy as np
import poselib
from pydantic import Field

from matcher.errors import Code, UsageError
from matcher.geometry.epipolar import essential_from_pose, pixel_rays
from matcher.geometry.validity import usable_intrinsics
from matcher.validation.checked import Positive, checked

MINIMUM = {"similarity": 3, "affine": 3, "homography": 4, "fundamental": 7, "essential": 5}
ENOUGH_EXACT = 20
"""Exact inliers from which they alone decide the pose: four times a minimal sample."""


@checked("estimator.")
class Estimator:
    """How a model is fitted."""

    name: Literal["poselib", "magsac", "ransac"] = "poselib"
    """``poselib`` (LO-RANSAC), ``magsac`` (OpenCV USAC_MAGSAC) or ``ransac`` (OpenCV RANSAC)."""
    threshold: Annotated[float, Field(ge=1e-6, le=1e6)] = 1.0
    """Pixels: distance to the epipolar line, or for a homography the transfer error."""
    confidence: Annotated[float, Field(ge=0, le=1 - 1e-12)] = 0.99999
    """Wanted probability that a sample without outliers was drawn."""
    iterations: Positive = 10_000
    """Samples, at most."""
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    """Seed of the sampling; OpenCV's ``ransac`` always draws the same samples."""
    published_focal: bool = False
    """Turn pixels into normalized units as the published LoFTR evaluation does, by the mean of
    fx0, fy1, fx0, fy1; otherwise by the mean of fx0, fy0, fx1, fy1."""

    def focal(self, K0: np.ndarray, K1: np.ndarray) -> float:
        """Pixels per normalized unit."""
        if self.published_focal:
            return float(np.mean([K0[0, 0], K1[1, 1]] * 2))
        return float(np.mean([K0[0, 0], K0[1, 1], K1[0, 0], K1[1, 1]]))


@dataclass(frozen=True)
class PoseEstimate:
    """Relative pose of two calibrated cameras: x1 ~ rotation x0 + translation."""

    rotation: np.ndarray
    """(3, 3) float64"""
    translation: np.ndarray
    """(3,) float64 of length 1"""
    inliers: np.ndarray
    """(N,) bool"""

    @property
    def essential(self) -> np.ndarray:
        """(3, 3) E with x1^T E x0 = 0 in normalized coordinates."""
        return essential_from_pose(self.rotation, self.translation)


RawPose = tuple[np.ndarray, np.ndarray, np.ndarray]
"""(3, 3) rotation, (3,) translation of any length and (N,) bool inliers."""


@dataclass(frozen=True)
class ModelEstimate:
    """A fundamental matrix (x1^T F x0 = 0) or a homography (x1 ~ H x0), in pixels."""

    matrix: np.ndarray
    """(3, 3) float64; the last number of a homography is 1, unless it is all but 0"""
    inliers: np.ndarray
    """(N,) bool"""


def estimate_pose(
    keypoints0: np.ndarray,
    keypoints1: np.ndarray,
    *,
    K0: np.ndarray,
    K1: np.ndarray,
    estimator: Estimator | None = None,
    exact: np.ndarray | None = None,
) -> PoseEstimate | None:
    """Relative pose from pixels and intrinsics; None if it cannot be had.

    All correspondences find it and all inliers are told; where enough of those are exact, the pose
    is then adjusted to these alone.

    Args:
        keypoints0, keypoints1: (N, 2) pixels.
        K0, K1: (3, 3) with rows fx s cx, 0 fy cy, 0 0 1 or a multiple of it; `UsageError` (E201)
            where it is not.
        estimator: how; its threshold counts in pixels at the mean focal length.
        exact: (N,) bool, those right to a few tenths of a pixel (`Matches.converged`); None: not
            known.
    """
    estimator = estimator or Estimator()
    points0, points1 = finite_points(keypoints0, keypoints1)
    K0, K1 = (_intrinsics(name, K) for name, K in (("K0", K0), ("K1", K1)))
    if len(points0) < MINIMUM["essential"]:
        return None
    fit = _pose_poselib if estimator.name == "poselib" else _pose_opencv
    pose = fit(points0, points1, K0, K1, estimator)
    if pose is None:
        return None
    if exact is not None:
        pose = _adjusted(pose, exact, points0, points1, K0, K1, estimator)
    rotation, translation, inliers = pose
    length = float(np.linalg.norm(translation))
    healthy = np.isfinite(rotation).all() and np.isfinite(length) and length > 0
    if not healthy or not is_supported("essential", points0, points1, inliers):
        return None
    return PoseEstimate(rotation, translation / length, inliers)


def estimate_fundamental(
    keypoints0: np.ndarray, keypoints1: np.ndarray, *, estimator: Estimator | None = None
) -> ModelEstimate | None:
    """Fundamental matrix from pixels; None if it cannot be had."""
    return _estimate_model("fundamental", keypoints0, keypoints1, estimator or Estimator())


def estimate_homography(
    keypoints0: np.ndarray, keypoints1: np.ndarray, *, estimator: Estimator | None = None
) -> ModelEstimate | None:
    """Homography from pixels; None if it cannot be had."""
    return _estimate_model("homography", keypoints0, keypoints1, estimator or Estimator())


def _estimate_model(
    kind: str, keypoints0: np.ndarray, keypoints1: np.ndarray, estimator: Estimator
) -> ModelEstimate | None:
    points0, points1 = finite_points(keypoints0, keypoints1)
    # OpenCV's robust fundamental matrix refuses fewer than eight.
    opencv_fundamental = kind == "fundamental" and estimator.name != "poselib"
    if len(points0) < (8 if opencv_fundamental else MINIMUM[kind]):
        return None
    fit = _model_poselib if estimator.name == "poselib" else _model_opencv
    found = fit(kind, points0, points1, estimator)
    if found is None or found[0].shape != (3, 3) or not np.isfinite(found[0]).all():
        return None
    matrix, inliers = found
    if not np.any(matrix) or not is_supported(kind, points0, points1, inliers):
        return None
    # PoseLib's homographies have length 1 and either sign; programs that take one count on a 1.
    if kind == "homography" and abs(matrix[2, 2]) > 1e-9 * np.abs(matrix).max():
        matrix = matrix / matrix[2, 2]
    return ModelEstimate(matrix, inliers)


def is_supported(kind: str, points0: np.ndarray, points1: np.ndarray, inliers: np.ndarray) -> bool:
    """Whether enough inliers agree and spread over more than a line in both images."""
    if inliers.sum() < MINIMUM[kind]:
        return False
    for points in (points0[inliers], points1[inliers]):
        spread = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)
        if spread[1] <= 1e-6 * max(spread[0], 1.0):
            return False
    return True


def finite_points(keypoints0: np.ndarray, keypoints1: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    points0, points1 = (np.ascontiguousarray(k, dtype=np.float64) for k in (keypoints0, keypoints1))
    if points0.ndim != 2 or points0.shape[1] != 2 or points0.shape != points1.shape:
        raise ValueError(f"keypoints {points0.shape} and {points1.shape}; expected (N, 2) twice")
    if not (np.isfinite(points0).all() and np.isfinite(points1).all()):
        raise ValueError("keypoints are not finite")
    return points0, points1


def _intrinsics(name: str, K: np.ndarray) -> np.ndarray:
    try:
        return usable_intrinsics(K)
    except (TypeError, ValueError) as error:
        raise UsageError(Code.INVALID_VALUE, name, str(error)) from None


def poselib_options(estimator: Estimator) -> dict[str, float | int]:
    return {
        "max_epipolar_error": estimator.threshold,
        "max_reproj_error": estimator.threshold,
        "success_prob": estimator.confidence,
        "max_iterations": estimator.iterations,
        "seed": estimator.seed,
    }


def _pose_poselib(
    points0: np.ndarray, points1: np.ndarray, K0: np.ndarray, K1: np.ndarray, estimator: Estimator
) -> RawPose | None:
    (upright0, camera0), (upright1, camera1) = (
        _poselib_view(points, K) for points, K in ((points0, K0), (points1, K1))
    )
    pose, info = poselib.estimate_relative_pose(
        upright0, upright1, camera0, camera1, poselib_options(estimator), {}
    )
    return np.asarray(pose.R), np.asarray(pose.t), np.asarray(info["inliers"], dtype=bool)


def _adjusted(
    pose: RawPose,
    exact: np.ndarray,
    points0: np.ndarray,
    points1: np.ndarray,
    K0: np.ndarray,
    K1: np.ndarray,
    estimator: Estimator,
) -> RawPose:
    """The pose that fits its exact inliers best; the same where these do not fix one."""
    rotation, translation, inliers = pose
    used = inliers & np.asarray(exact, dtype=bool)
    finite = np.isfinite(rotation).all() and np.isfinite(translation).all()
    if not finite or used.sum() < ENOUGH_EXACT:
        return pose
    if not is_supported("essential", points0, points1, used):
        return pose
    (upright0, camera0), (upright1, camera1) = (
        _poselib_view(points[used], K) for points, K in ((points0, K0), (points1, K1))
    )
    first = poselib.CameraPose()
    first.R, first.t = rotation, translation / max(float(np.linalg.norm(translation)), 1e-12)
    how = {"loss_type": "CAUCHY", "loss_scale": estimator.threshold / 2}
    found, _ = poselib.refine_relative_pose(upright0, upright1, first, camera0, camera1, how)
    return np.asarray(found.R), np.asarray(found.t), inliers


def _poselib_view(points: np.ndarray, K: np.ndarray) -> tuple[np.ndarray, dict[str, object]]:
    """(N, 2) pixels without skew, for which PoseLib has no model, and their camera."""
    focal, center = K[[0, 1], [0, 1]], K[[0, 1], [2, 2]]
    if K[0, 1]:
        points = pixel_rays(points, K) * focal + center
    # The size only matters to models with distortion.
    size = {"width": 1, "height": 1}
    return points, {"model": "PINHOLE", **size, "params": [*focal, *center]}


def _pose_opencv(
    points0: np.ndarray, points1: np.ndarray, K0: np.ndarray, K1: np.ndarray, estimator: Estimator
) -> RawPose | None:
    """findEssentialMat on rays, then the candidate most points stand in front of."""
    focal = estimator.focal(K0, K1)
    magsac = estimator.name == "magsac"
    # The unit of the points is then the pixel, or the threshold where that is smaller: on rays with
    # K = identity OpenCV's MAGSAC is 3 to 5 times less exact (findings/magsac_units.sh).
    threshold = max(estimator.threshold, 1.0) if magsac else estimator.threshold / focal
    unit = focal * threshold / estimator.threshold if magsac else 1.0
    camera = np.diag([unit, unit, 1.0])
    rays0, rays1 = (pixel_rays(p, K) * unit for p, K in ((points0, K0), (points1, K1)))
    try:
        if magsac:
            params = _usac(estimator, threshold)
            stacked, mask = cv2.findEssentialMat(rays0, rays1, camera, camera, None, None, params)
        else:
            how = cv2.RANSAC, estimator.confidence, threshold, estimator.iterations
            stacked, mask = cv2.findEssentialMat(rays0, rays1, camera, *how)
        if stacked is None or stacked.size == 0 or not np.isfinite(stacked).all():
            return None
        best: tuple[int, RawPose | None] = (0, None)
        for E in np.split(stacked, len(stacked) // 3):
            # No limit on how far away a triangulated point may be; without the name OpenCV takes it
            # for the output R and keeps its limit of 50 steps (findings/opencv_far_points.sh).
            far = {"distanceThresh": 1e9, "mask": mask.copy()}
            count, R, t, front, _ = cv2.recoverPose(E, rays0, rays1, camera, **far)
            if count > best[0]:
                best = count, (R, t[:, 0], front.ravel() > 0)
    except cv2.error:
        return None  # OpenCV refuses some degenerate sets instead of finding nothing.
    return best[1]


def _model_poselib(
    kind: str, points0: np.ndarray, points1: np.ndarray, estimator: Estimator
) -> tuple[np.ndarray, np.ndarray]:
    fit = poselib.estimate_homography if kind == "homography" else poselib.estimate_fundamental
    matrix, info = fit(points0, points1, poselib_options(estimator), {})
    return np.asarray(matrix), np.asarray(info["inliers"], dtype=bool)


def _model_opencv(
    kind: str, points0: np.ndarray, points1: np.ndarray, estimator: Estimator
) -> tuple[np.ndarray, np.ndarray] | None:
    find = cv2.findHomography if kind == "homography" else cv2.findFundamentalMat
    limits = {"confidence": estimator.confidence, "maxIters": estimator.iterations}
    try:
        if estimator.name == "magsac":
            matrix, mask = find(points0, points1, _usac(estimator, estimator.threshold))
        else:
            matrix, mask = find(points0, points1, cv2.RANSAC, estimator.threshold, **limits)
    except cv2.error:
        return None
    return None if matrix is None or mask is None else (matrix, mask.ravel().astype(bool))


def _usac(estimator: Estimator, threshold: float) -> cv2.UsacParams:
    """What the flag cv2.USAC_MAGSAC stands for, with our seed."""
    params = cv2.UsacParams()
    params.sampler = cv2.SAMPLING_UNIFORM
    params.score = cv2.SCORE_METHOD_MAGSAC
    params.loMethod = cv2.LOCAL_OPTIM_SIGMA
    params.loSampleSize = 50
    params.loIterations = 10
    params.final_polisher = cv2.MAGSAC
    params.final_polisher_iterations = 3
    params.threshold = threshold
    params.confidence = estimator.confidence
    params.maxIterations = estimator.iterations
    params.randomGeneratorState = estimator.seed
    params.isParallel = False
    return params
