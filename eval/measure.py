"""Loop two: measures of every pair, from cached predictions alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from eval.frames import Sizing, conversion, convert
from eval.metrics import corner_error, epipolar_errors, precision, rotation_error, translation_error
from eval.pairs import Benchmark, EvalPair
from eval.predictions import Prediction
from eval.protocols import Protocol
from eval.scene_truth import match_scene
from matcher.estimation import estimate_homography, estimate_pose

Row = dict[str, str | int | float | None]
"""Measures of one pair: names to plain values; an error is inf where there is no estimate."""

PRECISION = {"precision_5e4": 5e-4, "precision_1e4": 1e-4}
"""Squared symmetric epipolar distance in normalised units."""
PIXELS = (1, 3, 5)


def measure(
    benchmark: Benchmark, predictions: Sequence[Prediction], protocol: Protocol
) -> list[Row]:
    """One row for each pair of `benchmark`, in its order."""
    return [
        measure_pair(pair, prediction, benchmark.sizing, protocol)
        for pair, prediction in zip(benchmark.pairs, predictions, strict=True)
    ]


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
        row |= match_scene(pair, prediction, sizing)
    estimate = row.get("error", row.get("corner_error"))
    if not row["failure"] and estimate == float("inf"):
        row["failure"] = "no estimate"
    return row


def _pose_measures(
    pair: EvalPair, prediction: Prediction, sizing: Sizing, protocol: Protocol, readable: bool
) -> Row:
    if pair.K0 is None or pair.K1 is None or pair.T_0to1 is None:
        raise ValueError(f"{pair.name}: a pose without intrinsics")
    T = pair.T_0to1
    row: Row = {"rotation": rotation_error(np.eye(3), T[:3, :3])}
    row |= {"rotation_error": np.inf, "translation_error": np.inf, "error": np.inf}
    row |= dict.fromkeys(PRECISION, 0.0)
    if not readable:
        return row
    sides = []
    for keypoints, stored, K in (
        (prediction.matches.keypoints0, prediction.size0, pair.K0),
        (prediction.matches.keypoints1, prediction.size1, pair.K1),
    ):
        K_size = pair.K_size or stored
        # Where thresholds count: the image of K as published, else the image that was matched.
        space = K_size if protocol.published else sizing.target(stored)
        turned = conversion(K_size, space, protocol.published) @ K
        sides.append((convert(keypoints.numpy(), stored, space, protocol.published), turned))
    (points0, K0), (points1, K1) = sides
    errors = epipolar_errors(points0, points1, K0=K0, K1=K1, T=T)
    row |= {name: precision(errors, limit) for name, limit in PRECISION.items()}
    pose = estimate_pose(points0, points1, K0=K0, K1=K1, estimator=protocol.pose)
    if pose is not None:
        rotation = rotation_error(pose.rotation, T[:3, :3])
        translation = translation_error(pose.translation, T[:3, 3])
        row |= {"rotation_error": rotation, "translation_error": translation}
        row |= {"error": max(rotation, translation), "inliers": int(pose.inliers.sum())}
    return row


def _homography_measures(
    pair: EvalPair, prediction: Prediction, sizing: Sizing, protocol: Protocol, readable: bool
) -> Row:
    row: Row = {"corner_error": np.inf} | {f"accuracy_{t}px": 0.0 for t in PIXELS}
    if pair.homography is None or not readable:
        return row
    sizes = [sizing.target(size) for size in (prediction.size0, prediction.size1)]
    changes = [
        conversion(stored, size, protocol.published)
        for stored, size in zip((prediction.size0, prediction.size1), sizes, strict=True)
    ]
    truth = changes[1] @ pair.homography @ np.linalg.inv(changes[0])
    points0, points1 = (
        convert(keypoints.numpy(), stored, size, protocol.published)
        for keypoints, stored, size in (
            (prediction.matches.keypoints0, prediction.size0, sizes[0]),
            (prediction.matches.keypoints1, prediction.size1, sizes[1]),
        )
    )
    homogeneous = np.column_stack([points0, np.ones(len(points0))]) @ truth.T
    distance = np.linalg.norm(homogeneous[:, :2] / homogeneous[:, 2:] - points1, axis=1)
    row |= {f"accuracy_{t}px": precision(distance, t) for t in PIXELS}
    found = estimate_homography(points0, points1, estimator=protocol.homography)
    if found is not None:
        width, height = sizes[0]
        row["corner_error"] = corner_error(found.matrix, truth, width=width, height=height)
        row["inliers"] = int(found.inliers.sum())
    return row
