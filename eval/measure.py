"""Loop two: measures of every pair, from cached predictions alone."""

from __future__ import annotations

import numpy as np

from eval.benchmarks.folder import EvalPair
from eval.benchmarks.sizing import Sizing
from eval.depth_truth import FINE_PIXELS, Row, measure_against_depth, shares_within
from eval.metrics import corner_error, precision, rotation_error, translation_error
from eval.predictions import Prediction
from eval.protocols import Protocol
from matcher.geometry.epipolar import normalized_epipolar_error
from matcher.geometry.robust import PoseEstimate, estimate_homography, estimate_pose
from matcher.geometry.transforms import warp

PRECISION = {"precision_5e4": 5e-4, "precision_1e4": 1e-4}
"""Squared symmetric epipolar distance in normalized units."""


def measure_pair(pair: EvalPair, prediction: Prediction, sizing: Sizing, protocol: Protocol) -> Row:
    row: Row = {"pair": pair.name, "matches": len(prediction.matches), "inliers": 0}
    row["failure"] = prediction.failure or prediction.matches.reason
    if pair.overlap is not None:
        row["overlap"] = pair.overlap
    readable = min(*prediction.size0, *prediction.size1) > 0
    if pair.T_0to1 is not None:
        row |= _pose_measures(pair, prediction, sizing, protocol, readable)
    if pair.homography is not None:
        row |= _homography_measures(pair, prediction, sizing, protocol, readable)
    if pair.depth0 is not None:
        row |= measure_against_depth(pair, prediction, sizing)
    estimate = row.get("error", row.get("corner_error"))
    if not row["failure"] and estimate == float("inf"):
        row["failure"] = "no estimate"
    return row


View = tuple[np.ndarray, np.ndarray]
"""(N, 2) matched points of one image, in the pixels in which thresholds count, and its (3, 3) K."""


def views(pair: EvalPair, prediction: Prediction, sizing: Sizing) -> tuple[View, View]:
    """Both images, in pixels of the image that the convention of `sizing` counts in."""
    convention, out = sizing.convention, []
    for keypoints, stored, K in (
        (prediction.matches.keypoints0, prediction.size0, pair.K0),
        (prediction.matches.keypoints1, prediction.size1, pair.K1),
    ):
        if K is None:
            raise ValueError(f"{pair.name}: a pose without intrinsics")
        K_size = pair.K_size or stored
        of_K = convention.threshold_image == "image of K"
        space = K_size if of_K else sizing.target(stored)
        points = convention.convert(keypoints.numpy(), stored, space)
        out.append((points, convention.conversion(K_size, space) @ K))
    return out[0], out[1]


def right_matches(pair: EvalPair, prediction: Prediction, sizing: Sizing) -> np.ndarray:
    """(N,) bool: epipolar distance below 5e-4, or within 3 px of where a homography leads."""
    if pair.homography is not None:
        points0, points1, truth, _ = _transfer(pair, prediction, sizing)
        return np.linalg.norm(warp(points0, truth) - points1, axis=1) < 3
    if pair.T_0to1 is None:
        raise ValueError(f"{pair.name}: no ground truth")
    (points0, K0), (points1, K1) = views(pair, prediction, sizing)
    errors = normalized_epipolar_error(points0, points1, K0=K0, K1=K1, T_0to1=pair.T_0to1)
    return errors < PRECISION["precision_5e4"]


def _pose_measures(
    pair: EvalPair, prediction: Prediction, sizing: Sizing, protocol: Protocol, readable: bool
) -> Row:
    if pair.T_0to1 is None:
        raise ValueError(f"{pair.name}: no pose")
    T = pair.T_0to1
    row: Row = {"rotation": rotation_error(np.eye(3), T[:3, :3])}
    row |= {"rotation_error": np.inf, "translation_error": np.inf, "error": np.inf}
    row |= dict.fromkeys(PRECISION, 0.0)
    if not readable:
        return row
    (points0, K0), (points1, K1) = views(pair, prediction, sizing)
    errors = normalized_epipolar_error(points0, points1, K0=K0, K1=K1, T_0to1=T)
    row |= {name: precision(errors, limit) for name, limit in PRECISION.items()}
    # Other estimators stay as they were published.
    converged = prediction.matches.converged if protocol.pose.name == "poselib" else None
    exact = None if converged is None else converged.numpy()
    pose = estimate_pose(points0, points1, K0=K0, K1=K1, estimator=protocol.pose, exact=exact)
    if pose is not None:
        rotation, translation = pose_errors(pose, T)
        row |= {"rotation_error": rotation, "translation_error": translation}
        row |= {"error": max(rotation, translation), "inliers": int(pose.inliers.sum())}
    return row


def pose_errors(pose: PoseEstimate, T: np.ndarray) -> tuple[float, float]:
    """Degrees between a pose and the true (4, 4) `T`: of the rotation and of the translation."""
    rotation = rotation_error(pose.rotation, T[:3, :3])
    return rotation, translation_error(pose.translation, T[:3, 3])


def pose_error(pose: PoseEstimate | None, T: np.ndarray) -> float:
    """The larger of both errors of a pose in degrees; inf without one."""
    return float("inf") if pose is None else max(pose_errors(pose, T))


Transfer = tuple[np.ndarray, np.ndarray, np.ndarray, tuple[int, int]]
"""(N, 2) matches in pixels of both images as matched, the true (3, 3), and the size of image 0."""


def _transfer(pair: EvalPair, prediction: Prediction, sizing: Sizing) -> Transfer:
    if pair.homography is None:
        raise ValueError(f"{pair.name}: no homography")
    convention, size0, size1 = sizing.convention, prediction.size0, prediction.size1
    target0, target1 = sizing.target(size0), sizing.target(size1)
    change0, change1 = convention.conversion(size0, target0), convention.conversion(size1, target1)
    truth = change1 @ pair.homography @ np.linalg.inv(change0)
    keypoints0, keypoints1, _ = prediction.matches.numpy()
    points0 = convention.convert(keypoints0, size0, target0)
    points1 = convention.convert(keypoints1, size1, target1)
    return points0, points1, truth, target0


def _homography_measures(
    pair: EvalPair, prediction: Prediction, sizing: Sizing, protocol: Protocol, readable: bool
) -> Row:
    row: Row = {"corner_error": np.inf, **{f"accuracy_{t}px": 0.0 for t in FINE_PIXELS}}
    if not readable:
        return row
    points0, points1, truth, (width, height) = _transfer(pair, prediction, sizing)
    distance = np.linalg.norm(warp(points0, truth) - points1, axis=1)
    row |= shares_within(distance, prediction, "accuracy")
    best = np.argsort(-prediction.matches.scores.numpy(), kind="stable")
    best = np.sort(best[: protocol.homography_matches])
    estimate = estimate_homography(points0[best], points1[best], estimator=protocol.homography)
    if estimate is not None:
        row["corner_error"] = corner_error(estimate.matrix, truth, width=width, height=height)
        row["inliers"] = int(estimate.inliers.sum())
    return row
