from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from matcher.drawing.canvas import BACKGROUND, VERMILION, arrange, as_rgb, palette
from matcher.drawing.matches import (
    coverage,
    draw_coverage,
    draw_matches,
    draw_overlay,
    draw_warp,
    spread,
    write_picture,
)
from matcher.errors import UsageError
from matcher.structures import Matches

GRAY = np.full((480, 640, 3), 128, np.uint8)


def pair(*rows: tuple[float, float, float, float, float]) -> Matches:
    table = torch.tensor(rows, dtype=torch.float32).reshape(-1, 5)
    return Matches(table[:, :2], table[:, 2:4], table[:, 4])


def scattered(n: int, seed: int = 0) -> Matches:
    generator = torch.Generator().manual_seed(seed)
    size = torch.tensor([639.0, 479.0])
    points = [torch.rand(n, 2, generator=generator) * size for _ in range(2)]
    return Matches(points[0], points[1], torch.rand(n, generator=generator))


def near(picture: np.ndarray, color: tuple[int, int, int], tolerance: int = 40) -> np.ndarray:
    """(H, W) where a pixel has about this color."""
    return np.abs(picture.astype(int) - color).max(axis=-1) <= tolerance


@pytest.mark.parametrize(
    ("shape0", "shape1"),
    [
        ((480, 640, 3), (480, 640, 3)),
        ((480, 640), (640, 480, 1)),
        ((313, 471, 4), (257, 339, 3)),
        ((1, 1), (1, 400)),
        ((30, 600, 3), (600, 30, 3)),
        ((100, 900), (120, 1000, 3)),
        ((3000, 4000, 3), (20, 20, 3)),
    ],
)
def test_any_two_images_give_a_picture_of_bounded_size(
    shape0: tuple[int, ...], shape1: tuple[int, ...]
) -> None:
    images = [np.full(shape, 90, np.uint8) for shape in (shape0, shape1)]
    matches = pair((0, 0, 0, 0, 0.5))
    for picture in (
        draw_matches(*images, matches),
        draw_overlay(*images, matches),
        draw_coverage(*images, matches),
        draw_warp(*images, np.eye(3)),
    ):
        assert picture.dtype == np.uint8
        assert picture.ndim == 3
        assert picture.shape[2] == 3
        assert max(picture.shape) <= 2 * 1600 + 200


def test_panels_place_pixel_centers_at_pixel_centers() -> None:
    """A 2 x 1 image drawn 720 high: its two pixels are squares of 720 pixels."""
    canvas, panel0, panel1 = arrange(np.zeros((1, 2), np.uint8), np.zeros((1, 1), np.uint8))
    assert panel0.size == (1440, 720)
    assert panel1.size == (720, 720)
    centers = panel0.place(np.array([[0.0, 0.0], [1.0, 0.0]]))
    np.testing.assert_allclose(centers, [[359.5, 359.5], [1079.5, 359.5]])
    assert canvas.shape[1] == 1440 + 720 + 6
    np.testing.assert_allclose(panel1.place(np.zeros((1, 2))), [[1446 + 359.5, 359.5]])


def test_wide_images_lie_one_above_the_other() -> None:
    wide = np.zeros((100, 300, 3), np.uint8)
    _, panel0, panel1 = arrange(wide, wide)
    assert panel0.origin == (0, 0)
    assert panel1.origin[0] == 0
    assert panel1.origin[1] > panel0.size[1]


