"""Pictures of the worst and the best pairs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eval.benchmarks.folder import EvalPair
from eval.benchmarks.sizing import EXACT
from eval.names import file_label
from eval.predictions import Prediction
from eval.runner import Evaluation
from matcher.drawing.matches import draw_matches, write_picture
from matcher.errors import MatcherError
from matcher.geometry.epipolar import epipolar_error, fundamental_from_pose
from matcher.geometry.transforms import warp
from matcher.images.load import read_rgb

ERROR_LIMIT = 5.0
"""Pixels of the stored image from where on a line has the last color."""


@dataclass(frozen=True)
class Drawn:
    """A picture of a pair and what to say about it."""

    path: Path
    caption: str


def draw_extremes(
    evaluation: Evaluation, folder: Path, count: int
) -> tuple[list[Drawn], list[Drawn]]:
    """`count` pairs drawn with their errors: the worst and the best, one more of the worst where
    the number is odd."""
    name = "error" if "auc5" in evaluation.record else "corner_error"
    errors = np.array([row[name] for row in evaluation.rows], dtype=float)
    order = np.argsort(-errors, kind="stable").tolist()
    count = min(count, len(order))
    worst = [_draw(evaluation, i, folder, name) for i in order[: count - count // 2]]
    best = [_draw(evaluation, i, folder, name) for i in order[::-1][: count // 2]]
    return [d for d in worst if d], [d for d in best if d]


def _draw(evaluation: Evaluation, index: int, folder: Path, name: str) -> Drawn | None:
    pair, prediction = evaluation.benchmark.pairs[index], evaluation.predictions[index]
    row, record = evaluation.rows[index], evaluation.record
    try:
        images = read_rgb(pair.image0), read_rgb(pair.image1)
    except MatcherError:
        return None  # Listed among the failures.
    errors = pixel_errors(pair, prediction)
    picture = draw_matches(*images, prediction.matches, errors=errors, error_limit=ERROR_LIMIT)
    label = f"{record['dataset']}-{record['protocol']}-{record['method']}-{index:06d}"
    path = folder / f"{file_label(label)}.jpg"
    write_picture(path, picture)
    unit = "deg" if name == "error" else "px"
    value = float(row[name] or 0.0)
    error = f"{value:.2f} {unit}" if np.isfinite(value) else f"failed ({row['failure']})"
    return Drawn(path, f"{pair.name}: {error}, {row['matches']} matches, {row['inliers']} inliers")


def pixel_errors(pair: EvalPair, prediction: Prediction) -> np.ndarray:
    """(N,) distance to the truth in pixels of the stored images: from the true point if a
    homography is known, else from the epipolar line."""
    points0, points1, _ = prediction.matches.numpy()
    if pair.homography is not None:
        return np.linalg.norm(warp(points0, pair.homography) - points1, axis=1)
    if pair.K0 is None or pair.K1 is None or pair.T_0to1 is None:
        raise ValueError(f"{pair.name}: no ground truth")
    K0, K1 = (
        K if pair.K_size is None else EXACT.conversion(pair.K_size, size) @ K
        for K, size in ((pair.K0, prediction.size0), (pair.K1, prediction.size1))
    )
    F = fundamental_from_pose(K0, K1, pair.T_0to1)
    return epipolar_error(points0.astype(np.float64), points1.astype(np.float64), F)
