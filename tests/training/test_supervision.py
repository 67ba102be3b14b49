"""True matches of cells from depth and pose, on planes where they can be counted by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from matcher.geometry.pixels import network_to_original
from matcher.structures import ImagePair, PairGeometry
from matcher.training.supervision import supervise
from tests.helpers.planes import DEPTH, FOCAL, plane_pair

H, W = 64, 96
ROWS, COLUMNS = H // 8, W // 8


def targets(pair: ImagePair, **options: float):
    return supervise(pair, stride=8, reach=6.0, **options)  # pyright: ignore


def with_geometry(pair: ImagePair, **changes: torch.Tensor) -> ImagePair:
    assert pair.geometry is not None
    return replace(pair, geometry=replace(pair.geometry, **changes))


def test_a_plane_moved_by_two_cells_gives_every_cell_that_stays_inside():
    coarse, fine = targets(plane_pair(0, shift=16))
    assert coarse.batch.numel() == ROWS * (COLUMNS - 2)
    assert torch.equal(coarse.index1, coarse.index0 - 2)
    assert (coarse.index0 % COLUMNS).min() == 2
    assert fine.offset.abs().max() < 1e-4
    assert fine.valid.all()
    assert coarse.size0 == (ROWS, COLUMNS)


def test_the_offset_is_measured_from_the_cell_center_in_half_windows():
    coarse, fine = targets(plane_pair(0, shift=13))
    assert torch.equal(coarse.index1, coarse.index0 - 2)
    assert torch.allclose(fine.offset[:, 0], torch.tensor(3 / 6), atol=1e-4)
    assert fine.offset[:, 1].abs().max() < 1e-4


def test_an_offset_outside_the_window_is_not_valid():
    coarse, fine = supervise(plane_pair(0, shift=13), stride=8, reach=2.0)
    assert coarse.batch.numel() > 0
    assert not fine.valid.any()


def test_every_pair_of_a_batch_is_supervised_as_alone():
    pairs = [plane_pair(i, shift) for i, shift in enumerate((-16, 5, 24))]
    both, _ = targets(ImagePair.collate(pairs))
    for b, pair in enumerate(pairs):
        alone, _ = targets(pair)
        assert torch.equal(both.index0[both.batch == b], alone.index0)
        assert torch.equal(both.index1[both.batch == b], alone.index1)


def test_unknown_depth_gives_no_match():
    pair = plane_pair(0)
    assert pair.geometry is not None
    depth = pair.geometry.depth0.clone()
    depth[:, :, 48:] = 0
    coarse, _ = targets(with_geometry(pair, depth0=depth))
    assert (coarse.index0 % COLUMNS).max() == 5


def test_a_surface_hidden_in_image_1_gives_no_match():
    pair = plane_pair(0)
    near = torch.full((1, H, W), DEPTH * 0.9)
    assert targets(with_geometry(pair, depth1=near), tolerance=0.05)[0].batch.numel() == 0
    # A tenth of disagreement is within the published tolerance; warped back with its own depth,
    # the point lands nearly where it came from.
    assert targets(with_geometry(pair, depth1=near), tolerance=0.2)[0].batch.numel() > 0


def test_points_behind_the_camera_give_no_match():
    pair = plane_pair(0)
    assert pair.geometry is not None
    turned = torch.diag(torch.tensor([-1.0, 1.0, -1.0, 1.0]))[None]
    assert targets(with_geometry(pair, T_0to1=turned))[0].batch.numel() == 0


def test_only_one_of_the_cells_that_meet_in_one_cell_is_matched():
    """Image 1 from twice as far: four cells of image 0 fall on each of its cells."""
    pair = plane_pair(0, shift=0)
    away = torch.eye(4)[None].clone()
    away[0, 2, 3] = DEPTH
    far = torch.full((1, H, W), 2 * DEPTH)
    coarse, _ = targets(with_geometry(pair, T_0to1=away, depth1=far))
    assert 0 < coarse.batch.numel() <= ROWS * COLUMNS / 4 + COLUMNS
    assert coarse.index1.unique().numel() == coarse.batch.numel()


def test_cells_outside_of_a_mask_are_not_matched():
    pair = plane_pair(0, shift=0)
    mask = torch.ones(1, H, W, dtype=torch.bool)
    mask[:, 41:] = False
    coarse, _ = targets(replace(pair, mask1=mask))
    assert coarse.index1.max() // COLUMNS == 5
    coarse, _ = targets(replace(pair, mask0=mask))
    assert coarse.index0.max() // COLUMNS == 5


def test_intrinsics_are_in_pixels_of_the_original_image():
    """The original was 2 x 4 times larger; K must be carried over with the pixel convention."""
    pair = plane_pair(0, shift=16)
    assert pair.geometry is not None
    scale = torch.tensor([[2.0, 4.0]])
    center = network_to_original(torch.tensor([[W / 2, H / 2]]), scale)[0]
    K = torch.tensor([[[2 * FOCAL, 0, center[0]], [0, 4 * FOCAL, center[1]], [0, 0, 1.0]]])
    large = replace(with_geometry(pair, K0=K, K1=K), scale0=scale, scale1=scale)
    for a, b in zip(targets(large)[0][:3], targets(pair)[0][:3], strict=True):
        assert torch.equal(a, b)
    assert targets(large)[1].offset.abs().max() < 1e-3


def test_autocast_does_not_blur_the_targets():
    exact = targets(plane_pair(0, shift=13))[1].offset
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(targets(plane_pair(0, shift=13))[1].offset, exact)


def test_a_pair_without_geometry_is_refused():
    with pytest.raises(ValueError, match="geometry"):
        targets(replace(plane_pair(0), geometry=None))


def test_images_of_different_sizes_are_matched():
    pair = plane_pair(0, shift=0)
    assert pair.geometry is not None
    small = replace(
        pair,
        image1=pair.image1[..., :48, :64],
        geometry=PairGeometry(
            pair.geometry.depth0,
            pair.geometry.depth1[:, :48, :64],
            pair.geometry.K0,
            pair.geometry.K1,
            pair.geometry.T_0to1,
        ),
    )
    coarse, _ = targets(small)
    assert coarse.size1 == (6, 8)
    assert coarse.batch.numel() == 48
    assert torch.equal(coarse.index0 // COLUMNS, coarse.index1 // 8)
    assert torch.equal(coarse.index0 % COLUMNS, coarse.index1 % 8)
