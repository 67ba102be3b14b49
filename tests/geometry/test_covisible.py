"""The parts of two images that show the same."""

from __future__ import annotations

import numpy as np

from matcher.geometry.covisible import covisible_windows, window_around
from matcher.geometry.pixels import Window

SIZE = (640, 480)


def views_of_a_cloud(count: int, spread: float) -> tuple[np.ndarray, np.ndarray]:
    """(count, 2) pixels of points around the optical axis in two views, one from the side."""
    draw = np.random.default_rng(0)
    points = draw.uniform((-spread, -spread, 4), (spread, spread, 6), (count, 3))
    pixels = [
        (points + np.array([side, 0, 0]))[:, :2] / points[:, 2:] * 500 + (320, 240)
        for side in (0, 0.5)
    ]
    return pixels[0], pixels[1]


def test_a_window_holds_the_points_and_what_is_around_them_inside_of_the_image() -> None:
    points = np.random.default_rng(0).uniform((100, 300), (300, 470), (500, 2))
    window = window_around(points, SIZE)
    assert 40 < window.left < 100 < 300 < window.right < 360
    assert 240 < window.top < 300 < 470 < window.bottom == 480


def test_strays_do_not_open_a_window() -> None:
    points = np.full((100, 2), 200.0)
    points[0] = 0.0
    assert window_around(points, SIZE) == Window(184, 184, 217, 217)


def test_windows_lie_around_the_matches_that_agree() -> None:
    points0, points1 = views_of_a_cloud(200, spread=0.5)
    wrong0, wrong1 = np.random.default_rng(1).uniform((0, 0), SIZE, (2, 60, 2))
    windows = covisible_windows(
        np.concatenate([points0, wrong0]), np.concatenate([points1, wrong1]), SIZE, SIZE
    )
    assert windows is not None
    for window, points in zip(windows, (points0, points1), strict=True):
        assert window.area < 0.3 * SIZE[0] * SIZE[1]
        inside = (points >= window[:2]) & (points <= window[2:])
        assert inside.all(axis=1).mean() > 0.9


def test_there_are_no_windows_where_matches_agree_everywhere_or_nowhere() -> None:
    assert covisible_windows(*views_of_a_cloud(200, spread=2.0), SIZE, SIZE) is None
    assert (
        covisible_windows(*np.random.default_rng(1).uniform((0, 0), SIZE, (2, 7, 2)), SIZE, SIZE)
        is None
    )
