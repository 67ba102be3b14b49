"""Epipolar geometry, with tensors and with arrays."""

from typing import Any

import numpy as np
import pytest
import torch

from matcher.geometry.cameras import warp_points
from matcher.geometry.epipolar import (
    cross_matrix,
    epipolar_error,
    fundamental_from_pose,
    normalized_epipolar_error,
    sampson_error,
)
from tests.helpers.cameras import a_pose, an_intrinsics


def test_the_cross_matrix_multiplies_as_the_cross_product() -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 5, 3))
    product = (cross_matrix(a) @ b[..., None])[..., 0]
    np.testing.assert_allclose(product, np.cross(a, b), atol=1e-15)
    assert torch.equal(cross_matrix(torch.from_numpy(a)), torch.from_numpy(cross_matrix(a)))


def test_true_matches_have_no_epipolar_error_and_a_vertical_shift_shows() -> None:
    K, T = an_intrinsics(), a_pose()
    points0 = torch.rand(30, 2, dtype=torch.float64) * 400
    points1, _ = warp_points(points0, torch.rand(30, dtype=torch.float64) + 3, K, K, T)
    F = fundamental_from_pose(K, K, T)
    assert epipolar_error(points0, points1, F).max() < 1e-6
    sideways = a_pose(0.0, (1.0, 0, 0))
    F = fundamental_from_pose(K, K, sideways)
    shifted = points0 + torch.tensor([7.0, 3.0])
    expected = torch.full((30,), 3.0).double()
    assert torch.allclose(epipolar_error(points0, shifted, F), expected, atol=1e-6)


def test_no_geometry_is_infinitely_wrong() -> None:
    points = torch.zeros(2, 2)
    assert torch.isinf(epipolar_error(points, points, torch.zeros(3, 3))).all()


def test_normalized_error_by_hand() -> None:
    # Sideways motion: epipolar lines are rows. One unit off in both images: 1 + 1, squared.
    K, T = np.diag([100.0, 100.0, 1.0]), np.eye(4)
    T[0, 3] = 1
    points0 = np.array([[0.0, 0.0], [0.0, 0.0]])
    points1 = np.array([[50.0, 0.0], [50.0, 1.0]])
    errors = normalized_epipolar_error(points0, points1, K0=K, K1=K, T_0to1=T)
    np.testing.assert_allclose(errors, [0.0, 2 * 0.01**2], atol=1e-15)
    still = normalized_epipolar_error(points0, points1, K0=K, K1=K, T_0to1=np.eye(4))
    assert np.isinf(still).all()


def test_batches_of_tensors_have_the_errors_of_arrays() -> None:
    K, T = an_intrinsics(), a_pose()
    points0, points1 = torch.rand(2, 3, 20, 2, dtype=torch.float64) * 400
    batch = [m.expand(3, *m.shape) for m in (K, K, T)]
    F = fundamental_from_pose(*batch)
    errors = epipolar_error(points0, points1, F)
    normalized = normalized_epipolar_error(
        points0, points1, K0=batch[0], K1=batch[1], T_0to1=batch[2]
    )
    for i in range(3):
        pair = points0[i].numpy(), points1[i].numpy()
        np.testing.assert_allclose(epipolar_error(*pair, F[i].numpy()), errors[i], rtol=1e-9)
        single = normalized_epipolar_error(*pair, K0=K.numpy(), K1=K.numpy(), T_0to1=T.numpy())
        np.testing.assert_allclose(single, normalized[i], rtol=1e-9)


@pytest.mark.parametrize("library", [np.asarray, torch.as_tensor])
def test_sampson_error_of_a_point_off_its_row_is_shared_by_both_images(library: Any) -> None:
    sideways = library([[0.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
    points0, points1 = library([[3.0, 5.0], [7.0, 2.0]]), library([[9.0, 5.0], [1.0, 6.0]])
    errors = sampson_error(points0, points1, sideways)
    assert errors.tolist() == pytest.approx([0.0, 4 / 2**0.5])
