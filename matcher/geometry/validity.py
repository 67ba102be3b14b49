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
    """(3, 3) of a rotation: neither zero, mirrored, scaled nor sheared."""
    R = _matrix(R, 3, "rotation")
    off = float(np.abs(R.T @ R - np.eye(3)).max())
    determinant = float(np.linalg.det(R))
    if off > ROTATION_TOLERANCE or determinant <= 0:
        raise ValueError(
            f"no rotation: R^T R is {off:.2g} from 1, its determinant is {determinant:.2g}"
        )
    return R


def usable_pose(T: np.ndarray) -> np.ndarray:
    """(4, 4) of a rigid transform."""
    T = _matrix(T, 4, "pose")
    usable_rotation(T[:3, :3])
    if np.abs(T[3] - [0, 0, 0, 1]).max() > ROW_TOLERANCE:
        raise ValueError(f"no pose: its last row is {T[3].tolist()}, expected 0 0 0 1")
    return T


def usable_intrinsics(K: np.ndarray) -> np.ndarray:
    """(3, 3) of a pinhole, also with skew, scaled so that the last entry is 1."""
    K = _matrix(K, 3, "intrinsics")
    if abs(K[2, 2]) > ROW_TOLERANCE:
        K = K / K[2, 2]
    below = np.abs([K[1, 0], K[2, 0], K[2, 1], K[2, 2] - 1])
    if min(K[0, 0], K[1, 1]) <= 0 or below.max() > ROW_TOLERANCE:
        raise ValueError(
            "no intrinsics: expected rows fx s cx, 0 fy cy, 0 0 1 with focal lengths above 0, "
            f"got {K.tolist()}"
        )
    if np.abs(K[:2, 2]).max() > FARTHEST_CENTER * min(K[0, 0], K[1, 1]):
        raise ValueError(f"no intrinsics: the center {K[:2, 2].tolist()} is too far away")
    return K


def usable_homography(H: np.ndarray) -> np.ndarray:
    """(3, 3) of a homography: one that can be inverted."""
    H = _matrix(H, 3, "homography")
    if np.linalg.matrix_rank(H, tol=1e-12 * np.abs(H).max()) < 3:
        raise ValueError("no homography: it cannot be inverted")
    return H


def _matrix(values: np.ndarray, side: int, what: str) -> np.ndarray:
    matrix = np.asarray(values, dtype=np.float64)
    if matrix.shape != (side, side):
        raise ValueError(f"no {what}: its shape is {matrix.shape}, expected ({side}, {side})")
    if not np.isfinite(matrix).all() or np.abs(matrix).max() > LARGEST:
        raise ValueError(f"no {what}: it holds {matrix.flat[np.abs(matrix).argmax()]}")
    return matrix
