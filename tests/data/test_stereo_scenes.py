"""Rendered stereo pairs: disparity and occlusion are exact, and what may differ between views."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from data.synthetic.cameras import Cameras
from data.synthetic.dataset import SyntheticConfig, TextureBank, assemble, texture_bank
from data.synthetic.layouts import Draft, Z, rotation_y, whole
from data.synthetic.stereo import StereoSceneConfig, StereoScenes, draw_stereo
from data.synthetic.stereo_truth import Misalignment, misaligned, occluded_in, render_stereo
from matcher.errors import UsageError
from matcher.tasks.stereo.structures import StereoPair

SIZE = (96, 192)
FOCAL, BASELINE = 150.0, 0.4
CONFIG = StereoSceneConfig(
    sizes=(SIZE, (64, 128)), shares=(0.5, 0.5), group=2, pairs=40, texture_side=128, procedural=27
)


@pytest.fixture(scope="module")
def scenes() -> StereoScenes:
    return StereoScenes(CONFIG)


def view(draft: Draft) -> StereoPair:
    """The draft before two cameras `BASELINE` apart that look along z, as it is."""
    K = np.array([[FOCAL, 0, 95.5], [0, FOCAL, 47.5], [0, 0, 1.0]])
    pose = np.stack([np.eye(4), np.eye(4)])
    pose[1, 0, 3] = -BASELINE
    bank = TextureBank(
        np.zeros((0, 128, 192), np.uint8), texture_bank(None, None, 128, 27, 0).procedural
    )
    config = SyntheticConfig(size=SIZE, strength=0.0)
    cameras = Cameras(np.stack([K, K]), pose, 1.0)
    scene = assemble(np.random.default_rng(0), config, bank, draft.finished(), cameras, ("0", "1"))
    return render_stereo(scene, augment=False)


def board(draft: Draft, depth: float, half: float, turn: float = 0.0) -> None:
    paint = whole(np.random.default_rng(0), 0)
    u = rotation_y(turn) @ np.array([half, 0, 0])
    draft.rect(depth * Z, u, np.array([0, 30.0, 0]), paint)


def test_the_disparity_of_a_plane_is_its_closed_form() -> None:
    draft = Draft()
    board(draft, 4.0, 40.0, turn=0.4)
    pair = view(draft)
    normal = rotation_y(0.4) @ Z
    ray = (torch.arange(192, dtype=torch.float64) - 95.5) / FOCAL
    depth = 4 * normal[2] / (normal[0] * ray + normal[2])
    expected = FOCAL * BASELINE / depth
    error = (pair.disparity[0].double() - expected).abs().max()
    assert error < 1e-4
    assert pair.valid.all()


def test_a_plane_hides_nothing_but_what_leaves_the_picture() -> None:
    draft = Draft()
    board(draft, 4.0, 40.0, turn=1.2)
    pair = view(draft)
    column = torch.arange(192) - pair.disparity
    assert torch.equal(pair.occluded, column < -0.5)


def test_a_board_hides_a_strip_as_wide_as_the_difference_of_disparities() -> None:
    draft = Draft()
    board(draft, 6.0, 60.0)
    board(draft, 3.0, 0.5)
    pair = view(draft)
    hidden = pair.occluded[0, 47, 30:]
    assert hidden.sum().item() == pytest.approx(FOCAL * BASELINE * (1 / 3 - 1 / 6), abs=1)
    left_edge = 95.5 - FOCAL * 0.5 / 3
    columns = hidden.nonzero().flatten() + 30
    assert columns.max() < left_edge
    assert columns.min() > left_edge - 12


def test_a_nearer_point_at_an_edge_is_not_hidden_by_what_is_behind_it() -> None:
    left, right = torch.zeros(1, 1, 8), torch.zeros(1, 1, 8)
    left[..., 5] = 2.4
    right[..., 2] = 2.4
    assert not occluded_in(left, right)[..., 5]


def test_the_right_view_moved_by_the_truth_is_the_left_one(scenes: StereoScenes) -> None:
    seen, hidden = [], []
    for i in range(8):
        rng = np.random.default_rng(i)
        scene, _ = draw_stereo(rng, replace(CONFIG, strength=0.0), scenes.bank, (192, 384))
        pair = render_stereo(scene, augment=False)
        column = torch.arange(384) - pair.disparity
        row = torch.arange(192.0)[:, None].expand_as(column[0])
        grid = torch.stack([(column[0] + 0.5) / 192 - 1, (row + 0.5) / 96 - 1], -1)[None]
        moved = torch.nn.functional.grid_sample(pair.right, grid, align_corners=False)
        error = (moved - pair.left).abs()[:, 0]
        seen.append(error[pair.valid & ~pair.occluded].flatten())
        hidden.append(error[pair.occluded & (column > 0)].flatten())
    assert torch.cat(seen).median() < 0.01
    assert torch.cat(seen).quantile(0.95) < 0.08
    assert torch.cat(hidden).median() > 0.08


def test_a_pair_depends_on_seed_epoch_and_index_alone(scenes: StereoScenes) -> None:
    again = StereoScenes(CONFIG)[(0, 7)]
    assert torch.equal(scenes[7].right, again.right)
    assert torch.equal(scenes[7].disparity, again.disparity)
    assert not torch.equal(scenes[(1, 6)].left, scenes[6].left)


def test_pairs_of_a_group_can_be_stacked_and_all_sizes_come(scenes: StereoScenes) -> None:
    sizes = set()
    for first in range(0, 20, 2):
        batch = StereoPair.collate([scenes[first], scenes[first + 1]])
        sizes.add(batch.left.shape[-2:])
    assert sizes == {SIZE, (64, 128)}


def test_disparities_fill_their_range_and_most_pixels_have_one(scenes: StereoScenes) -> None:
    pairs = [scenes[i] for i in range(40)]
    near = [(p.disparity[p.valid].quantile(0.95) / p.disparity.shape[-1]).item() for p in pairs]
    assert min(near) < 0.12
    assert max(near) > 0.24
    assert all(p.valid.float().mean() > 0.85 for p in pairs)
    assert 0.05 < np.mean([p.occluded.float().mean() for p in pairs]) < 0.35


def test_a_shift_moves_the_picture_up_and_nothing_else() -> None:
    image = torch.rand(1, 1, 16, 32)
    moved = misaligned(image, Misalignment(1.0, 0.0))
    torch.testing.assert_close(moved[..., 1:-1, :], image[..., 2:, :], atol=1e-5, rtol=0)
    assert misaligned(image, Misalignment(0.0, 0.0)) is image


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"sizes": ((100, 128), SIZE)}, "data.stereo.sizes"),
        ({"shares": (1.0,)}, "data.stereo.shares"),
        ({"pairs": 41}, "data.stereo.pairs"),
        ({"disparity": (0.4, 0.1)}, "data.stereo.disparity"),
        ({"strength": -1.0}, "data.stereo.strength"),
    ],
)
def test_impossible_options_are_named(change: dict[str, object], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        replace(CONFIG, **change)
