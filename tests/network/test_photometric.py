"""Photometric refinement: exact where pixels tell the truth, harmless where they do not."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from matcher.network import patches, photometric
from matcher.network.alignment import align
from matcher.network.local_affine import FAR, common_similarity, inverse, nearest
from matcher.network.patches import blurred, usable
from matcher.network.photometric import FINE, PhotometricMatches, local_affines, schedule
from tests.helpers.shifted_images import (
    distance,
    fourier_shift,
    grid_points,
    jitter,
    quantized,
    texture,
)

SIZE = (96, 128)
POINTS = grid_points(SIZE)


def moved_pair(shift: tuple[float, float], bits: int = 8, seed: int = 0) -> tuple[Tensor, Tensor]:
    image = texture(seed, SIZE)
    return quantized(image, bits), quantized(fourier_shift(image, shift), bits)


def refine(
    image0: Tensor,
    image1: Tensor,
    points0: Tensor,
    points1: Tensor,
    *,
    mask0: Tensor | None = None,
    mask1: Tensor | None = None,
    scale0: float = 1.0,
    scale1: float = 1.0,
    **how: bool | int,
) -> PhotometricMatches:
    sources = usable(image0, mask0, scale0), usable(image1, mask1, scale1)
    return photometric.refine(*sources, points0, points1, **how)


def all_finite(found: PhotometricMatches) -> bool:
    return all(bool(each.isfinite().all()) for each in found)


@pytest.mark.parametrize("bits", [8, 16])
def test_fourier_shifts_come_back_without_a_pull_to_whole_pixels(bits: int) -> None:
    errors = []
    for number, fraction in enumerate(np.arange(8) / 8):
        shift = (2 + fraction, -1 + ((fraction * 3) % 1))
        truth = POINTS + torch.tensor(shift).float()
        pair = moved_pair(shift, bits, seed=number)
        found = refine(*pair, POINTS, jitter(truth, 0.7, seed=number))
        assert found.converged.float().mean() > 0.9
        errors.append((found.points1 - truth)[found.converged])
        assert errors[-1].norm(dim=1).median() <= 0.03
        # Signed: what pulls to whole pixels shows as a mean that depends on the fraction.
        assert errors[-1].median(dim=0).values.abs().max() < 0.01
    everything = torch.cat(errors)
    assert everything.norm(dim=1).median() <= 0.02


def test_the_parts_of_pixels_are_spread_evenly() -> None:
    shifts = np.random.default_rng(5).uniform(-1, 1, (10, 2))
    parts = []
    for number, (x, y) in enumerate(shifts):
        truth = POINTS + torch.tensor([x, y]).float()
        pair = moved_pair((x, y), seed=20 + number)
        # Cells refined toward fractions of their own: points of image 0 between pixels too.
        start = jitter(POINTS, 0.5, seed=number)
        found = refine(*pair, start, truth + (start - POINTS) + 0.3)
        parts.append((found.points1 % 1)[found.converged].flatten())
    counts = torch.histc(torch.cat(parts), bins=5, min=0, max=1)
    assert counts.min() > 0.8 * counts.mean()
    assert counts.max() < 1.2 * counts.mean()


def warped_pair(matrix: Tensor, seed: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """An image, the image under the affine `matrix` about its center, and where `POINTS` go."""
    fine = torch.from_numpy(texture(seed, (192, 256), cutoff=0.12)).float()
    center = torch.tensor([(SIZE[1] - 1) / 2, (SIZE[0] - 1) / 2])

    def view(linear: Tensor) -> Tensor:
        y, x = torch.meshgrid(torch.arange(SIZE[0]), torch.arange(SIZE[1]), indexing="ij")
        places = (torch.stack([x, y], -1).float() - center) @ linear.T
        grid = places / torch.tensor([64.0, 48.0])
        return torch.nn.functional.grid_sample(
            fine[None, None], grid[None], mode="bicubic", align_corners=False
        )[0, 0]

    image1 = view(torch.linalg.inv(matrix))
    return view(torch.eye(2)), image1, (POINTS - center) @ matrix.T + center


@pytest.mark.parametrize(
    "matrix",
    [((0.9, -0.2), (0.15, 1.05)), ((0.75, 0.0), (0.1, 0.7)), ((0.9, 0.43), (-0.43, 0.9))],
    ids=["sheared", "shrunk", "turned"],
)
def test_affine_warps_are_undone(matrix: tuple[tuple[float, float], ...]) -> None:
    image0, image1, truth = warped_pair(torch.tensor(matrix))
    inside = ((truth > 8) & (truth < torch.tensor([119.0, 87.0]))).all(dim=1)
    points0, truth = POINTS[inside], truth[inside]
    found = refine(image0, image1, points0, jitter(truth, 0.7))
    assert distance(found.points1, truth).median() < 0.05
    assert found.converged.float().mean() > 0.9


def test_neighbors_give_the_affine_map_in_spite_of_wrong_matches() -> None:
    linear = torch.tensor([[0.8, -0.3], [0.25, 1.1]])
    points0 = grid_points((200, 200))
    points1 = jitter(points0 @ linear.T, 0.3)
    wrong = torch.arange(len(points0)) % 6 == 0
    points1[wrong] = jitter(points1[wrong], 40.0, seed=1)
    found = local_affines(points0, points1)[~wrong]
    assert (found - linear).abs().amax(dim=(1, 2)).median() < 0.03
    assert ((found - linear).abs().amax(dim=(1, 2)) < 0.15).float().mean() > 0.95


def test_matches_without_a_neighbor_get_the_turn_and_zoom_of_the_pair() -> None:
    turn = 1.3 * torch.tensor([[math.cos(0.5), -math.sin(0.5)], [math.sin(0.5), math.cos(0.5)]])
    points0 = torch.cat([grid_points((120, 120)), torch.tensor([[900.0, 900.0]])])
    found = local_affines(points0, points0 @ turn.T)
    torch.testing.assert_close(found[-1], turn, atol=1e-4, rtol=0)


def test_neighbors_on_a_line_leave_the_other_direction_to_the_prior() -> None:
    points0 = torch.stack([torch.arange(10) * 8.0, torch.full((10,), 40.0)], dim=1)
    found = local_affines(points0, points0 * torch.tensor([1.2, 1.0]))
    assert found.isfinite().all()
    assert (found[:, 0, 0] - 1.2).abs().max() < 0.02
    assert (found[:, 0, 1]).abs().max() < 1e-4


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_few_matches_have_the_identity_as_their_map(count: int) -> None:
    points0 = 500.0 * torch.arange(count)[:, None] * torch.ones(1, 2)
    found = local_affines(points0, points0 * 1.5)
    torch.testing.assert_close(found, torch.eye(2).expand(count, 2, 2))


def test_the_nearest_are_those_of_all_distances_for_any_chunk() -> None:
    points = 300 * torch.rand(400, 2, generator=torch.Generator().manual_seed(0))
    index, squared = nearest(points)
    every = torch.cdist(points.double(), points.double())
    assert squared.sqrt().max() < FAR
    expected = every.topk(index.shape[1], largest=False).indices
    same = [len(set(a) & set(b)) for a, b in zip(index.tolist(), expected.tolist(), strict=True)]
    assert min(same) >= index.shape[1] - 1
    assert np.mean(same) > index.shape[1] - 0.2
    for chunk in (1, 7, 1000):
        assert torch.equal(nearest(points, chunk)[0], index)


def test_random_matches_agree_on_no_similarity() -> None:
    points = 300 * torch.rand(100, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(common_similarity(points[:, :2], points[:, 2:]), torch.eye(2))


def test_gain_and_bias_of_the_light_change_nothing() -> None:
    image0, image1 = moved_pair((0.4, 0.3), bits=16)
    start = jitter(POINTS + torch.tensor([0.4, 0.3]), 0.7)
    plain = refine(image0, image1, POINTS, start)
    changed = refine(image0, 0.6 * image1 + 0.2, POINTS, start)
    torch.testing.assert_close(changed.points1, plain.points1, atol=2e-3, rtol=0)
    torch.testing.assert_close(changed.correlation, plain.correlation, atol=1e-4, rtol=0)


def test_masked_pixels_have_no_influence() -> None:
    image0, image1 = moved_pair((0.4, 0.3))
    start = jitter(POINTS + torch.tensor([0.4, 0.3]), 0.7)
    mask0, mask1 = (torch.ones(SIZE, dtype=torch.bool) for _ in range(2))
    mask0[:, :40], mask1[50:, 60:] = False, False
    noise = torch.rand(SIZE, generator=torch.Generator().manual_seed(3))
    noise[::7] = float("nan")
    clean = refine(image0, image1, POINTS, start, mask0=mask0, mask1=mask1)
    dirty = refine(
        torch.where(mask0, image0, noise),
        torch.where(mask1, image1, noise),
        POINTS,
        start,
        mask0=mask0,
        mask1=mask1,
    )
    for a, b in zip(clean, dirty, strict=True):
        assert torch.equal(a, b)
    hidden = ~mask0[POINTS[:, 1].long(), (POINTS[:, 0] + 8).long()]
    assert hidden.any()
    assert not clean.converged[hidden].any()
    assert torch.equal(clean.points1[hidden], start[hidden])
    assert clean.converged[POINTS[:, 0] > 50][:20].float().mean() > 0.8


def test_pixels_that_are_not_finite_count_as_masked() -> None:
    image0, image1 = moved_pair((0.4, 0.3))
    image1[40:50, 60:70] = float("nan")
    image0[10, 10] = float("inf")
    truth = POINTS + torch.tensor([0.4, 0.3])
    found = refine(image0, image1, POINTS, jitter(truth, 0.5))
    assert all_finite(found)
    assert distance(found.points1, truth).median() < 0.05


def no_worse(found: PhotometricMatches, start: Tensor, truth: Tensor) -> bool:
    """Not by more than 0.1 px in the median, and a number everywhere."""
    excess = distance(found.points1, truth).median() - distance(start, truth).median()
    return all_finite(found) and bool(excess <= 0.1)


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_flat_images_leave_the_matches_where_they_are(level: float) -> None:
    flat = torch.full(SIZE, level)
    start = jitter(POINTS, 0.7)
    found = refine(flat, flat, POINTS, start)
    assert torch.equal(found.points1, start)
    assert not found.converged.any()
    assert all_finite(found)


def test_noise_on_flat_walls_moves_nothing_far() -> None:
    generator = torch.Generator().manual_seed(0)
    image0, image1 = (0.5 + 0.01 * torch.randn(SIZE, generator=generator) for _ in range(2))
    start = jitter(POINTS, 0.7)
    found = refine(image0, image1, POINTS, start)
    assert no_worse(found, start, POINTS)
    assert found.converged.float().mean() < 0.05


def test_matches_at_the_border_are_no_worse() -> None:
    shift = torch.tensor([0.4, 0.3])
    image0, image1 = moved_pair((0.4, 0.3))
    x = torch.arange(4.0, 120.0, 4)
    points0 = torch.cat([torch.stack([x, torch.full_like(x, y)], 1) for y in (0.0, 2.0, 95.0)])
    start = jitter(points0 + shift, 0.7)
    assert no_worse(refine(image0, image1, points0, start), start, points0 + shift)


def test_saturated_areas_are_no_worse() -> None:
    shift = torch.tensor([0.4, 0.3])
    image = texture(0, SIZE)
    image0 = quantized(image, 8)
    image1 = quantized(fourier_shift(image, (0.4, 0.3)) * 5 - 2, 8)  # clipped at both ends
    assert ((image1 == 0) | (image1 == 1)).float().mean() > 0.3
    start = jitter(POINTS + shift, 0.7)
    found = refine(image0, image1, POINTS, start)
    assert no_worse(found, start, POINTS + shift)
    assert distance(found.points1, POINTS + shift)[found.converged].median() < 0.15


def test_stripes_move_matches_across_and_never_along() -> None:
    columns = torch.arange(SIZE[1])
    image0 = (0.5 + 0.4 * torch.sin(columns * (2 * math.pi / 11))).expand(SIZE)
    image1 = (0.5 + 0.4 * torch.sin((columns - 0.4) * (2 * math.pi / 11))).expand(SIZE)
    truth = POINTS + torch.tensor([0.4, 0.0])
    start = jitter(truth, 0.7)
    found = refine(image0, image1, POINTS, start)
    assert not found.converged.any()
    assert no_worse(found, start, truth)
    assert (found.points1 - truth)[:, 0].abs().median() < 0.05
    # Along the stripes only by what the affine maps of the neighbors tilt the patch.
    assert (found.points1 - start)[:, 1].abs().median() < 0.05


def test_two_matches_on_one_point_and_one_alone_are_refined() -> None:
    shift = torch.tensor([0.4, 0.3])
    pair = moved_pair((0.4, 0.3))
    for points0 in (POINTS[[40, 40]], POINTS[[40]]):
        found = refine(*pair, points0, jitter(points0 + shift, 0.5))
        assert found.converged.all()
        assert distance(found.points1, points0 + shift).max() < 0.1


def test_wrong_matches_stay_where_they_are() -> None:
    image0, image1 = moved_pair((0.0, 0.0))
    start = POINTS.flip(0)
    found = refine(image0, image1, POINTS, start)
    far = distance(POINTS, start) > 20
    assert found.converged[far].float().mean() < 0.1
    assert distance(found.points1, start).max() < 8


def test_points_outside_of_their_image_stay() -> None:
    pair = moved_pair((0.0, 0.0))
    outside = torch.tensor([[-50.0, 20.0], [1e6, 1e6], [60.0, 300.0]])
    found = refine(*pair, outside, outside)
    assert torch.equal(found.points1, outside)
    assert not found.converged.any()
    assert all_finite(found)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (3, 2), (7, 9)])
def test_images_smaller_than_a_patch_leave_the_matches(size: tuple[int, int]) -> None:
    image = torch.rand(size, generator=torch.Generator().manual_seed(0))
    start = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    found = refine(image, image, start, start + 0.3, scale0=4.0)
    assert all_finite(found)
    assert distance(found.points1, start).max() < 8


def test_no_match_gives_no_match() -> None:
    found = refine(*moved_pair((0, 0)), POINTS[:0], POINTS[:0])
    assert [tuple(each.shape) for each in found] == [(0, 2), (0, 2), (0,), (0,)]
    assert found.converged.dtype is torch.bool


def test_bands_of_rows_blur_as_the_whole_image(monkeypatch: pytest.MonkeyPatch) -> None:
    image = usable(torch.rand(100, 40), None)
    whole = [blurred(image, sigma, exact).values for sigma, exact in ((1.8, False), (0.7, True))]
    monkeypatch.setattr(patches, "BAND_PIXELS", 1)
    assert torch.equal(blurred(image, 1.8).values, whole[0])
    assert torch.equal(blurred(image, 0.7, exact=True).values, whole[1])


def test_chunks_and_threads_do_not_change_a_bit() -> None:
    pair = moved_pair((0.4, 0.3))
    start = jitter(POINTS, 0.7)
    expected = refine(*pair, POINTS, start)
    threads = torch.get_num_threads()
    try:
        for chunk, count in ((1, 1), (7, 2), (64, 3), (4096, 2)):
            torch.set_num_threads(count)
            found = refine(*pair, POINTS, start, chunk=chunk)
            assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    finally:
        torch.set_num_threads(threads)


def test_a_match_does_not_feel_the_others_of_its_chunk() -> None:
    levels = [blurred(usable(image, None), FINE.blur, True) for image in moved_pair((0.4, 0.3))]
    warp, start = torch.eye(2).expand(len(POINTS), 2, 2) * 1.02, jitter(POINTS, 0.7)
    together = align(levels[0], levels[1], POINTS, start, 1.0, warp, FINE)
    some = torch.tensor([3, 50, 51, 90])
    alone = align(levels[0], levels[1], POINTS[some], start[some], 1.0, warp[some], FINE)
    assert all(torch.equal(a[some], b) for a, b in zip(together, alone, strict=True))


def test_stored_pixels_are_used_where_the_network_saw_fewer() -> None:
    size, shift = (384, 512), (5.3, -2.6)
    image = texture(4, size, cutoff=0.3)
    pair = quantized(image, 8), quantized(fourier_shift(image, shift), 8)
    points0 = grid_points(size, margin=64, step=32) + 1.5
    truth = points0 + torch.tensor(shift)
    found = refine(*pair, points0, jitter(truth, 2.8), scale0=4.0, scale1=4.0)
    assert found.converged.float().mean() > 0.9
    assert distance(found.points1, truth)[found.converged].median() < 0.05


def test_passes_lead_from_pixels_of_the_network_to_stored_ones() -> None:
    assert [unit for unit, _ in schedule(1.0, 1.0, 1.0)] == [1.0, 1.0]
    assert [unit for unit, _ in schedule(4.0, 4.0, 1.0)] == pytest.approx([4, 4, 2, 1])
    # Image 1 shows half the detail: two stored pixels of image 0 are one of it.
    assert [unit for unit, _ in schedule(1.0, 1.0, 0.5)] == [2.0, 2.0]


def test_snapping_moves_to_the_corner_of_a_square() -> None:
    image = torch.full(SIZE, 0.2)
    image[40:60, 50:80] = 0.8
    image = blurred(usable(image, None), 1.0).values
    corner = torch.tensor([49.5, 39.5])
    start = corner + torch.tensor([[0.5, 0.5], [3.5, 0.5], [-0.5, 2.5], [2.5, 2.5]])
    found = refine(image, image, start, start + 0.4, snap=True)
    assert found.converged.all()
    assert len(found.points0.unique(dim=0)) == 1
    assert distance(found.points0, corner).max() < 2.5
    assert distance(found.points1, found.points0).max() < 0.05
    flat = torch.full(SIZE, 0.5)
    assert torch.equal(refine(flat, flat, start, start, snap=True).points0, start)


def test_affine_maps_and_aligned_points_have_right_gradients() -> None:
    points0 = grid_points((48, 48), margin=8).double()
    points1 = jitter(points0, 0.5).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: local_affines(points0, x), points1)
    image0, image1 = (torch.from_numpy(texture(seed, (12, 12))) for seed in (0, 0))
    fit = replace(FINE, radius=2, steps=3)
    at = torch.tensor([[5.0, 6.0]], dtype=torch.float64)
    warp = torch.eye(2, dtype=torch.float64)[None]

    def aligned(image: Tensor) -> Tensor:
        level0 = blurred(usable(image0, None), 0.7)
        return align(level0, blurred(usable(image, None), 0.7), at, at + 0.2, 1.0, warp, fit)[0]

    assert torch.autograd.gradcheck(aligned, image1.clone().requires_grad_(), atol=1e-4)


def test_small_matrices_are_inverted() -> None:
    torch.Generator().manual_seed(0)
    matrices = torch.eye(2) + 0.4 * torch.randn(
        50, 2, 2, generator=torch.Generator().manual_seed(0)
    )
    product = inverse(matrices) @ matrices
    torch.testing.assert_close(product, torch.eye(2).expand(50, 2, 2), atol=1e-3, rtol=0)


def test_the_order_of_matches_changes_nothing() -> None:
    pair = moved_pair((0.4, 0.3))
    start = jitter(POINTS, 0.7)
    expected = refine(*pair, POINTS, start)
    order = torch.randperm(len(POINTS), generator=torch.Generator().manual_seed(0))
    found = refine(*pair, POINTS[order], start[order])
    assert all(torch.equal(a, b[order]) for a, b in zip(found, expected, strict=True))
