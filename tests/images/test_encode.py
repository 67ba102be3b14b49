"""Image files that are written."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from matcher.images.encode import FORMATS, encode
from matcher.results.formats import PICTURE_SUFFIXES
from tests.helpers.image_files import gray16, picture


@pytest.mark.parametrize("suffix", PICTURE_SUFFIXES)
def test_a_picture_comes_back_as_it_was(suffix: str) -> None:
    pixels = picture()
    back = Image.open(BytesIO(encode(pixels, suffix))).convert("RGB")
    if FORMATS[suffix]["format"] != "JPEG":
        assert np.array_equal(back, pixels)
    luma, expected = (
        np.asarray(image.convert("L"), int) for image in (back, Image.fromarray(pixels))
    )
    assert np.abs(luma - expected).mean() < 2


def test_sixteen_bits_and_views_are_kept() -> None:
    deep = gray16()[::-1, ::-1]
    back = np.asarray(Image.open(BytesIO(encode(deep, ".png"))))
    assert np.array_equal(back, deep)
    assert set(FORMATS) == set(PICTURE_SUFFIXES)
