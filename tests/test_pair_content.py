"""What a pair of photographs may hold: no texture, nothing in common, more bits."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import cycle, islice, permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib import cbook
from PIL import Image
from sklearn.datasets import load_sample_images

from matcher import Predictor, load_matcher
from matcher.geometry.robust import (
    Estimator,
    estimate_fundamental,
    estimate_homography,
    estimate_pose,
)
from matcher.images.load import load_image

ROOT = Path(__file__).resolve().parents[1]
DEMO = [str(ROOT / "assets" / name) for name in ("demo0.jpg", "demo1.jpg")]


@pytest.fixture(scope="module")
def compact() -> Predictor:
    return load_matcher("compact", device="cpu", max_side=320, offline=True)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_textureless_images_take_no_longer_than_others(compact: Predictor) -> None:
    photographs = [load_image(path).gray[:240, :320] for path in DEMO]
    plain = [np.full((240, 320), value, np.float32) for value in (0.0, 0.5)]

    def seconds(pair: list[np.ndarray]) -> float:
        started = time.process_time()
        compact.match(*pair)
        return time.process_time() - started

    rounds = [(seconds(plain), seconds(photographs)) for _ in range(4)][1:]
    fastest_plain, fastest = (min(column) for column in zip(*rounds, strict=True))
    assert fastest_plain <= 1.1 * fastest


def test_sixteen_bits_give_the_matches_of_eight(compact: Predictor, tmp_path: Path) -> None:
    shallow, deep = [], []
    for i, path in enumerate(DEMO):
        gray = np.asarray(Image.open(path).convert("L"))
        shallow.append(tmp_path / f"{i}.png")
        deep.append(tmp_path / f"{i}.tiff")
        Image.fromarray(gray).save(shallow[i])
        Image.fromarray(gray.astype(np.uint16) * 257).save(deep[i])
    found, expected = compact.match(*deep), compact.match(*shallow)
    points = [np.concatenate(m.numpy()[:2], axis=1).tolist() for m in (found, expected)]
    common = {tuple(np.round(p, 1)) for p in points[0]} & {tuple(np.round(p, 1)) for p in points[1]}
    assert len(common) >= 0.99 * max(len(found), len(expected)) > 50


def crops_without_overlap(count: int, side: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of crops of different photographs."""
    face = np.asarray(Image.open(cbook.get_sample_data("grace_hopper.jpg")))
    photographs = [*load_sample_images().images, face, np.asarray(Image.open(DEMO[0]))]
    rng = np.random.default_rng(0)
    for first, second in islice(cycle(permutations(photographs, 2)), count):
        corners = [rng.integers(0, np.array(p.shape[:2]) - side + 1) for p in (first, second)]
        yield tuple(
            p[y : y + side, x : x + side]
            for p, (y, x) in zip((first, second), corners, strict=True)
        )  # pyright: ignore[reportReturnType]


def test_images_without_overlap_agree_on_no_geometry(compact: Predictor) -> None:
    K = np.array([[240.0, 0, 95.5], [0, 240.0, 95.5], [0, 0, 1]])
    inliers, total = [], 0
    for pair in crops_without_overlap(20, 192):
        matches = compact.match(*pair)
        total += len(matches)
        points = matches.numpy()[:2]
        models = (
            estimate_homography(*points, estimator=Estimator()),
            estimate_fundamental(*points, estimator=Estimator()),
            estimate_pose(*points, K0=K, K1=K, estimator=Estimator()),
        )
        inliers.append(max(0 if m is None else m.inliers.sum() for m in models))
    assert total > 0
    assert np.mean(np.array(inliers) < 15) >= 0.95
