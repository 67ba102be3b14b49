"""Matches against rendered depth: end-point error, precision and recall in pixels."""

from __future__ import annotations

import numpy as np
import torch

from eval.benchmarks.folder import EvalPair
from eval.benchmarks.sizing import EXACT, Sizing
from eval.metrics import precision
from eval.predictions import Prediction
from matcher.geometry.cameras import warp_points

Row = dict[str, str | int | float | None]
"""Measures of one pair: names to plain values; an error is inf where there is no estimate."""
PIXELS = (1, 3, 5)
"""Distances up to which a match makes a cell count as found."""
FINE_PIXELS = (0.25, 0.5, *PIXELS)
"""Distances up to which matches are counted as right."""
CELL = 8
"""Recall asks for a right match in every visible cell of this many pixels of the matched image."""
DEPTH_TOLERANCE = 0.02
"""Relative; beyond it something else stands in front."""


def measure_against_depth(pair: EvalPair, prediction: Prediction, sizing: Sizing) -> Row:
    """``epe`` (median end-point error of matches on visible points), ``precision_Npx`` (share of
    all matches within N px of the truth; a match on a hidden point is wrong; also of those whose
    refinement converged, ``precision_converged_Npx``), ``recall_Npx``
    (share of the visible cells of image 0 that hold a match within N px) and ``overlap`` (share
    of the cells of image 0 that are visible in image 1), in pixels of the matched images."""
    if pair.depth0 is None or pair.depth1 is None:
        return {}
    depth0, depth1 = (np.load(path) for path in (pair.depth0, pair.depth1))
    stored0, stored1 = ((d.shape[1], d.shape[0]) for d in (depth0, depth1))
    size0 = sizing.target(stored0)
    scale1 = np.array(sizing.target(stored1)) / np.array(stored1)
    points0, points1, _ = prediction.matches.numpy()
    true1, visible = project(points0, depth0, depth1, pair)
    distance = np.linalg.norm((points1 - true1) * scale1, axis=1)
    distance[~visible] = np.inf

    columns, rows = (side // CELL for side in size0)
    centers = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), -1).reshape(-1, 2) * CELL
    _, seen = project(EXACT.convert(centers, size0, stored0), depth0, depth1, pair)
    cell = np.rint(EXACT.convert(points0, stored0, size0) / CELL).astype(np.int64)
    cell = cell.clip(0, [columns - 1, rows - 1]) @ np.array([1, columns])
    out: Row = {
        "overlap": float(seen.mean()),
        "epe": float(np.median(distance[visible])) if visible.any() else np.inf,
        **shares_within(distance, prediction, "precision"),
    }
    for limit in PIXELS:
        hit = np.zeros(len(centers), dtype=bool)
        hit[cell[distance < limit]] = True
        out[f"recall_{limit}px"] = float(hit[seen].mean()) if seen.any() else 0.0
    return out


def shares_within(distance: np.ndarray, prediction: Prediction, name: str) -> Row:
    """``name_Npx``, share of the (N,) distances of matches below N px, and ``name_converged_Npx``
    of the matches whose refinement converged, with their share ``converged``."""
    out: Row = {f"{name}_{t}px": precision(distance, t) for t in FINE_PIXELS}
    if prediction.matches.converged is None:
        return out
    converged = prediction.matches.converged.numpy()
    out |= {f"{name}_converged_{t}px": precision(distance[converged], t) for t in FINE_PIXELS}
    return {**out, "converged": float(converged.mean()) if len(converged) else 0.0}


def project(
    points: np.ndarray, depth0: np.ndarray, depth1: np.ndarray, pair: EvalPair
) -> tuple[np.ndarray, np.ndarray]:
    """Where points of image 0 lie in image 1, and which of them are visible there."""
    depth = sample(depth0, points)
    values = (points, depth, pair.K0, pair.K1, pair.T_0to1)
    tensors = (torch.from_numpy(np.asarray(v, np.float64)) for v in values)
    projected, z = (v.numpy() for v in warp_points(*tensors))
    height, width = depth1.shape
    inside = (projected >= -0.5).all(1) & (projected < [width - 0.5, height - 0.5]).all(1)
    visible = (depth > 0) & (z > 0) & inside
    surface = sample(depth1, np.where(visible[:, None], projected, 0.0))
    return projected, visible & (np.abs(surface - z) < DEPTH_TOLERANCE * z)


def sample(depth: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Depth at (N, 2) pixels: between its neighbors on one surface, else of the nearest pixel.

    Inverse depth is linear in pixels on a plane, so that planes are sampled exactly.
    """
    height, width = depth.shape
    xy = np.clip(points, 0, [width - 1, height - 1])
    low = np.floor(np.minimum(xy, [max(width - 2, 0), max(height - 2, 0)])).astype(np.int64)
    high = np.minimum(low + 1, [width - 1, height - 1])
    x, y = (xy - low).T
    corners = np.stack([depth[a[:, 1], b[:, 0]] for a in (low, high) for b in (low, high)])
    weights = np.stack([(1 - x) * (1 - y), x * (1 - y), (1 - x) * y, x * y])
    nearest = np.rint(xy).astype(np.int64)
    near = depth[nearest[:, 1], nearest[:, 0]]
    smooth = (corners > 0).all(0) & (corners.max(0) < 1.05 * corners.min(0))
    inverse = (weights / np.where(corners > 0, corners, 1.0)).sum(0)
    return np.where(smooth, 1.0 / inverse, near)
