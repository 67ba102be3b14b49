"""What a matrix from outside must be before it counts as a pose, a camera or a homography.

Each function gives the matrix as float64 and raises `ValueError` with what is wrong in a few words;
a reader adds the file and the line.
"""

from __future__ import annotations

import numpy as np

ROTATION_TOLERANCE = 0.01
"""Largest entry of R^T R - 1: for poses that were written with few digits."""
ROW_TOLERANCE = 1e-6
"""Of entries that must be 0 or 1."""
LARGEST = 1e12
"""Of all entries: beyond it squares lose all digits."""
FARTHEST_CENTER = 1e4
"""Of a principal point, in focal lengths: rays from farther away are parallel."""


def usable_rotation(R: np.ndarray) -> np.ndarray:
    """(..., 3, 3) of rotations: neither zero, mirrored, scaled nor sheared."""
    R = _matrices(R, 3, "rotation")
    off = np.abs(R.mT @ R - np.eye(3)).max(initial=0)
    determinant = np.linalg.det(R).min(initial=1)
    if off > ROTATION_TOLERANCE or determinant <= 0:
        what = f"R^T R is {off:.2g} from 1, its determinant is {determinant:.2g}"
        raise ValueError(f"no rotation: {what}")
    return R


def usable_pose(T: np.ndarray) -> np.ndarray:
    """(..., 4, 4) of rigid transforms."""
    T = _matrices(T, 4, "pose")
    usable_rotation(T[..., :3, :3])
    if np.abs(T[..., 3, :] - [0, 0, 0, 1]).max(initial=0) > ROW_TOLERANCE:
        raise ValueError("no pose: its last row is not 0 0 0 1")
    return T


def usable_intrinsics(K: np.ndarray) -> np.ndarray:
    """(..., 3, 3) of pinholes, also with skew, scaled so that the last entry is 1."""
    K = _matrices(K, 3, "intrinsics")
    last = K[..., 2:, 2:]
    K = K / np.where(np.abs(last) > ROW_TOLERANCE, last, 1)
    focal = K[..., [0, 1], [0, 1]].min(axis=-1)
    row = np.abs(K[..., 2, :] - [0, 0, 1]).max(initial=0)
    if (focal <= 0).any() or max(row, np.abs(K[..., 1, 0]).max(initial=0)) > ROW_TOLERANCE:
        rows = "fx s cx, 0 fy cy, 0 0 1 with fx and fy above 0"
        raise ValueError(f"no intrinsics: expected rows {rows}, got {K.tolist()}")
    center = np.abs(K[..., :2, 2]).max(axis=-1)
    if (center > FARTHEST_CENTER * focal).any():
        raise ValueError(f"no intrinsics: the center is {center.max():.3g} pixels away")
    return K


def usable_homography(H: np.ndarray) -> np.ndarray:
    """(3, 3) of a homography: one that can be inverted."""
    H = _matrices(H, 3, "homography")
    if np.linalg.matrix_rank(H, tol=1e-12 * np.abs(H).max()) < 3:
        raise ValueError("no homography: it cannot be inverted")
    return H


def _matrices(values: np.ndarray, side: int, what: str) -> np.ndarray:
    matrices = np.asarray(values, dtype=np.float64)
    if matrices.shape[-2:] != (side, side):
        raise ValueError(f"no {what}: its shape is {matrices.shape}, expected ({side}, {side})")
    wrong = matrices[~(np.abs(matrices) <= LARGEST)]
    if wrong.size:
        raise ValueError(f"no {what}: it holds {wrong[0]:g}")
    return matrices
