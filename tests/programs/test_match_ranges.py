"""match.py on pictures of any range: what they hold decides, not their type."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import match
from matcher.results.record import read_matches

ASSETS = Path(__file__).resolve().parents[2] / "assets"
Right = Callable[..., int]


@pytest.fixture(scope="module")
def views() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two gray views (240, 320) uint8 of one plane, and the homography between them."""
    image = np.asarray(Image.open(ASSETS / "demo0.jpg").convert("L").resize((320, 240)))
    corners = np.array([[0, 0], [320, 0], [320, 240], [0, 240]], np.float32)
    shift = np.array([[6, 4], [-8, 5], [-5, -6], [7, -3]], np.float32)
    H = cv2.getPerspectiveTransform(corners, corners + shift)
    return image, cv2.warpPerspective(image, H, (320, 240)), H


@pytest.fixture(scope="module")
def right(
    views: tuple[np.ndarray, np.ndarray, np.ndarray], tmp_path_factory: pytest.TempPathFactory
) -> Right:
    """Matches within 3 pixels of the truth that match.py finds after a change of both views."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("ranges")
    image0, image1, H = views

    def count(change: Callable[[np.ndarray], np.ndarray], *words: str) -> int:
        paths = [str(folder / f"{name}.tif") for name in "ab"]
        for path, image in zip(paths, (image0, image1), strict=True):
            Image.fromarray(change(image)).save(path)
        output = str(folder / "m.h5")
        assert match.main([*paths, f"output={output}", "picture=null", "device=cpu", *words]) == 0
        points0, points1, _ = read_matches(output).matches.numpy()
        moved = cv2.perspectiveTransform(points0[:, None].astype(np.float64), H)[:, 0]
        return int((np.linalg.norm(moved - points1, axis=1) < 3).sum())

    return count


@pytest.fixture(scope="module")
def usual(right: Right) -> int:
    """Of the views as they are, with 8 bits."""
    return right(lambda image: image)


def ranged(low: float, high: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda image: (image / 255 * (high - low) + low).astype(np.uint16)


def with_border(image: np.ndarray, value: int) -> np.ndarray:
    """A 16-bit picture whose outermost two columns hold nothing."""
    out = ranged(200, 3000)(image)
    out[:, :2] = out[:, -2:] = value
    return out


def hot(image: np.ndarray) -> np.ndarray:
    out = ranged(0, 4095)(image)
    out[50, 60] = 65535
    return out


def not_a_number(image: np.ndarray) -> np.ndarray:
    out = image.astype(np.float32) * 7 + 300
    out[50:53, 60:63] = np.nan
    out[90, 10] = np.inf
    return out


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param(ranged(0, 4095), (), id="12 bits"),
        pytest.param(ranged(0, 3000), (), id="satellite"),
        pytest.param(ranged(29000, 30500), (), id="thermal"),
        pytest.param(lambda image: with_border(image, 0), ("nodata=0",), id="nodata"),
        pytest.param(lambda image: with_border(image, 65535), (), id="nodata that nobody named"),
        pytest.param(hot, (), id="hot pixel"),
        pytest.param(not_a_number, (), id="NaN and infinite"),
        pytest.param(lambda i: (i * 0.15 + 90).astype(np.uint8), (), id="low contrast"),
    ],
)
def test_a_pair_of_any_range_keeps_nine_tenths_of_its_matches(
    right: Right, usual: int, change: Callable[[np.ndarray], np.ndarray], words: tuple[str, ...]
) -> None:
    assert right(change, *words) >= 0.9 * usual > 100


def test_low_contrast_is_left_alone_on_request(right: Right) -> None:
    plain, stretched = (
        right(lambda i: (i * 0.15 + 90).astype(np.uint8), f"stretch={word}")
        for word in ("false", "true")
    )
    assert plain < 0.95 * stretched
