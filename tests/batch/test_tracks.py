"""Tracks: their references, and one position an image for all that they join."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import torch

from matcher.batch.export.keypoints import merged_keypoints, pair_matches
from matcher.batch.export.tracks import Pixels, references, refine_tracks
from matcher.errors import Code, ImageError
from matcher.images.load import load_image
from tests.helpers.collections_of_pairs import run_of
from tests.helpers.shifted_images import fourier_shift, grid_points, quantized, texture

SIZE = (96, 128)
SHIFTS = np.array([(0.0, 0.0), (2.3, -1.4), (-1.6, 0.8), (0.7, 3.2)])


def shifted_views() -> list[Pixels]:
    image = texture(3, SIZE, cutoff=0.2)
    views = (fourier_shift(image, (float(x), float(y))) for x, y in SHIFTS)
    return [Pixels(quantized(view, 8), None, 1.0) for view in views]


def noisy_rows(points: np.ndarray, i: int, j: int) -> np.ndarray:
    """Matches of two views that err by a third of a pixel in both, each pair in its own way."""
    noise = np.random.default_rng(10 * i + j).normal(0, 0.3, (2, *points.shape)).clip(-0.6, 0.6)
    ends = points + SHIFTS[[i, j], None] + noise
    return np.column_stack([*ends, np.full(len(points), 0.9)])


def offsets(points: list[np.ndarray], truth: np.ndarray) -> np.ndarray:
    """(views, P, 2) of the keypoint nearest to where each point is, from there."""
    out = []
    for found, shift in zip(points, SHIFTS, strict=True):
        places = truth + shift
        nearest = np.linalg.norm(found[None] - places[:, None], axis=2).argmin(axis=1)
        out.append(found[nearest] - places)
    return np.array(out)


def test_all_points_of_a_track_come_to_mean_one_spot(tmp_path: Path) -> None:
    truth = grid_points(SIZE, margin=24, step=16).numpy().astype(float)
    pairs = {
        (str(i), str(j)): noisy_rows(truth, i, j) for i, j in combinations(range(len(SHIFTS)), 2)
    }
    run, views = run_of(tmp_path / "run", pairs), shifted_views()
    with merged_keypoints(run, 8.0) as merged:
        before = [merged.keypoints(image)[0] for image in range(len(views))]
        indices = [merged.matches(pair)[0].tolist() for pair in pair_matches(run)]
        placed, count = refine_tracks(merged, pair_matches(run), views.__getitem__)
        after = [merged.keypoints(image)[0] for image in range(len(views))]
        assert [merged.matches(pair)[0].tolist() for pair in pair_matches(run)] == indices
    assert placed > 0.9 * count > 0
    spread = [np.ptp(offsets(points, truth), axis=0).max(axis=1) for points in (before, after)]
    assert np.median(spread[0]) > 0.2
    assert np.median(spread[1]) < 0.03


def test_images_that_cannot_be_read_keep_their_points(tmp_path: Path) -> None:
    truth = grid_points(SIZE, margin=24, step=16).numpy().astype(float)
    run, views = run_of(tmp_path / "run", {("0", "1"): noisy_rows(truth, 0, 1)}), shifted_views()

    def load(image: int) -> Pixels:
        if image == 1:
            raise ImageError(Code.UNREADABLE_IMAGE, "1", "not an image", "replace it")
        return views[image]

    with merged_keypoints(run, 2.0) as merged:
        before = merged.keypoints(1)[0]
        assert refine_tracks(merged, pair_matches(run), load) == (0, len(truth))
        assert np.array_equal(merged.keypoints(1)[0], before)


def test_a_track_refers_to_its_keypoint_of_most_matches() -> None:
    chain = np.array([(5, 4), (4, 3), (3, 2), (2, 1), (2, 0), (7, 8)])
    assert references(chain, 10).tolist() == [2, 2, 2, 2, 2, 2, 6, 7, 7, 9]
    assert references(np.zeros((0, 2), np.int64), 3).tolist() == [0, 1, 2]
    path = np.stack([np.arange(999), np.arange(1, 1000)], axis=1)
    assert set(references(path, 1000).tolist()) == {1}


def test_a_run_without_keypoints_has_nothing_to_refine(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", {("0", "1"): []})
    with merged_keypoints(run, 2.0) as merged:
        assert refine_tracks(merged, pair_matches(run), shifted_views().__getitem__) == (0, 0)


def test_pixels_tell_how_far_the_network_shrank_an_image() -> None:
    image = load_image(np.zeros((300, 400), np.uint8))
    assert Pixels.of(image, 100).scale == 4
    assert Pixels.of(image, None).scale == 1
    assert Pixels.of(image, None).gray.dtype == torch.float32
