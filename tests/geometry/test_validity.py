"""Geometry that is none is refused, in words that say what is wrong."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from matcher.geometry.validity import (
    usable_homography,
    usable_intrinsics,
    usable_pose,
    usable_rotation,
)

ROTATION = cv2.Rodrigues(np.array([0.3, -0.8, 0.4]))[0]
NO_ROTATIONS = {
    "zero": np.zeros((3, 3)),
    "mirrored": ROTATION @ np.diag([1, 1, -1.0]),
    "turned inside out": -ROTATION,
    "scaled": 1.05 * ROTATION,
    "sheared": ROTATION @ np.array([[1, 0.05, 0], [0, 1, 0], [0, 0, 1]]),
    "not finite": np.full((3, 3), np.nan),
    "huge": np.full((3, 3), 1e300),
    "too small": np.eye(2),
}
K = np.array([[500.0, 0, 320], [0, 510, 240], [0, 0, 1]])


def changed(matrix: np.ndarray, row: int, column: int, value: float) -> np.ndarray:
    out = matrix.copy()
    out[row, column] = value
    return out


NO_INTRINSICS = {
    "zero": np.zeros((3, 3)),
    "negative focal length": changed(K, 0, 0, -500),
    "another last row": changed(K, 2, 0, 3e-4),
    "transposed": K.T,
    "y that depends on x": changed(K, 1, 0, 20),
    "center at infinity": changed(K, 0, 2, 1e300),
    "center far away": changed(K, 1, 2, -3e9),
    "not finite": changed(K, 0, 0, np.inf),
    "no homogeneous part": changed(K, 2, 2, 0),
    "four numbers": np.array([500.0, 510, 320, 240]),
}


@pytest.mark.parametrize("matrix", NO_ROTATIONS.values(), ids=NO_ROTATIONS)
def test_what_is_no_rotation_is_refused(matrix):
    with pytest.raises(ValueError, match="no rotation"):
        usable_rotation(matrix)


@pytest.mark.parametrize("matrix", [m for m in NO_ROTATIONS.values() if m.shape == (3, 3)])
def test_what_is_no_pose_is_refused(matrix):
    pose = np.eye(4)
    pose[:3, :3] = matrix
    with pytest.raises(ValueError, match=r"no (rotation|pose)"):
        usable_pose(pose)
    with pytest.raises(ValueError, match="last row"):
        usable_pose(changed(np.eye(4), 3, 0, 1.0))


def test_a_pose_written_with_few_digits_is_used():
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = ROTATION.round(3), [6.4e6, -3e5, 2]
    np.testing.assert_array_equal(usable_pose(pose), pose)


@pytest.mark.parametrize("matrix", NO_INTRINSICS.values(), ids=NO_INTRINSICS)
def test_what_is_no_intrinsics_is_refused(matrix):
    with pytest.raises(ValueError, match="no intrinsics"):
        usable_intrinsics(matrix)


def test_a_multiple_of_intrinsics_stands_for_the_same_camera():
    skewed = changed(K, 0, 1, 3.0)
    for factor in (1.0, 2.0, -0.5):
        np.testing.assert_allclose(usable_intrinsics(factor * skewed), skewed)


def test_a_homography_that_loses_a_direction_is_refused():
    H = np.array([[1.1, 0.1, 5], [-0.05, 0.9, 3], [1e-4, 2e-4, 1]])
    np.testing.assert_array_equal(usable_homography(H), H)
    for nothing in (np.zeros((3, 3)), np.diag([1.0, 1, 0]), np.outer(H[0], H[1])):
        with pytest.raises(ValueError, match="no homography"):
            usable_homography(nothing)
