"""Pages of a TIFF: smaller copies and masks, as GDAL keeps them beside an image."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from PIL import Image

from matcher.images.load import load_image, read_rgb
from tests.helpers.image_files import HEIGHT, WIDTH, picture

SEEN = np.ones((HEIGHT, WIDTH), bool)
SEEN[:7] = SEEN[:, 30:] = False


def written(path: Path, pixels: np.ndarray, copies: bool = True, **how: Any) -> Path:
    """(H, W, N) `pixels` with the mask `SEEN`, and a smaller copy of both."""
    height, width, count = pixels.shape
    about = {"height": height, "width": width, "count": count, "dtype": pixels.dtype}
    with warnings.catch_warnings(), rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(path, "w", driver="GTiff", **about, **how) as file:
            file.write(np.moveaxis(np.where(SEEN[..., None], pixels, 0), -1, 0))
            file.write_mask(SEEN)
        if copies:
            with rasterio.open(path, "r+") as file:
                file.build_overviews([2])
    return path


@pytest.mark.parametrize(
    "how",
    [
        {"compress": "jpeg", "photometric": "ycbcr"},
        {"compress": "deflate", "tiled": True, "blockxsize": 16, "blockysize": 16},
        {"BIGTIFF": "YES"},
        {"ENDIANNESS": "BIG", "compress": "lzw"},
    ],
    ids=["jpeg", "tiles", "big", "endian"],
)
def test_what_a_mask_of_gdal_leaves_out_is_not_valid(tmp_path: Path, how: dict[str, str]) -> None:
    image = load_image(written(tmp_path / "a.tif", picture(), **how))
    assert image.warnings == ()
    assert image.valid is not None
    assert np.array_equal(image.valid, SEEN)
    assert read_rgb(tmp_path / "a.tif").shape == (HEIGHT, WIDTH, 3)


def test_a_mask_is_found_beside_values_of_sixteen_bits_and_chosen_bands(tmp_path: Path) -> None:
    deep = written(tmp_path / "deep.tif", picture().astype(np.uint16) * 257, photometric="rgb")
    bands = written(tmp_path / "bands.tif", np.dstack([picture(), picture()]))
    for image in (load_image(deep), load_image(bands, bands=[3, 2, 1])):
        assert image.valid is not None
        assert np.array_equal(image.valid, SEEN)


def test_pages_that_are_images_are_told_and_no_masks(tmp_path: Path) -> None:
    first = Image.fromarray(picture())
    mask = Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint8))
    first.save(tmp_path / "two.tif", save_all=True, append_images=[mask])
    image = load_image(tmp_path / "two.tif")
    assert image.valid is None
    assert image.warnings == ("has 2 frames; the first is used",)
    plain = written(tmp_path / "plain.tif", picture(), copies=False)
    assert load_image(plain).warnings == ()
