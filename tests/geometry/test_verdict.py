"""The verdict about a pair: random matches never tell anything, matches of one scene do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from matcher import load_matcher
from matcher.geometry.robust import Estimator, estimate_homography
from matcher.geometry.verdict import judge_matches, judge_model

SHARED = Path(__file__).resolve().parents[3] / "shared"
SIZE = np.array([640.0, 480.0])
K = np.array([[600.0, 0, 320], [0, 600, 240], [0, 0, 1]])


def random_matches(draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    n = draw.integers(100, 401)
    return draw.uniform(0, 1, (n, 2)) * SIZE, draw.uniform(0, 1, (n, 2)) * SIZE


def reliable_among_random(count: int, seed: int) -> int:
    draw = np.random.default_rng(seed)
    return sum(judge_matches(*random_matches(draw)).reliable for _ in range(count))


def turn(degrees: float) -> np.ndarray:
    s, c = np.sin(np.radians(degrees)), np.cos(np.radians(degrees))
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def views(
    translation: tuple[float, float, float],
    *,
    flat: bool = False,
    wrong: float = 0.3,
    n: int = 300,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Matches of two views of points at depths 4 to 8, or of a slanted plane; 0.5 px noise."""
    draw = np.random.default_rng(seed)
    x, y = draw.uniform(-1.5, 1.5, (2, n))
    z = 6 + 0.3 * x if flat else draw.uniform(4, 8, n)
    points = np.stack([x, y, z], axis=1)
    moved = points @ turn(4).T + translation
    seen = []
    for each in (points, moved):
        pixels = each @ K.T
        seen.append(pixels[:, :2] / pixels[:, 2:] + draw.normal(0, 0.5, (n, 2)))
    bad = draw.uniform(size=n) < wrong
    seen[1][bad] = draw.uniform(0, 1, (bad.sum(), 2)) * SIZE
    return seen[0], seen[1]


def test_random_matches_tell_nothing() -> None:
    assert reliable_among_random(40, seed=1) == 0


@pytest.mark.slow
def test_random_matches_tell_something_less_than_once_in_a_thousand() -> None:
    assert reliable_among_random(5000, seed=2) <= 2


def test_random_matches_tell_nothing_by_a_homography() -> None:
    draw = np.random.default_rng(3)
    for _ in range(50):
        points = random_matches(draw)
        found = estimate_homography(*points, estimator=Estimator(threshold=3.0))
        matrix = None if found is None else found.matrix
        assert not judge_model(*points, matrix, kind="homography", threshold=3.0).reliable


def test_copies_of_few_matches_tell_nothing() -> None:
    draw = np.random.default_rng(4)
    points0, points1 = (draw.uniform(0, 1, (6, 2)) * SIZE for _ in range(2))
    near = draw.normal(0, 0.3, (2, 300, 2))
    copies = np.arange(300) % 6
    assert not judge_matches(points0[copies] + near[0], points1[copies] + near[1]).reliable


@pytest.mark.parametrize("wrong", [0.0, 0.3, 0.6])
def test_matches_of_one_scene_are_reliable(wrong: float) -> None:
    verdict = judge_matches(*views((0.5, 0.1, 0.05), wrong=wrong))
    assert verdict.reliable
    assert not verdict.translation_unknown
    assert str(verdict) == "reliable"


def test_a_pure_rotation_and_a_plane_leave_the_translation_unknown() -> None:
    for points in (views((0, 0, 0)), views((0.5, 0.1, 0.05), flat=True)):
        verdict = judge_matches(*points)
        assert verdict.reliable
        assert verdict.translation_unknown
        assert str(verdict) == "reliable; translation is unknown (pure rotation or plane)"


def test_a_homography_of_a_plane_is_reliable() -> None:
    points = views((0.5, 0.1, 0.05), flat=True)
    found = estimate_homography(*points, estimator=Estimator(threshold=3.0))
    assert found is not None
    verdict = judge_model(*points, found.matrix, kind="homography", threshold=3.0)
    assert verdict.reliable
    assert verdict.flat_share is None


@pytest.mark.parametrize("n", [0, 1, 5, 7, 8, 12])
def test_a_few_matches_are_too_few(n: int) -> None:
    points0, points1 = views((0.5, 0.1, 0.05), wrong=0, n=max(n, 1))
    verdict = judge_matches(points0[:n], points1[:n])
    assert verdict.word == "too few to tell"
    assert not verdict.translation_unknown


def test_the_same_matches_get_the_same_verdict() -> None:
    assert judge_matches(*views((0.5, 0, 0))) == judge_matches(*views((0.5, 0, 0)))


def test_the_demo_pair_is_reliable_and_two_unrelated_halves_are_not() -> None:
    assets = Path(__file__).resolve().parents[2] / "assets"
    image0, image1 = (
        np.asarray(Image.open(assets / f"demo{i}.jpg").convert("L").resize((320, 240)))
        for i in range(2)
    )
    torch.set_num_threads(1)
    match = load_matcher("compact", device="cpu").match
    assert judge_matches(*match(image0, image1).numpy()[:2]).reliable
    noise = np.random.default_rng(0).integers(0, 255, image0.shape, dtype=np.uint8)
    assert not judge_matches(*match(image0, noise).numpy()[:2]).reliable


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "eval").is_dir(), reason="needs the photographs beside it")
def test_photographs_of_one_scene_are_reliable_and_unrelated_ones_are_not() -> None:
    match = load_matcher("compact", device="cpu", max_side=384).match
    folder = SHARED / "datasets" / "photos"
    photos = sorted(folder.glob("*.jpg"))[::13]
    unrelated = [
        judge_matches(*match(*pair).numpy()[:2])
        for pair in zip(photos[::2], photos[1::2], strict=False)
    ]
    assert sum(v.reliable for v in unrelated) == 0
    match = load_matcher("compact", device="cpu", max_side=640).match
    scenes = []
    for name in ("redkitchen", "strecha"):
        lines = (SHARED / "eval" / name / "pairs_with_gt.txt").read_text().splitlines()[::10]
        for line in lines:
            pair = [SHARED / "eval" / name / "images" / each for each in line.split()[:2]]
            scenes.append(judge_matches(*match(*pair).numpy()[:2]))
    assert sum(v.reliable for v in scenes) >= 0.95 * len(scenes)
