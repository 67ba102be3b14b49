"""Smooth pictures under known transforms of the plane, and how far one picture is off another."""

from __future__ import annotations

import numpy as np
import torch

from matcher.structures import Matches

SIZE = (200, 150)
"""(width, height)"""
CORNERS = np.array([[0, 0], [199, 0], [0, 149], [199, 149.0]])


def moved(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(N, 2) points under a (3, 3) transform."""
    rows = np.column_stack([points, np.ones(len(points))]) @ matrix.T
    return rows[:, :2] / rows[:, 2:]


def picture(matrix: np.ndarray) -> np.ndarray:
    """(150, 200) of waves from -2 to 2 that lie at `matrix` of where those of the identity lie."""
    y, x = np.mgrid[:150, :200].astype(float)
    back = moved(np.linalg.inv(matrix), np.column_stack([x.ravel(), y.ravel()]))
    waves = np.sin(back[:, 0] / 7) * np.cos(back[:, 1] / 9) + np.sin((back[:, 0] + back[:, 1]) / 23)
    return waves.reshape(x.shape)


def offset(got: np.ndarray, wanted: np.ndarray) -> float:
    """Pixels that one picture is off the other, by least squares on the gradient."""
    inside = (slice(15, -15), slice(15, -15))
    gy, gx = np.gradient(wanted)
    slopes = np.stack([gx[inside].ravel(), gy[inside].ravel()], axis=1)
    shift = np.linalg.lstsq(slopes, (wanted - got)[inside].ravel(), rcond=None)[0]
    return float(np.abs(shift).max())


def exact_matches(matrix: np.ndarray, count: int = 40) -> Matches:
    """Matches on pictures of `SIZE` that a transform explains."""
    points0 = np.random.default_rng(1).uniform(5, [195, 145], (count, 2))
    points = torch.from_numpy(points0), torch.from_numpy(moved(matrix, points0))
    return Matches(*points, torch.ones(count))
