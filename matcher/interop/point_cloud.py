"""Clouds of points: what two views with a pose see, and PLY files of them."""

from __future__ import annotations

import os

import cv2
import numpy as np

from matcher.files import write_atomically
from matcher.geometry.epipolar import pixel_rays


def triangulate(
    keypoints0: np.ndarray,
    keypoints1: np.ndarray,
    *,
    K0: np.ndarray,
    K1: np.ndarray,
    T_0to1: np.ndarray,
) -> np.ndarray:
    """(N, 3) float64 points in the frame of camera 0 (x right, y down, z ahead), in units of the
    translation; NaN where the rays of a match meet behind a camera.

    Args:
        keypoints0, keypoints1: (N, 2) pixels.
        K0, K1: (3, 3) intrinsics in the same pixels.
        T_0to1: (4, 4) takes camera-0 coordinates to camera-1 coordinates.
    """
    if not len(keypoints0):
        return np.zeros((0, 3))
    rays0, rays1 = (
        pixel_rays(np.asarray(points, np.float64), K)
        for points, K in ((keypoints0, K0), (keypoints1, K1))
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        homogeneous = cv2.triangulatePoints(np.eye(3, 4), T_0to1[:3], rays0.T, rays1.T).T
        points = homogeneous[:, :3] / homogeneous[:, 3:]
        depth1 = points @ T_0to1[2, :3] + T_0to1[2, 3]
        ahead = (points[:, 2] > 0) & (depth1 > 0) & np.isfinite(points).all(axis=1)
    return np.where(ahead[:, None], points, np.nan)


def write_ply(path: str | os.PathLike[str], points: np.ndarray, colors: np.ndarray) -> None:
    """Write (N, 3) points and their (N, 3) uint8 RGB as a binary PLY.

    Raises:
        StorageError: it cannot be written (E401).
    """
    rows = np.empty(len(points), [("xyz", "<f4", 3), ("rgb", "u1", 3)])
    rows["xyz"], rows["rgb"] = points, colors
    properties = [f"property float {axis}" for axis in "xyz"]
    properties += [f"property uchar {name}" for name in ("red", "green", "blue")]
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {len(points)}"]
    header = "\n".join([*lines, *properties, "end_header\n"]).encode()
    write_atomically(os.fspath(path), header + rows.tobytes())
