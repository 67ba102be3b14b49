"""Stereo pairs warped from RGB-D frames: exact disparity, true occlusion, chosen frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from data.order import PairStream
from data.real.stereo_frames import StereoFrames, warp_right
from data.stereo import StereoData, StereoDataConfig
from data.synthetic.stereo import StereoSceneConfig
from data.synthetic.stereo_truth import occluded_in
from matcher.errors import ImageError, UsageError
from matcher.tasks.stereo.structures import StereoPair
from tests.helpers.stereo import write_frames

KITCHEN = Path(__file__).resolve().parents[3] / "shared" / "datasets" / "redkitchen"
SIZE = (32, 64)


def frames_of(folder: Path, numbers: tuple[int, int] = (0, 10)) -> StereoFrames:
    return StereoFrames(folder, numbers, folder / "corrupt.txt")


def sampled(image: torch.Tensor, disparity: torch.Tensor) -> torch.Tensor:
    """(H, W): what a right view shows where the disparity of each left pixel leads."""
    height, width = disparity.shape
    x = (torch.arange(width) - disparity) / (width - 1) * 2 - 1
    y = torch.linspace(-1, 1, height)[:, None].expand(-1, width)
    grid = torch.stack([x, y], dim=-1)[None]
    return torch.nn.functional.grid_sample(image, grid, align_corners=True)[0, 0]


def test_a_slanted_wall_is_seen_where_geometry_says() -> None:
    """d = 5 + 0.2 x: the right pixel r shows x = (r + 5) / 0.8."""
    column = np.arange(64, dtype=np.float32)
    disparity = np.tile(5 + 0.2 * column, (3, 1)).astype(np.float32)

    def texture(x: np.ndarray) -> np.ndarray:
        return 0.5 + 0.4 * np.sin(0.3 * x)

    left = np.tile(texture(column), (3, 1)).astype(np.float32)
    right, seen = warp_right(left, disparity)
    source = (column + 5) / 0.8
    inside = source <= 63
    np.testing.assert_allclose(
        seen[:, inside], np.tile((source - column)[inside], (3, 1)), atol=1e-4
    )
    np.testing.assert_allclose(
        right[:, inside], np.tile(texture(source)[inside], (3, 1)), atol=0.02
    )
    assert (seen[:, source > 64] == 0).all()


def test_a_near_board_hides_what_lies_left_of_it() -> None:
    """A board 8 pixels before a wall: at its left the wall is hidden, at its right is a hole."""
    disparity = np.full((1, 64), 4.0, np.float32)
    disparity[:, 30:40] = 12.0
    left = np.zeros((1, 64), np.float32)
    _, seen = warp_right(left, disparity)
    assert (seen[0, 18:28] == 12).all()
    assert (seen[0, 28:36] == 0).all()
    both = (torch.from_numpy(x)[None] for x in (disparity, seen))
    hidden = occluded_in(*both)[0, 0].nonzero()[:, 0].tolist()
    assert hidden == [0, 1, 2, 3, *range(22, 30)]


def test_the_disparity_leads_to_the_same_texture(tmp_path: Path) -> None:
    frames = frames_of(write_frames(tmp_path))
    errors = []
    for seed in range(8):
        pair = frames.draw(np.random.default_rng(seed), SIZE, (0.05, 0.2), 0.0)
        both = pair.valid[0] & ~pair.occluded[0]
        there = sampled(pair.right, pair.disparity[0])[both]
        mine = pair.left[0, 0][both]
        assert 0.3 < both.float().mean() < 1
        assert pair.disparity[pair.valid].max() <= 0.4 * SIZE[1]
        slope = torch.linalg.lstsq(torch.stack([mine, torch.ones_like(mine)], 1), there[:, None])
        errors.append((there - slope.solution[0] * mine - slope.solution[1]).abs().median())
    # What is left is the noise of both views.
    assert float(torch.stack(errors).median()) < 0.02


def test_unknown_depth_is_not_valid_and_none_at_all_is_told(tmp_path: Path) -> None:
    frames = frames_of(write_frames(tmp_path, known=0.7))
    pair = frames.draw(np.random.default_rng(0), SIZE, (0.05, 0.2), 0.5)
    assert 0.5 < pair.valid.float().mean() < 0.9
    assert (pair.disparity[~pair.valid] == 0).all()
    assert not pair.occluded[~pair.valid].any()
    dark = tmp_path / "dark"
    dark.mkdir()
    with pytest.raises(UsageError, match=r"E112 .*hardly any depth is known"):
        frames_of(write_frames(dark, known=0.0)).draw(
            np.random.default_rng(0), SIZE, (0.05, 0.2), 0.5
        )


@pytest.mark.parametrize("damaged", ["000001.jpg", "000001.depth.png"])
def test_a_damaged_frame_is_told_and_another_takes_its_place(tmp_path: Path, damaged: str) -> None:
    folder = write_frames(tmp_path)
    (folder / damaged).write_bytes(b"cut off")
    frames = frames_of(folder)

    def draw(seed: int) -> StereoPair:
        return frames.draw(np.random.default_rng(seed), SIZE, (0.05, 0.2), 0.0)

    assert all(draw(seed).valid.any() for seed in range(4))
    (line,) = (folder / "corrupt.txt").read_text().splitlines()
    assert line.startswith("1\tE10")
    assert damaged in line
    (folder / damaged.replace("1", "0")).unlink()
    with pytest.raises(ImageError, match=r"E106 .*corrupt\.txt"):
        list(map(draw, range(4)))


def test_frames_are_limited_by_number(tmp_path: Path) -> None:
    folder = write_frames(tmp_path, (3, 699, 700, 701))
    assert [f.number for f in frames_of(folder, (0, 700)).frames] == [3, 699]
    with pytest.raises(UsageError, match=r"E112 .*no frames in \(800, 900\)"):
        frames_of(folder, (800, 900))


def test_a_share_of_the_groups_comes_from_frames(tmp_path: Path) -> None:
    scenes = StereoSceneConfig(
        sizes=(SIZE, (48, 64)), shares=(0.5, 0.5), texture_side=64, procedural=9, pairs=32, group=2
    )
    folder = str(write_frames(tmp_path))

    for option, value in (("frame_share", 0.5), ("frame_numbers", (0, 5))):
        with pytest.raises(UsageError, match=rf"E201 data\.{option}: .*without a folder"):
            StereoDataConfig(**{option: value})

    def batches(share: float) -> list[StereoPair]:
        config = StereoDataConfig(batch_size=2, frames=folder, frame_share=share, stereo=scenes)
        pairs, order = StereoData(config, 0)._training()
        stream = iter(PairStream(order, 2))
        return [StereoPair.collate([pairs[key] for key in next(stream)]) for _ in range(8)]

    rendered, mixed, again = (batches(share) for share in (0.0, 0.5, 0.5))
    same = [torch.equal(a.left, b.left) for a, b in zip(rendered, mixed, strict=True)]
    assert 0 < sum(same) < 8
    assert [a.left.shape for a in rendered] == [b.left.shape for b in mixed]
    assert all(torch.equal(a.right, b.right) for a, b in zip(mixed, again, strict=True))


@pytest.mark.skipif(not KITCHEN.is_dir(), reason="RedKitchen is not here")
def test_frames_of_a_real_room_make_pairs(tmp_path: Path) -> None:
    frames = StereoFrames(KITCHEN, (0, 700), tmp_path / "corrupt.txt")
    assert max(f.number for f in frames.frames) < 700
    pair = frames.draw(np.random.default_rng(1), (128, 256), (0.04, 0.33), 0.0)
    both = pair.valid[0] & ~pair.occluded[0]
    difference = (sampled(pair.right, pair.disparity[0]) - pair.left[0, 0])[both]
    assert float((difference - difference.median()).abs().median()) < 0.05
    assert float(pair.left[0, 0][both].std()) > 0.1
