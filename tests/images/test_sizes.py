"""Sizes: strips keep what the network needs, and large pictures have a way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from matcher.errors import ImageError
from matcher.geometry.pixels import MIN_SIDE, network_size
from matcher.images.decode import stored_size
from matcher.images.load import load_image, read_mask, read_rgb


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((640, 480), (640, 480)),
        ((4000, 3000), (1024, 768)),
        ((3000, 4000), (768, 1024)),
        ((1242, 375), (1024, 309)),
        ((4096, 1024), (1024, 256)),
        ((7, 3), (7, 3)),
        ((400, 100), (400, 100)),
    ],
)
def test_ordinary_shapes_are_shrunk_by_their_longer_side(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert network_size(*size, 1024) == expected


def test_strips_keep_their_short_side_within_the_area() -> None:
    assert network_size(4096, 64, 1024) == (4096, 64)
    assert network_size(64, 4096, 1024) == (64, 4096)
    assert network_size(8192, 1024, 1024) == (2048, 256)
    for ratio in range(1, 400, 7):
        for max_side in (64, 512, 1024):
            width, height = network_size(ratio * 500, 500, max_side)
            assert height >= MIN_SIDE
            assert width * height <= max(max_side**2 * 1.02, width * MIN_SIDE)


def test_a_small_limit_never_takes_what_the_network_needs() -> None:
    assert network_size(640, 480, 16) == (43, 32)
    assert network_size(640, 20, 16) == (640, 20)


def test_without_a_limit_nothing_changes_and_nothing_is_ever_enlarged() -> None:
    assert network_size(9000, 20, None) == (9000, 20)
    assert network_size(20, 10, 1024) == (20, 10)


def test_the_limit_of_pixels_is_named_and_can_be_raised(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    Image.fromarray(np.zeros((30, 50), np.uint8)).save(path)
    for read in (load_image, read_rgb, read_mask):
        with pytest.raises(ImageError, match=r"E103 .*50 x 30 pixels; limit 1,000; raise max_"):
            read(path, max_pixels=1000)
        read(path, max_pixels=1500)


@pytest.mark.slow
def test_more_pixels_than_pillow_allows_are_read_on_request(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    Image.new("L", (15000, 13000)).save(path)
    assert stored_size(path) == (15000, 13000)
    assert load_image(path, max_pixels=200_000_000).size == (15000, 13000)
