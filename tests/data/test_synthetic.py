"""Synthetic scenes: exact labels, the same scene from the same key, and what is drawn."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from data.config import SyntheticConfig
from data.synthetic.cameras import Cameras, rotation_z
from data.synthetic.dataset import SyntheticScenes, TextureBank, assemble
from data.synthetic.layouts import Cylinder, Draft, Z, rotation_y, whole
from data.synthetic.photometry import Blur, point_spread
from data.synthetic.render import fetch, render
from data.synthetic.scene import SceneBatch
from data.synthetic.textures import MIP_LEVELS, procedural_textures, with_mips
from matcher.errors import UsageError
from matcher.geometry.cameras import warp_points
from matcher.structures import ImagePair, PairGeometry
from tests.helpers.geometry import gray_error

SIZE = (96, 128)
CONFIG = SyntheticConfig(size=SIZE, pairs=40, texture_side=128, procedural=27, seed=3)


@pytest.fixture(scope="module")
def scenes() -> SyntheticScenes:
    return SyntheticScenes(CONFIG)


def only(kind: str, **changes: object) -> SyntheticScenes:
    return SyntheticScenes(replace(CONFIG, mix={kind: 1.0}, **changes))


def draw(draft: Draft, *poses: np.ndarray, focal: float = 100.0) -> SceneBatch:
    """The draft before two cameras, without any photometric change."""
    K = np.array([[focal, 0, 63.5], [0, focal, 47.5], [0, 0, 1.0]])
    pose = np.stack([np.eye(4), np.eye(4)])
    for i, change in enumerate(poses):
        pose[i] = change
    bank = TextureBank(np.zeros((0, 128, 192), np.uint8), SyntheticScenes(CONFIG).bank.procedural)
    config = replace(CONFIG, strength=0.0)
    cameras = Cameras(np.stack([K, K]), pose, 1.0)
    return assemble(np.random.default_rng(0), config, bank, draft.finished(), cameras, ("0", "1"))


def same(a: ImagePair, b: ImagePair) -> bool:
    assert a.geometry is not None
    assert b.geometry is not None
    pairs = [(a.image0, b.image0), (a.image1, b.image1), (a.geometry.K1, b.geometry.K1)]
    pairs += [(a.geometry.depth0, b.geometry.depth0), (a.geometry.T_0to1, b.geometry.T_0to1)]
    return all(torch.equal(x, y) for x, y in pairs)


def test_a_wall_two_meters_ahead_has_depth_two() -> None:
    draft = Draft()
    draft.rect(
        2 * Z, np.array([9.0, 0, 0]), np.array([0, 9.0, 0]), whole(np.random.default_rng(), 0)
    )
    geometry = render(draw(draft)).geometry
    assert geometry is not None
    torch.testing.assert_close(geometry.depth0, torch.full((1, *SIZE), 2.0))


def test_a_tilted_wall_has_the_depth_of_its_plane() -> None:
    turn = rotation_y(0.5)
    draft = Draft()
    draft.rect(
        3 * Z, turn @ [20.0, 0, 0], np.array([0, 20.0, 0]), whole(np.random.default_rng(), 0)
    )
    geometry = render(draw(draft)).geometry
    assert geometry is not None
    ray = (torch.arange(128) - 63.5) / 100
    normal = turn @ Z
    expected = 3 * normal[2] / (normal[0] * ray + normal[2])
    torch.testing.assert_close(geometry.depth0[0, 40], expected.float(), rtol=1e-5, atol=0)


def test_a_cylinder_ahead_has_the_depth_of_its_front_and_hides_the_wall() -> None:
    draft = Draft(textures=("any", "any"))
    rng = np.random.default_rng(0)
    draft.rect(5 * Z, np.array([20.0, 0, 0]), np.array([0, 20.0, 0]), whole(rng, 0))
    draft.cylinders.append(Cylinder(np.eye(3), 3 * Z, 1.0, math.pi, 5.0, whole(rng, 1)))
    geometry = render(draw(draft)).geometry
    assert geometry is not None
    x = (torch.arange(128) - 63.5) / 100
    a, b, c = x * x + 1, -3.0, 8.0
    root = b * b - a * c
    front = torch.where(root > 0, (-b - root.clamp(min=0).sqrt()) / a, 5.0)
    torch.testing.assert_close(geometry.depth0[0, 47], front, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["plane", "room", "street", "clutter"])
def test_depth_and_pose_carry_each_pixel_to_the_same_gray(kind: str) -> None:
    scenes = only(kind, size=(192, 256), texture_side=256, strength=0.0)
    errors = []
    for i in range(6):
        pair = render(scenes[i], augment=False)
        g = pair.geometry
        assert g is not None
        y, x = torch.meshgrid(torch.arange(192.0), torch.arange(256.0), indexing="ij")
        points = torch.stack([x, y], dim=-1).view(1, -1, 2)
        there, z = warp_points(points, g.depth0.flatten(1), g.K0, g.K1, g.T_0to1)
        grid = ((there + 0.5) * torch.tensor([2 / 256, 2 / 192]) - 1)[:, None]
        look = torch.nn.functional.grid_sample
        gray = look(pair.image1, grid, align_corners=False)[0, 0, 0]
        depth = look(g.depth1[:, None], grid, mode="nearest", align_corners=False)[0, 0, 0]
        seen = (z[0] > 0) & ((depth - z[0]).abs() < 0.02 * z[0]) & (there[0] > 1).all(-1)
        seen &= (there[0, :, 0] < 254) & (there[0, :, 1] < 190)
        assert seen.sum() > 500
        errors.append((gray - pair.image0.flatten())[seen].abs().median())
    assert torch.stack(errors).median() < 0.02
    shifted = (gray.roll(5) - pair.image0.flatten())[seen].abs().median()
    assert shifted > errors[-1]


def in_plane_turn(pair: ImagePair) -> float:
    """Degrees by which the rotation between the cameras turns about the optical axis."""
    assert pair.geometry is not None
    R = pair.geometry.T_0to1[0, :3, :3].double()
    return math.degrees(math.atan2(R[0, 1] - R[1, 0], R[0, 0] + R[1, 1]))


def test_a_share_of_the_pairs_turns_in_the_plane_of_the_picture(scenes: SyntheticScenes) -> None:
    turned = SyntheticScenes(replace(CONFIG, roll=60.0, roll_share=0.5))
    turns = np.array([in_plane_turn(render(turned[i], augment=False)) for i in range(40)])
    plain = np.array([in_plane_turn(render(scenes[i], augment=False)) for i in range(40)])
    assert 6 <= (np.abs(turns) > 20).sum() <= 24
    assert (np.abs(turns) > 40).sum() >= (np.abs(plain) > 40).sum() + 3
    assert turns.min() < -25
    assert turns.max() > 25
    every = SyntheticScenes(replace(CONFIG, overlap=(0.1, 0.9), roll=60.0, roll_share=1.0))
    assert np.median([overlap(render(every[i], augment=False)) for i in range(12)]) > 0.3


def test_without_a_share_or_an_angle_nothing_changes(scenes: SyntheticScenes) -> None:
    for change in ({"roll": 60.0}, {"roll_share": 1.0}):
        other = SyntheticScenes(replace(CONFIG, **change))
        assert all(same(render(other[i]), render(scenes[i])) for i in range(4))


def test_a_camera_that_only_turns_sees_the_picture_turned() -> None:
    """A quarter turn clockwise: what was right of the center is above it."""
    K = np.array([[100.0, 0, 63.5], [0, 100.0, 47.5], [0, 0, 1.0]])
    x, y, z = K @ rotation_z(math.pi / 2)[:3, :3] @ np.linalg.inv(K) @ [83.5, 47.5, 1.0]
    np.testing.assert_allclose([x / z, y / z], [63.5, 27.5])


@pytest.mark.parametrize("kind", ["plane", "room", "street", "clutter"])
def test_supervision_of_turned_pairs_lands_where_it_should(kind: str) -> None:
    scenes = only(kind, strength=0.0, overlap=(0.4, 0.9), roll=60.0, roll_share=1.0)
    turns = []
    for i in range(4):
        pair = render(scenes[i], augment=False)
        assert gray_error(pair) < 0.05
        turns.append(abs(in_plane_turn(pair)))
    assert max(turns) > 20


def test_a_scene_depends_on_seed_epoch_and_index_alone(scenes: SyntheticScenes) -> None:
    batch = render(SceneBatch.collate([scenes[i] for i in (5, 2, 9)]))
    alone = render(SyntheticScenes(CONFIG)[(0, 2)])
    assert same(batch_item(batch, 1), alone)
    assert not same(render(scenes[(1, 2)]), alone)
    assert not same(render(SyntheticScenes(replace(CONFIG, seed=4))[2]), alone)


def batch_item(pair: ImagePair, i: int) -> ImagePair:
    assert pair.geometry is not None
    cut = pair._map(lambda t: t[i : i + 1])
    return replace(cut, names=pair.names[i : i + 1])


def test_workers_draw_the_same_scenes(scenes: SyntheticScenes) -> None:
    loader = torch.utils.data.DataLoader(
        scenes, batch_size=4, num_workers=2, collate_fn=SceneBatch.collate
    )
    batch = next(iter(loader))
    assert same(render(batch), render(SceneBatch.collate([scenes[i] for i in range(4)])))


def test_rendering_together_equals_rendering_one_by_one(scenes: SyntheticScenes) -> None:
    from data.synthetic.render import _render

    batch = SceneBatch.collate([scenes[i] for i in range(6)])
    together, apart = _render([batch], True), render(batch)
    assert together.geometry is not None
    assert apart.geometry is not None
    off = (together.geometry.depth0 - apart.geometry.depth0).abs() > 1e-3
    assert off.float().mean() < 1e-3
    assert ((together.image1 - apart.image1).abs() > 0.01).float().mean() < 2e-3


def overlap(pair: ImagePair) -> float:
    """The smaller of the two shares of pixels that the other image shows too."""
    g = pair.geometry
    assert g is not None
    back = PairGeometry(g.depth1, g.depth0, g.K1, g.K0, torch.linalg.inv(g.T_0to1))
    return min(seen_by_both(g), seen_by_both(back))


def seen_by_both(g: PairGeometry) -> float:
    """The share of the pixels of image 0 that image 1 shows at the depth where it should."""
    height, width = g.depth0.shape[-2:]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    points = torch.stack([x, y], dim=-1).flatten(0, 1).float()[None]
    there, z = warp_points(points, g.depth0.flatten(1), g.K0, g.K1, g.T_0to1)
    column, row = there.round().long().unbind(-1)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height) & (z > 0)
    index = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
    depth = g.depth1.flatten(1).gather(1, index)
    near = (z - depth).abs() < 0.1 * depth
    return (inside & near & (g.depth0.flatten(1) > 0)).float().mean().item()


def test_overlaps_fill_their_range(scenes: SyntheticScenes) -> None:
    """Overlap was chosen on a coarse probe, so that the limits are kept within a few percent."""
    shares = [overlap(render(scenes[i], augment=False)) for i in range(30)]
    assert min(shares) > 0.1 - 0.07
    assert max(shares) > 0.75
    assert np.median(shares) == pytest.approx(0.5, abs=0.2)
    narrow = SyntheticScenes(replace(CONFIG, overlap=(0.7, 0.8)))
    assert all(0.6 < overlap(render(narrow[i], augment=False)) < 0.9 for i in range(6))


def test_another_seed_paints_with_other_textures(scenes: SyntheticScenes) -> None:
    other = SyntheticScenes(replace(CONFIG, texture_seed=1)).bank.procedural
    alike = (other == scenes.bank.procedural).all(axis=(1, 2))
    assert alike.mean() < 0.2  # plain walls may be


def test_a_blur_grows_with_the_picture() -> None:
    """Sharp, out of focus by one pixel at a width of 256, and moved by two along a column."""
    views = [[[0.0, 0.0, 1.0], [1.0, 1.0, 0.0]], [[2.0, 0.0, math.pi / 2]] * 2]
    blur = Blur(*torch.tensor(views)[..., None, None, :].unbind(-1))
    for scale in (1.0, 2.5):
        kernels = point_spread(blur, scale).double()
        reach = kernels.shape[-1] // 2
        assert torch.allclose(kernels.sum((-2, -1)), torch.ones(2, 2).double())
        assert kernels[0, 0, reach, reach] == 1
        y, x = torch.meshgrid(*[torch.arange(-reach, reach + 1)] * 2, indexing="ij")
        spread = (kernels[0, 1] * x**2).sum().sqrt().item()
        assert spread == pytest.approx(scale, rel=0.02)
        assert (kernels[1, 0] * x**2).sum().sqrt() < 0.4
        assert (kernels[1, 0] * y**2).sum().sqrt() == pytest.approx(2 * scale, rel=0.1)


def test_most_pixels_are_covered(scenes: SyntheticScenes) -> None:
    for i in range(20):
        pair = render(scenes[i])
        assert pair.geometry is not None
        for image, depth in (
            (pair.image0, pair.geometry.depth0),
            (pair.image1, pair.geometry.depth1),
        ):
            assert (depth > 0).float().mean() > 0.75
            assert torch.isfinite(image).all()
            assert torch.isfinite(depth).all()
            assert image.min() >= 0
            assert image.max() <= 1


def test_larger_pictures_show_the_same_scene(scenes: SyntheticScenes) -> None:
    small = render(scenes[1], augment=False)
    large = render(scenes[1].resized((192, 256)), augment=False)
    halved = torch.nn.functional.avg_pool2d(large.image0, 2)
    assert large.image0.shape == (1, 1, 192, 256)
    assert (halved - small.image0).abs().median() < 0.02


def test_scenes_of_two_sizes_are_not_batched(scenes: SyntheticScenes) -> None:
    with pytest.raises(ValueError, match="size"):
        SceneBatch.collate([scenes[0], scenes[1].resized((192, 256))])


def test_far_textures_are_read_from_a_smaller_mip_level() -> None:
    board = (np.indices((128, 128)).sum(0) % 2 * 255).astype(np.uint8)
    textures = torch.from_numpy(with_mips(board[None]))[None]
    u = torch.linspace(0.2, 0.8, 50).expand(1, 8, 50)
    near = fetch(textures, u, u, torch.full_like(u, -2 * math.log2(128)), torch.zeros_like(u))
    far = fetch(textures, u, u, torch.full_like(u, -6.0), torch.zeros_like(u))
    assert near.std() > 0.1
    torch.testing.assert_close(far, torch.full_like(far, 0.5), atol=0.01, rtol=0)


def test_mip_levels_are_means(scenes: SyntheticScenes) -> None:
    textures = procedural_textures(2, 64, seed=0)
    sheet = with_mips(textures)
    half = textures.reshape(2, 32, 2, 32, 2).mean((2, 4))
    assert np.abs(sheet[:, :32, 64:] - half).max() <= 0.51
    assert MIP_LEVELS > 2


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"size": (100, 128)}, "data.synthetic.size"),
        ({"overlap": (0.9, 0.1)}, "data.synthetic.overlap"),
        ({"mix": {"planet": 1.0}}, "data.synthetic.mix"),
        ({"texture_side": 100}, "data.synthetic.texture_side"),
        ({"strength": -1.0}, "data.synthetic.strength"),
        ({"roll": 200.0}, "data.synthetic.roll"),
        ({"roll_share": 1.5}, "data.synthetic.roll_share"),
    ],
)
def test_impossible_options_are_named(change: dict[str, object], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        replace(CONFIG, **change)


def test_a_missing_folder_of_photographs_is_named(tmp_path) -> None:
    with pytest.raises(UsageError, match="nowhere"):
        SyntheticScenes(replace(CONFIG, photos=str(tmp_path / "nowhere")))