def test_a_line_joins_both_keypoints_in_the_color_of_its_confidence() -> None:
    matches = pair((320, 240, 320, 240, 1.0))
    picture = draw_matches(GRAY, GRAY, matches)
    _, panel0, panel1 = arrange(GRAY, GRAY)
    color = tuple(int(c) for c in palette(np.array([1.0]))[0])
    for panel in (panel0, panel1):
        x, y = panel.place(np.array([[320.0, 240.0]]))[0].round().astype(int)
        assert near(picture, color)[y, x]
    middle = picture[panel0.size[1] // 2, panel0.size[0] + 3]
    assert np.abs(middle.astype(int) - BACKGROUND).max() > 40


def test_confidence_changes_the_picture() -> None:
    low, high = (draw_matches(GRAY, GRAY, pair((9, 9, 99, 99, s))) for s in (0.1, 0.9))
    assert not np.array_equal(low, high)


def test_outliers_are_vermilion_dashes_and_inliers_are_not() -> None:
    matches = pair((100, 100, 100, 100, 1.0), (100, 300, 100, 300, 1.0))
    none = draw_matches(GRAY, GRAY, matches, inliers=np.array([True, True]))[:700]
    mask = np.array([[1], [0]], np.uint8)  # As of OpenCV.
    one = draw_matches(GRAY, GRAY, matches, inliers=mask)[:700]
    assert not near(none, VERMILION).any()
    row = near(one, VERMILION, 70)[448:456].any(axis=0)
    drawn = np.flatnonzero(row)
    assert len(drawn) > 200
    assert np.diff(drawn).max() > 5


def test_errors_replace_the_confidence() -> None:
    matches = pair((100, 100, 100, 100, 0.0))
    yellow = tuple(int(c) for c in palette(np.array([1.0]))[0])
    picture = draw_matches(GRAY, GRAY, matches, errors=np.array([0.0]))
    assert near(picture[:700], yellow).any()
    assert not near(draw_matches(GRAY, GRAY, matches)[:700], yellow).any()


def test_no_match_leaves_the_images_alone_and_says_so() -> None:
    picture = draw_matches(GRAY, GRAY, Matches.empty())
    assert (picture[:720, :960] == 128).all()
    assert (picture[720:] < 100).any()


def test_lines_are_limited_and_spread() -> None:
    """99 strong matches in one corner and a weak one far away: the weak one is drawn too."""
    crowd = np.random.default_rng(0).uniform(0, 20, (99, 2))
    keypoints = np.concatenate([crowd, [[600.0, 400.0]]])
    scores = np.append(np.full(99, 0.9), 0.1)
    chosen = spread(keypoints, scores, 10)
    assert len(chosen) == 10
    assert len(set(chosen)) == 10
    assert 99 in chosen


def test_spread_draws_the_best_last() -> None:
    matches = scattered(50)
    chosen = spread(matches.keypoints0.numpy(), matches.scores.numpy(), 100)
    assert sorted(chosen) == list(range(50))
    assert (np.diff(matches.scores.numpy()[chosen]) >= 0).all()


@pytest.mark.parametrize("n", [0, 1, 2, 200, 5000])
def test_spread_takes_any_number_also_of_equal_points(n: int) -> None:
    assert len(spread(np.zeros((n, 2)), np.ones(n), 100)) == min(n, 100)


def test_coverage_is_the_share_of_cells_with_a_keypoint() -> None:
    corners = np.array([[0.0, 0.0], [639.0, 479.0], [639.4, 479.4]])
    assert coverage(corners, (480, 640), cells=2) == 2 / 4
    assert coverage(corners[:0], (480, 640)) == 0.0
    y, x = np.mgrid[0:480:10, 0:640:10]
    assert coverage(np.stack([x.ravel(), y.ravel()], 1), (480, 640)) == 1.0


def test_an_overlay_joins_where_a_point_was_and_where_it_went() -> None:
    """480 x 640 is drawn 720 high: a line in row 200, 100 to 300, lies in row 300, 150 to 450."""
    picture = draw_overlay(GRAY, GRAY, pair((100, 200, 300, 200, 1.0)))[:720]
    yellow = tuple(int(c) for c in palette(np.array([1.0]))[0])
    rows, columns = np.nonzero(near(picture, yellow))
    assert abs(rows - 301).max() <= 6
    assert abs(columns.min() - 150) <= 3
    assert abs(columns.max() - 450) <= 6
    assert (np.ptp(picture[:280].astype(int), axis=-1) == 0).all()


def test_coverage_colors_only_where_matches_are() -> None:
    matches = pair(*((100 + i, 100, 500, 300 + i, 1.0) for i in range(20)))
    picture = draw_coverage(GRAY, GRAY, matches)[:720]
    colorful = np.ptp(picture.astype(int), axis=-1) > 30
    assert colorful[150, 165]
    assert not colorful[600, 800]


def test_a_perfect_homography_leaves_no_colored_fringes() -> None:
    rng = np.random.default_rng(3)
    texture = cv2.resize(rng.integers(0, 255, (60, 80), dtype=np.uint8), (640, 480))
    shift = np.array([[1.0, 0, 40], [0, 1, 25], [0, 0, 1]])
    moved = cv2.warpPerspective(texture, shift, (640, 480))
    right = draw_warp(texture, moved, shift)[60:600, 1000:1700].astype(int)
    wrong = draw_warp(texture, moved, np.eye(3))[60:600, 1000:1700].astype(int)
    assert np.ptp(right, axis=-1).mean() < 0.25 * np.ptp(wrong, axis=-1).mean()


def test_the_palette_gets_steadily_lighter() -> None:
    weights = np.array([0.2126, 0.7152, 0.0722])
    lightness = palette(np.linspace(0, 1, 50)) @ weights
    assert (np.diff(lightness) > 0).all()


def test_lines_grow_with_the_picture() -> None:
    """The share of the picture that a line covers hardly depends on its resolution."""
    shares = []
    for side in (800, 3200):
        image = np.full((side, side, 3), 128, np.uint8)
        end = side - 1.0
        picture = draw_matches(image, image, pair((0, end / 2, end, end / 2, 0.0)))
        rows = np.abs(picture[: picture.shape[1] // 2 - 20].astype(int) - 128).max(axis=-1) > 20
        shares.append(rows.mean())
    assert 0.5 < shares[0] / shares[1] < 2


@pytest.mark.parametrize("bad", [np.zeros((4, 4), np.float32), np.zeros((4, 4, 2), np.uint8),
                                 np.zeros((0, 4, 3), np.uint8), np.zeros(5, np.uint8)])  # fmt: skip
def test_what_is_no_image_is_refused(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="cannot draw on"):
        as_rgb(bad)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".PNG"])
def test_pictures_are_written_in_rgb(tmp_path: Path, suffix: str) -> None:
    picture = np.zeros((20, 30, 3), np.uint8)
    picture[..., 0] = 200
    write_picture(tmp_path / f"p{suffix}", picture)
    data = np.frombuffer((tmp_path / f"p{suffix}").read_bytes(), np.uint8)
    back = cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1]
    assert back.shape == picture.shape
    assert np.abs(back.astype(int) - picture).max() < 20


def test_another_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="E201 picture"):
        write_picture(tmp_path / "p.gif", GRAY)
