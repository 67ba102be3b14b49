"""TIFFs whose white is zero show what those whose black is zero show, whatever their depth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from matcher.errors import ImageError
from matcher.images.load import load_image, read_rgb
from tests.helpers.image_files import gray16, tiff

KINDS = [np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32, np.float32]
UNSIGNED = [np.uint8, np.uint16, np.uint32]


def picture_of(kind: type) -> np.ndarray:
    """(H, W) of a kind: the waves of `gray16`, a corner of them white."""
    unit = gray16() / 65535
    unit[:5, :7] = 1
    if kind is np.float32:
        return unit.astype(kind)
    low, high = np.iinfo(kind).min, np.iinfo(kind).max
    return (low + unit * (high - low)).round().astype(kind)


def written(path: Path, kind: type, *, white: bool, order: str = "<") -> Path:
    """`picture_of` a kind, as it is stored where `white` is zero or black is."""
    pixels = picture_of(kind)
    if white:
        pixels = 1 - pixels if kind is np.float32 else ~pixels
    form = {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]
    path.write_bytes(tiff(pixels[..., None], form, photometric=0 if white else 1, order=order))
    return path


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bands", [None, 1])
def test_white_is_zero_is_turned_over(
    tmp_path: Path, kind: type, order: str, bands: int | None
) -> None:
    plain = written(tmp_path / "plain.tif", kind, white=False, order=order)
    over = written(tmp_path / "over.tif", kind, white=True, order=order)
    expected = load_image(plain, bands=bands).gray
    assert np.corrcoef(expected.ravel(), picture_of(np.float32).ravel())[0, 1] > 0.99
    np.testing.assert_allclose(load_image(over, bands=bands).gray, expected, atol=1e-6)
    assert np.array_equal(read_rgb(over, bands=bands), read_rgb(plain, bands=bands))


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_what_pillow_opens_is_turned_over_too(tmp_path: Path, kind: type) -> None:
    plain = written(tmp_path / "plain.tif", kind, white=False)
    picture = Image.open(written(tmp_path / "over.tif", kind, white=True))
    np.testing.assert_allclose(load_image(picture).gray, load_image(plain).gray, atol=1e-6)


def test_few_values_of_32_bits_keep_their_depth(tmp_path: Path) -> None:
    stored = gray16().astype(np.uint32)
    (tmp_path / "over.tif").write_bytes(tiff(stored[..., None], 1, photometric=0))
    (tmp_path / "plain.tif").write_bytes(tiff(-gray16().astype(np.float32)[..., None], 3))
    expected = load_image(tmp_path / "plain.tif").gray
    np.testing.assert_allclose(load_image(tmp_path / "over.tif").gray, expected, atol=1e-6)


@pytest.mark.parametrize("kind", UNSIGNED)
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
