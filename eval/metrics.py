"""What is measured: NumPy in, plain numbers out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from matcher.geometry.validity import usable_rotation


def error_auc(errors: Sequence[float] | np.ndarray, thresholds: Sequence[float]) -> list[float]:
    """Area under the curve of recall against error, up to each threshold, divided by it.

    The curve is SuperGlue's and LoFTR's: it starts at (0, 0), joins the points (i-th smallest
    error, i / N) by straight lines and runs level from the last error below the threshold.
    A failure is an infinite error: it counts in N and never recalls. NaN for no errors at all.
    """
    ordered = np.sort(np.asarray(errors, dtype=np.float64))
    if np.isnan(ordered).any() or (ordered < 0).any():
        raise ValueError("errors must be non-negative; a failure is inf")
    if ordered.size == 0:
        return [float("nan")] * len(thresholds)
    recall = np.arange(1, ordered.size + 1) / ordered.size
    out = []
    for threshold in thresholds:
        below = int(np.searchsorted(ordered, threshold))
        x = np.concatenate(([0.0], ordered[:below], [threshold]))
        level = recall[below - 1] if below else 0.0
        y = np.concatenate(([0.0], recall[:below], [level]))
        out.append(float(np.sum(np.diff(x) * (y[1:] + y[:-1])) / 2 / threshold))
    return out


def mean_average_accuracy(errors: Sequence[float] | np.ndarray) -> float:
    """Mean over the thresholds 1, 2, ... 10 of the share of errors below them."""
    values = np.asarray(errors, dtype=np.float64)
    if values.size == 0:
        return float("nan")
    return float(np.mean([(values < t).mean() for t in range(1, 11)]))


def rotation_error(estimate: np.ndarray, truth: np.ndarray) -> float:
    """Degrees between two rotations, exact near 0 and near 180; `ValueError` if one is none."""
    relative = usable_rotation(estimate).T @ usable_rotation(truth)
    sine = np.linalg.norm(relative - relative.T) / (2 * np.sqrt(2))
    cosine = (np.trace(relative) - 1) / 2
    return float(np.degrees(np.arctan2(sine, cosine)))


def translation_error(estimate: np.ndarray, truth: np.ndarray) -> float:
    """Degrees between two directions whose sign is free, at most 90; 0 if `truth` has no length,
    because no direction is then wrong."""
    lengths = np.linalg.norm(estimate) * np.linalg.norm(truth)
    if lengths == 0:
        return 0.0
    sine = np.linalg.norm(np.cross(estimate, truth))
    return float(np.degrees(np.arctan2(sine, abs(np.dot(estimate, truth)))))


def precision(errors: np.ndarray, threshold: float) -> float:
    """Share of errors below `threshold`; 0 where there is no match, as published."""
    return float((errors < threshold).mean()) if len(errors) else 0.0


def corner_error(estimate: np.ndarray, truth: np.ndarray, *, width: int, height: int) -> float:
    """Mean distance in pixels of the four corners of image 0 under two homographies."""
    x, y = width - 1.0, height - 1.0
    corners = np.array([[0.0, 0, 1], [x, 0, 1], [0, y, 1], [x, y, 1]])
    moved0, moved1 = (corners @ H.T for H in (estimate, truth))
    if (moved0[:, 2] * moved0[0, 2] <= 0).any():
        return float("inf")  # A corner went through infinity.
    distance = moved0[:, :2] / moved0[:, 2:] - moved1[:, :2] / moved1[:, 2:]
    return float(np.linalg.norm(distance, axis=1).mean())


def bootstrap_auc(
    errors: Sequence[float] | np.ndarray,
    thresholds: Sequence[float],
    *,
    samples: int,
    seed: int,
    level: float = 0.95,
) -> list[tuple[float, float]]:
    """Percentile confidence interval of each AUC, resampling pairs with replacement."""
    values = np.asarray(errors, dtype=np.float64)
    if values.size == 0 or samples < 1:
        return [(float("nan"), float("nan"))] * len(thresholds)
    rng = np.random.default_rng(seed)
    draws = [error_auc(rng.choice(values, values.size), thresholds) for _ in range(samples)]
    tail = (1 - level) / 2
    low, high = np.quantile(draws, [tail, 1 - tail], axis=0).tolist()
    return list(zip(low, high, strict=True))


def bootstrap(
    figure: Callable[[np.ndarray], float], count: int, draws: int = 2000
) -> tuple[float, float]:
    """95% interval of a figure of `count` samples, were there other such samples.

    Args:
        figure: of the (count,) numbers of samples that are drawn, with replacement.
    """
    drawn = np.random.default_rng(0).integers(0, count, (draws, count))
    low, high = np.percentile([figure(numbers) for numbers in drawn], (2.5, 97.5))
    return float(low), float(high)


def wilson_interval(hits: int, count: int) -> tuple[float, float]:
    """95% interval of a share of `hits` among `count` (Wilson, 1927).

    Returns:
        Both ends as shares from 0 to 1; (0, 1) where nothing was counted.
    """
    if count == 0:
        return 0.0, 1.0
    share, z = hits / count, 1.959964
    z2 = z * z
    center = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = z * np.sqrt(share * (1 - share) / count + z2 / (4 * count**2)) / (1 + z2 / count)
    return float(max(0.0, center - half)), float(min(1.0, center + half))
