"""What a picture holds decides, not its type: ranges, nodata, bands, low contrast."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import rasterio
from PIL import Image, TiffImagePlugin

from matcher.errors import ImageError, UsageError
from matcher.images.load import LoadedImage, load_image, read_mask, read_rgb
from matcher.images.normalize import Normalization
from tests.helpers.image_files import HEIGHT, WIDTH, gray16, gray_alpha16, picture, tiff

ASSETS = Path(__file__).resolve().parents[2] / "assets"


def gray8() -> np.ndarray:
    return cv2.cvtColor(picture(), cv2.COLOR_RGB2GRAY)


def close(image: LoadedImage, tolerance: float = 0.03) -> bool:
    """Whether an image is `picture`, stretched or not."""
    plain = gray8().astype(np.float32)
    stretched = (plain - plain.min()) / np.ptp(plain)
    return bool(np.abs(image.gray - stretched).mean() < tolerance)


RANGES = {
    "12 bits": (0, 4095, np.uint16),
    "satellite": (0, 3000, np.uint16),
    "thermal": (29000, 30500, np.uint16),
    "elevation": (-200, 900, np.int16),
    "degrees": (270.5, 310.25, np.float32),
    "doubles": (-1e200, 1e200, np.float64),
}


@pytest.mark.parametrize("name", RANGES)
def test_the_values_decide_the_range_and_it_is_recorded(name: str) -> None:
    low, high, kind = RANGES[name]
    values = (gray8() / 255 * (high - low) + low).astype(kind)
    image = load_image(values)
    assert close(image)
    assert image.normalization.how == "percentiles"
    assert low <= image.normalization.low < image.normalization.high <= high
    assert "stretched" in image.warnings[0]


def test_eight_bits_and_floats_up_to_one_keep_their_plain_scaling_bit_for_bit() -> None:
    dim = gray8() // 4 + 20
    for image in (load_image(dim), load_image(dim.astype(np.float32) / np.float32(255))):
        assert np.array_equal(image.gray, dim.astype(np.float32) / np.float32(255))
        assert image.normalization.how == "plain"
        assert image.valid is None
        assert image.warnings == ()
    full = load_image(gray16())
    assert np.array_equal(full.gray, gray16().astype(np.float32) / np.float32(65535))


def test_one_hot_pixel_changes_little() -> None:
    for kind, hot in ((np.uint16, 65535), (np.float32, 1e9), (np.float32, -1e30)):
        values = (gray8() * 10).astype(kind)
        plain = load_image(values).gray
        values[7, 9] = hot
        spoiled = load_image(values).gray
        spoiled[7, 9] = plain[7, 9]
        assert np.abs(spoiled - plain).max() < 0.05
    unit = gray8().astype(np.float32) / 255
    hot_unit = unit.copy()
    hot_unit[7, 9] = 40
    assert np.array_equal(np.delete(load_image(hot_unit).gray, 7, 0), np.delete(unit, 7, 0))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -9999.0, -32768.0, -3.4028235e38])
def test_what_was_not_seen_is_masked_and_filled(value: float) -> None:
    values = gray8().astype(np.float32)
    values[:, :8] = value
    image = load_image(values)
    assert image.valid is not None
    assert np.array_equal(image.valid, np.arange(WIDTH)[None].repeat(HEIGHT, 0) >= 8)
    assert image.normalization.invalid == pytest.approx(8 / WIDTH)
    assert np.array_equal(image.gray[:, :8], image.gray[:, 8:9].repeat(8, 1))
    assert close(image, 0.06)
    assert "16.67%" in image.warnings[-1]


def test_nodata_can_be_named_for_any_type() -> None:
    values = gray8()
    values[:10] = 7
    image = load_image(values, nodata=7)
    assert image.valid is not None
    assert not image.valid[:10].any()
    assert np.array_equal(image.gray[image.valid], values[image.valid] / np.float32(255))
    color = picture()
    color[:10] = 7
    color[20, 20] = (7, 100, 7)
    several = load_image(color, nodata=7)
    assert several.valid is not None
    assert several.valid[20, 20]
    assert not several.valid[:10].any()
    color[:10] = 241  # What -9999 is in eight bits.
    assert load_image(color, nodata=-9999).valid is None


def test_a_picture_without_a_valid_pixel_is_refused() -> None:
    with pytest.raises(ImageError, match=r"E104 image: NaN, infinite or nodata everywhere"):
        load_image(np.zeros((40, 48), np.uint8), nodata=0)


def test_masked_pixels_do_not_decide_the_range() -> None:
    values = (gray8() * 10.0).astype(np.float32)
    allowed = np.ones(values.shape, bool)
    allowed[:, :20] = False
    expected = load_image(values[:, 20:]).gray
    values[:, :20] = np.linspace(5000, 9e5, 20)
    assert np.array_equal(load_image(values, allowed=allowed).gray[:, 20:], expected)
    with pytest.raises(UsageError, match="E201 mask"):
        load_image(values, allowed=allowed[:, 1:])


@pytest.mark.parametrize("kind", [np.uint16, np.float32, np.float64, np.int16])
def test_any_order_of_bytes_is_read(kind: type) -> None:
    values = (gray8() * 16).astype(kind)
    swapped = values.astype(np.dtype(kind).newbyteorder(">"))
    assert np.array_equal(load_image(swapped).gray, load_image(values).gray)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("kind", ["uint16", "int16", "uint32", "int32", "float32"])
@pytest.mark.parametrize("predictor", [1, 2])
@pytest.mark.parametrize("bands", [None, 1])
def test_any_order_of_bytes_of_a_compressed_tiff_is_read(
    kind: str, predictor: int, bands: int | None, tmp_path: Path
) -> None:
    values, path = (gray16() // 3).astype(kind), tmp_path / "a.tif"
    form = {"height": HEIGHT, "width": WIDTH, "count": 1, "dtype": kind, "compress": "DEFLATE"}
    with rasterio.open(path, "w", endianness="BIG", predictor=predictor, **form) as file:
        file.write(values, 1)
    expected = load_image(values.astype(np.float32)).gray
    np.testing.assert_allclose(load_image(path, bands=bands).gray, expected, atol=1e-6)
    if kind != "uint32":
        np.testing.assert_allclose(load_image(Image.open(path)).gray, expected, atol=1e-6)


@pytest.mark.parametrize(("kind", "sample_format"), [(np.uint32, 1), (np.int32, 2), (np.int8, 2)])
def test_integers_of_a_tiff_keep_their_sign(kind: type, sample_format: int, tmp_path: Path) -> None:
    limits = np.iinfo(kind)
    values = np.linspace(limits.min, limits.max, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).astype(kind)
    (tmp_path / "a.tif").write_bytes(tiff(values[..., None], sample_format))
    gray = load_image(tmp_path / "a.tif").gray
    assert np.array_equal(gray, load_image(values.astype(np.float32)).gray)


def test_gray_of_sixteen_bits_with_transparency_keeps_its_depth(tmp_path: Path) -> None:
    values = gray8() * np.uint16(2) + np.uint16(3)
    (tmp_path / "a.png").write_bytes(gray_alpha16(values))
    assert np.allclose(load_image(tmp_path / "a.png").gray, load_image(values).gray, atol=1e-6)


def test_low_contrast_is_stretched_only_on_request_and_only_if_low() -> None:
    low = (gray8() * 0.2 + 90).astype(np.uint8)
    assert load_image(low).normalization == Normalization("plain", 0, 255)
    assert load_image(low, stretch=True).normalization.how == "percentiles"
    assert load_image(low / 255, stretch=True).normalization.how == "percentiles"
    assert np.array_equal(load_image(gray8(), stretch=True).gray, load_image(gray8()).gray)
    assert load_image(np.full((40, 48), 9, np.uint8), stretch=True).gray.max() < 0.04


@pytest.mark.parametrize("name", ["png", "tif", "lzw", "alpha"])
def test_colors_of_sixteen_bits_keep_their_depth(name: str, tmp_path: Path) -> None:
    deep = picture().astype(np.uint16) * 16
    deep[..., 0] += 5
    path = tmp_path / f"{name}.{'png' if name in ('png', 'alpha') else 'tif'}"
    stored = deep[..., ::-1]
    if name == "alpha":
        stored = np.dstack([stored, np.full((HEIGHT, WIDTH), 65535, np.uint16)])
    cv2.imwrite(str(path), stored, [cv2.IMWRITE_TIFF_COMPRESSION, 5 if name == "lzw" else 1])
    image = load_image(path)
    assert np.allclose(image.gray, load_image(deep).gray, atol=1e-6)
    assert read_rgb(path).std() > 30


def bands_tiff(kind: type = np.uint16, count: int = 5) -> tuple[np.ndarray, bytes]:
    """(H, W, count) and its file; band b is `gray8` times b + 1, turned about."""
    bands = [np.roll(gray8(), 3 * b, axis=1).astype(kind) * (b + 1) for b in range(count)]
    pixels = np.stack(bands, axis=-1)
    return pixels, tiff(pixels, 3 if np.dtype(kind).kind == "f" else 1)


def planar_tiff(pixels: np.ndarray) -> bytes:
    """The bands as planes of their own, compressed, with differences of neighbors."""
    from io import BytesIO

    import matcher.images.bands as tags

    height, width, count = pixels.shape
    body, offsets, sizes = b"", [], []
    for b in range(count):
        file = BytesIO()
        info = TiffImagePlugin.ImageFileDirectory_v2()
        info[tags.PREDICTOR] = 2
        plane = Image.fromarray(np.ascontiguousarray(pixels[..., b]))
        plane.save(file, "TIFF", compression="tiff_adobe_deflate", tiffinfo=info)
        data = file.getvalue()
        directory = tags.read_directory(data)
        (start,), (size,) = directory[tags.STRIPS], directory[tags.STRIP_BYTES]
        offsets.append(8 + len(body))
        sizes.append(size)
        body += data[start : start + size]
    bits = pixels.dtype.itemsize * 8
    entries = {
        tags.WIDTH: (width,),
        tags.LENGTH: (height,),
        tags.BITS: (bits,) * count,
        tags.COMPRESSION: (8,),
        tags.PHOTOMETRIC: (1,),
        tags.STRIPS: tuple(offsets),
        tags.SAMPLES: (count,),
        tags.ROWS: (height,),
        tags.STRIP_BYTES: tuple(sizes),
        tags.PLANAR: (2,),
        tags.PREDICTOR: (2,),
    }
    return tags._with_directory(b"II*\0\0\0\0\0" + body, entries, big=False)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_bands_of_a_tiff_can_be_chosen(kind: type, tmp_path: Path) -> None:
    pixels, data = bands_tiff(kind)
    path = tmp_path / "bands.tif"
    path.write_bytes(data)
    three = np.ascontiguousarray(pixels[..., [2, 1, 0]])
    assert np.array_equal(load_image(path, bands=(3, 2, 1)).gray, load_image(three).gray)
    one = np.ascontiguousarray(pixels[..., 4])
    assert np.array_equal(load_image(path, bands=5).gray, load_image(one).gray)


def test_bands_in_planes_can_be_chosen(tmp_path: Path) -> None:
    pixels, _ = bands_tiff()
    path = tmp_path / "planes.tif"
    path.write_bytes(planar_tiff(pixels))
    one = np.ascontiguousarray(pixels[..., 3])
    assert np.array_equal(load_image(path, bands=4).gray, load_image(one).gray)


@pytest.mark.parametrize("compression", [1, 5, 8])
def test_bands_of_a_compressed_tiff_can_be_chosen(compression: int, tmp_path: Path) -> None:
    deep = picture().astype(np.uint16) * 16
    path = tmp_path / "three.tif"
    cv2.imwrite(str(path), deep[..., ::-1], [cv2.IMWRITE_TIFF_COMPRESSION, compression])
    green = np.ascontiguousarray(deep[..., 1])
    assert np.array_equal(load_image(path, bands=2).gray, load_image(green).gray)


def test_many_bands_are_refused_until_some_are_chosen(tmp_path: Path) -> None:
    path = tmp_path / "bands.tif"
    path.write_bytes(bands_tiff()[1])
    with pytest.raises(ImageError, match=r"E105 .* a TIFF of 5 bands; choose .* bands=\[3,2,1\]$"):
        load_image(path)
    with pytest.raises(ImageError, match=r"E105 .*has 5 bands, not 6"):
        load_image(path, bands=(6, 1, 2))
    for wrong in ((1, 2), (0,), (1, 2, 3, 4), (True,)):
        with pytest.raises(UsageError, match="E201 bands"):
            load_image(path, bands=wrong)


def test_bands_of_any_format_can_be_chosen(tmp_path: Path) -> None:
    Image.fromarray(picture()).save(tmp_path / "a.png")
    red = np.ascontiguousarray(picture()[..., 0])
    assert np.array_equal(load_image(tmp_path / "a.png", bands=1).gray, red / np.float32(255))


def test_nodata_of_gdal_is_masked(tmp_path: Path) -> None:
    values = (gray8() * 4).astype(np.uint16) + 1
    values[5:9] = 0
    info = TiffImagePlugin.ImageFileDirectory_v2()
    info[42113] = "0"
    Image.fromarray(values).save(tmp_path / "a.tif", tiffinfo=info)
    image = load_image(tmp_path / "a.tif")
    assert image.valid is not None
    assert np.array_equal(image.valid, values != 0)
    assert image.normalization.nodata == 0


def test_deep_masks_are_false_only_where_black(tmp_path: Path) -> None:
    mask = np.zeros((HEIGHT, WIDTH), np.uint16)
    mask[4:9] = 1
    Image.fromarray(mask).save(tmp_path / "mask.png")
    assert np.array_equal(read_mask(tmp_path / "mask.png"), mask > 0)
