"""Epipolar geometry of two views: essential and fundamental matrices, distances from lines.

Every function takes tensors and gives tensors, or takes arrays and gives arrays.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

Array = TypeVar("Array", Tensor, np.ndarray)


def cross_matrix(vector: Array) -> Array:
    """(..., 3, 3) skew matrix of (..., 3) `vector`: its product with any w is vector x w."""
    library = _library(vector)
    x, y, z = (vector[..., i] for i in range(3))
    zero = library.zeros_like(x)
    rows = ([zero, -z, y], [z, zero, -x], [-y, x, zero])
    return library.stack([library.stack(row, -1) for row in rows], -2)


def essential_from_pose(rotation: Array, translation: Array) -> Array:
    """(..., 3, 3) E with x1^T E x0 = 0 in normalized coordinates, where x1 ~ R x0 + t."""
    return cross_matrix(translation) @ rotation


def fundamental_from_essential(E: Array, K0: Array, K1: Array) -> Array:
    """(..., 3, 3) F with x1^T F x0 = 0 for the homogeneous pixels of a static point."""
    inverse = _library(E).linalg.inv
    return inverse(K1).mT @ E @ inverse(K0)


def fundamental_from_pose(K0: Array, K1: Array, T_0to1: Array) -> Array:
    """(..., 3, 3) F of two cameras; see `fundamental_from_essential`."""
    E = essential_from_pose(T_0to1[..., :3, :3], T_0to1[..., :3, 3])
    return fundamental_from_essential(E, K0, K1)


def epipolar_error(points0: Array, points1: Array, F: Array) -> Array:
    """(..., N) pixels: the larger distance of the two points to each other's epipolar line.

    Of (..., N, 2) pixels of each image and (..., 3, 3) F; one of zeros gives infinity.
    """
    library = _library(F)
    residual, slope0, slope1 = _residual(points0, points1, F)
    slope = library.minimum(slope0, slope1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return library.where(slope > 0, abs(residual) / slope**0.5, library.inf)


def sampson_error(points0: Array, points1: Array, F: Array) -> Array:
    """(..., N) pixels: the first-order distance from the epipolar constraint (Sampson).

    Of (..., N, 2) pixels of each image and (..., 3, 3) F; one of zeros gives NaN.
    """
    residual, slope0, slope1 = _residual(points0, points1, F)
    library = _library(F)
    return library.abs(residual) / library.sqrt(slope0 + slope1)


def normalized_epipolar_error(
    points0: Array, points1: Array, *, K0: Array, K1: Array, T_0to1: Array
) -> Array:
    """(..., N) squared symmetric epipolar distances in normalized units.

    The measure of SuperGlue (Sarlin et al., 2020) and LoFTR (Sun et al., 2021): the sum of the
    squared distances of both points to each other's epipolar line. Without translation it is
    infinite.

    Args:
        points0: (..., N, 2) pixels of image 0; `points1` of image 1.
        K0: (..., 3, 3) intrinsics in the same pixels, with rows fx s cx, 0 fy cy, 0 0 1; `K1`
            likewise.
        T_0to1: (..., 4, 4) takes camera-0 coordinates to camera-1 coordinates.
    """
    E = essential_from_pose(T_0to1[..., :3, :3], T_0to1[..., :3, 3])
    residual, slope0, slope1 = _residual(pixel_rays(points0, K0), pixel_rays(points1, K1), E)
    library = _library(E)
    with np.errstate(divide="ignore", invalid="ignore"):
        errors = residual**2 * (1 / slope1 + 1 / slope0)
    return library.where(library.isfinite(errors), errors, library.inf)


def pixel_rays(points: Array, K: Array) -> Array:
    """(..., N, 2) pixels as normalized coordinates: rays (x, y, 1) from the camera.

    Of (..., 3, 3) intrinsics with rows fx s cx, 0 fy cy, 0 0 1.
    """
    centers, focals = K[..., None, [0, 1], [2, 2]], K[..., None, [0, 1], [0, 1]]
    rays = (points - centers) / focals
    skew = K[..., None, 0, 1] / K[..., None, 0, 0]
    return _library(points).stack([rays[..., 0] - skew * rays[..., 1], rays[..., 1]], -1)


def _library(array: Tensor | np.ndarray) -> Any:
    """The library of an array: both know the few functions that are used here by the same names."""
    return torch if isinstance(array, Tensor) else np


def _residual(points0: Array, points1: Array, F: Array) -> tuple[Array, Array, Array]:
    """(..., N) x1^T F x0, and the squared slopes of the epipolar lines in images 0 and 1."""
    library = _library(F)
    x0, x1 = (
        library.concatenate([points, library.ones_like(points[..., :1])], -1)
        for points in (points0, points1)
    )
    line1, line0 = x0 @ F.mT, x1 @ F
    slope0, slope1 = ((line[..., :2] ** 2).sum(-1) for line in (line0, line1))
    return (x1 * line1).sum(-1), slope0, slope1
