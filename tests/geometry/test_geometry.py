"""The pixel convention and the geometry of two views, against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from matcher.geometry.cameras import invert_rigid, rescale_intrinsics, warp_points
from matcher.geometry.pixels import (
    EXIF_STEPS,
    from_colmap,
    network_to_original,
    original_to_network,
    resize_scale,
    to_colmap,
    turn_upright,
    upright_to_stored,
)
from tests.helpers.cameras import a_pose, an_intrinsics


def test_halving_keeps_corners_and_moves_centers() -> None:
    scale = torch.tensor(resize_scale((640, 480), (320, 240)))
    network = torch.tensor([[0.0, 0.0], [-0.5, -0.5], [319.5, 239.5]])
    original = torch.tensor([[0.5, 0.5], [-0.5, -0.5], [639.5, 479.5]])
    assert torch.equal(network_to_original(network, scale), original)
    assert torch.equal(original_to_network(original, scale), network)


def test_resizing_is_undone_at_any_scale() -> None:
    points = torch.rand(50, 2, dtype=torch.float64) * 1000
    scale = torch.tensor(resize_scale((1234, 777), (1024, 645)), dtype=torch.float64)
    there = original_to_network(points, scale)
    assert torch.allclose(network_to_original(there, scale), points, atol=1e-9)
    assert network_to_original(np.zeros(2), np.array([3.0, 5.0])).tolist() == [1.0, 2.0]


def test_average_of_a_block_lies_at_its_center() -> None:
    ramp = np.arange(12, dtype=np.float32)
    halved = ramp.reshape(-1, 2).mean(axis=1)
    positions = np.stack([np.arange(6.0)] * 2, axis=1)
    assert np.array_equal(network_to_original(positions, np.array([2.0, 2.0]))[:, 0], halved)


def test_colmap_counts_from_the_corner() -> None:
    points = torch.tensor([[0.0, 0.0], [9.0, 4.0]])
    assert torch.equal(to_colmap(points), torch.tensor([[0.5, 0.5], [9.5, 4.5]]))
    assert torch.equal(from_colmap(to_colmap(points)), points)


@pytest.mark.parametrize("orientation", sorted(EXIF_STEPS))
def test_every_exif_orientation_agrees_with_pillow_and_maps_back(orientation: int) -> None:
    stored = np.arange(35, dtype=np.uint8).reshape(5, 7)
    image = Image.fromarray(stored)
    image.getexif()[0x0112] = orientation
    upright = np.asarray(ImageOps.exif_transpose(image))
    assert np.array_equal(turn_upright(stored, orientation), upright)
    y, x = np.mgrid[: upright.shape[0], : upright.shape[1]]
    points = torch.tensor(np.stack([x, y], axis=-1))
    back = upright_to_stored(points, orientation, (7, 5))
    assert np.array_equal(stored[back[..., 1], back[..., 0]], upright)


def test_rescaled_intrinsics_project_to_the_rescaled_pixel() -> None:
    K = an_intrinsics()
    scale = torch.tensor([1.7, 2.3], dtype=torch.float64)
    ray = torch.tensor([0.2, -0.3, 1.0], dtype=torch.float64)
    pixel, small = (K @ ray)[:2], (rescale_intrinsics(K, scale) @ ray)[:2]
    assert torch.allclose(network_to_original(small, scale), pixel)
    batch = rescale_intrinsics(K.expand(3, 3, 3), scale.expand(3, 2))
    assert torch.allclose(batch[2], rescale_intrinsics(K, scale))


def test_sideways_camera_shifts_by_focal_length_over_depth() -> None:
    K = torch.tensor([[100.0, 0, 50], [0, 100, 40], [0, 0, 1]])
    T = torch.eye(4)
    T[0, 3] = -0.5
    points = torch.tensor([[[50.0, 40.0], [10.0, 20.0]]])
    warped, depth = warp_points(points, torch.tensor([[2.0, 5.0]]), K[None], K[None], T[None])
    assert torch.allclose(warped, torch.tensor([[[25.0, 40.0], [0.0, 20.0]]]), atol=1e-4)
    assert depth.tolist() == [[2.0, 5.0]]


def test_warping_there_and_back_returns_to_the_pixel() -> None:
    K0, T = an_intrinsics(), a_pose()
    K1 = rescale_intrinsics(K0, torch.tensor([2.0, 2.0]))
    points = torch.rand(20, 2, dtype=torch.float64) * 400
    there, depth = warp_points(points, torch.rand(20, dtype=torch.float64) + 3, K0, K1, T)
    back, _ = warp_points(there, depth, K1, K0, invert_rigid(T))
    assert torch.allclose(back, points, atol=1e-8)
    assert torch.allclose(invert_rigid(T) @ T, torch.eye(4, dtype=torch.float64))


def test_points_behind_the_camera_say_so_and_stay_finite() -> None:
    K = an_intrinsics()
    T = a_pose(0.0, (0, 0, -4))
    points, depth = warp_points(torch.zeros(1, 2).double(), torch.tensor([2.0]).double(), K, K, T)
    assert depth.item() == -2
    assert torch.isfinite(points).all()
