"""Rows of pairs to one record of a method, benchmark and protocol."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from eval.depth_truth import FINE_PIXELS, PIXELS
from eval.measure import PRECISION, Row
from eval.metrics import bootstrap_auc, error_auc, mean_average_accuracy

POSE_LIMITS = (5, 10, 20)
"""Degrees."""
CORNER_LIMITS = (3, 5, 10)
"""Pixels."""
OVERLAP_BINS = ((0.0, 0.1), (0.1, 0.3), (0.3, 0.5), (0.5, 0.7), (0.7, 1.0))
ROTATION_BINS = ((0, 15), (15, 30), (30, 60), (60, 180))
WITHIN = ("accuracy", "accuracy_converged", "precision", "precision_converged")
MEANS = (
    *PRECISION,
    "matches",
    "inliers",
    *(f"{name}_{t}px" for name in WITHIN for t in FINE_PIXELS),
    *(f"recall_{t}px" for t in PIXELS),
    "converged",
)


def summarize(rows: Sequence[Row], *, bootstrap: int, seed: int) -> dict[str, Any]:
    """Means and areas in the units they are printed in: AUC and mAA in percent, shares in [0, 1].

    Keys that end in ``_low`` and ``_high`` bound the 95% confidence interval of an AUC over
    pairs; they are absent with `bootstrap` = 0.
    """
    out: dict[str, Any] = {"pairs": len(rows)}
    pose = _column(rows, "error")
    if pose is not None:
        out |= _areas(pose, POSE_LIMITS, "auc", bootstrap, seed)
        out["maa10"] = 100 * mean_average_accuracy(pose)
    corner = _column(rows, "corner_error")
    if corner is not None:
        out |= _areas(corner, CORNER_LIMITS, "corner_auc", bootstrap, seed)
        out["corner_error_median"] = _finite(float(np.median(corner)))
        out["corner_below_3px"] = float((corner < 3).mean())
    epe = _column(rows, "epe")
    if epe is not None:
        out["epe_median"] = _finite(float(np.median(epe)))
    for name in MEANS:
        values = _column(rows, name)
        if values is not None:
            out[name] = float(values.mean())
    out["breakdown"] = _breakdown(rows)
    out["failures"] = [f"{row['pair']}: {row['failure']}" for row in rows if row["failure"]]
    return out


def _areas(
    errors: np.ndarray, limits: tuple[int, ...], prefix: str, bootstrap: int, seed: int
) -> dict[str, float]:
    areas = zip(limits, error_auc(errors, limits), strict=True)
    out = {f"{prefix}{limit}": 100 * area for limit, area in areas}
    if bootstrap:
        bounds = bootstrap_auc(errors, limits, samples=bootstrap, seed=seed)
        for limit, (low, high) in zip(limits, bounds, strict=True):
            out |= {f"{prefix}{limit}_low": 100 * low, f"{prefix}{limit}_high": 100 * high}
    return out


def _breakdown(rows: Sequence[Row]) -> dict[str, list[dict[str, Any]]]:
    """Pose AUC of the pairs in bins of overlap and of rotation, as far as these are known."""
    out: dict[str, list[dict[str, Any]]] = {}
    errors = _column(rows, "error")
    if errors is None:
        return out
    for name, bins in (("overlap", OVERLAP_BINS), ("rotation", ROTATION_BINS)):
        values = _column(rows, name)
        if values is None:
            continue
        out[name] = []
        for low, high in bins:
            last = (low, high) == bins[-1]
            inside = (values >= low) & ((values <= high) if last else (values < high))
            if inside.any():
                span = {"from": low, "to": high, "pairs": int(inside.sum())}
                out[name].append(span | _areas(errors[inside], POSE_LIMITS, "auc", 0, 0))
    return out


def _column(rows: Sequence[Row], name: str) -> np.ndarray | None:
    """Values of all rows; None where they do not have it."""
    if not rows or any(name not in row for row in rows):
        return None
    return np.array([row[name] for row in rows], dtype=np.float64)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
