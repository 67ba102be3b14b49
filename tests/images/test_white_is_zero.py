"""TIFFs whose white is zero show what those whose black is zero show, whatever their depth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from matcher.errors import ImageError
from matcher.images.load import load_image, read_rgb
from tests.helpers.image_files import gray16, tiff

DEPTHS = [np.uint8, np.uint16]


def written(path: Path, kind: type, *, white: bool, order: str = "<") -> Path:
    """The picture `gray16` in a depth, as it is stored where `white` is zero or black is."""
    pixels = (gray16() >> (0 if kind is np.uint16 else 8)).astype(kind)
    pixels[:5, :7] = np.iinfo(kind).max
    stored = np.iinfo(kind).max - pixels if white else pixels
    path.write_bytes(tiff(stored[..., None], 1, photometric=0 if white else 1, order=order))
    return path


@pytest.mark.parametrize("kind", DEPTHS)
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bands", [None, 1])
def test_white_is_zero_is_turned_over(
    tmp_path: Path, kind: type, order: str, bands: int | None
) -> None:
    plain = written(tmp_path / "plain.tif", kind, white=False)
    over = written(tmp_path / "over.tif", kind, white=True, order=order)
    expected = load_image(plain, bands=bands)
    assert np.array_equal(load_image(over, bands=bands).gray, expected.gray)
    assert np.array_equal(read_rgb(over, bands=bands), read_rgb(plain, bands=bands))
    if order == "<":
        picture = Image.open(over)
        assert np.array_equal(load_image(picture).gray, load_image(plain).gray)


@pytest.mark.parametrize("kind", DEPTHS)
def test_nodata_is_a_value_as_stored(tmp_path: Path, kind: type) -> None:
    over = written(tmp_path / "over.tif", kind, white=True)
    valid = load_image(over, nodata=0).valid
    assert valid is not None
    assert not valid[:5, :7].any()
    assert valid[5:].all()


@pytest.mark.parametrize(
    ("compression", "name"), [(50001, "WebP"), (34887, "LERC"), (34712, "JPEG 2000"), (9, "9")]
)
def test_a_compression_that_is_not_read_is_told_by_its_name(
    tmp_path: Path, compression: int, name: str
) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(tiff(gray16()[..., None], 1, compression=compression))
    with pytest.raises(ImageError, match=rf"E105 .*compression .*{name}, which.*COMPRESS=DEFLATE"):
        load_image(path)
