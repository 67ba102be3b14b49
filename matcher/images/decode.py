"""Image files to pixels; whatever cannot be trusted is refused with a typed error.

Files are recognized by their content. The header is read first, and a size above a limit
(`MAX_PIXELS` unless another is given) is refused before anything is decoded. Damaged and cut files
are refused, never half used. Whatever is not an ordinary file, such as a named pipe, is refused
before it is read.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

# Imported for what they register with Pillow.
from PIL import (  # noqa: F401
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)
from PIL.ExifTags import Base

from matcher.errors import Code, ImageError, MatcherError
from matcher.geometry.pixels import EXIF_STEPS, turn_upright
from matcher.images.bands import (
    Bands,
    as_tagged,
    chosen_bands,
    compression_of,
    kind_of,
    nodata_of,
    own_bands,
    require_bands,
    select_bands,
    unpack_natively,
    unused_bands,
)
from matcher.images.opening import MAX_PIXELS, open_regular, read_bytes, reading, require_memory
from matcher.images.pages import count_images, mask_of, read_directories
from matcher.images.suffixes import SUFFIXES
from matcher.images.unreadable import (
    HEIF_BRANDS,
    TIFF_STARTS,
    WEBP,
    damaged,
    unidentified,
    unsupported,
    unsupported_compression,
)
from matcher.images.whole_pictures import whole_pictures

FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "BMP", "GIF", "PPM", "JPEG2000", "AVIF", "HEIF")
DIRECT_MODES = ("L", "RGB", "RGBA", "I", "I;16", "I;16L", "I;16B", "I;16N", "F")
"""Pillow's modes whose pixels are used as they are."""
CONVERTED_MODES = {
    **dict.fromkeys(("LA", "P", "PA"), "RGBA"),
    **dict.fromkeys(("RGBX", "CMYK", "YCbCr"), "RGB"),
    "1": "L",
}
DEEP_COLOR = {"RGB;16B": "RGB;16L", "RGBA;16B": "RGBA;16L", "LA;16B": "RGBA"}
"""How Pillow unpacks 16-bit colors of a PNG to what gives their low bytes, and of gray both."""
MEMORY_A_PIXEL, MEMORY_TO_OPEN = 32, 2**26
"""Bytes that decoders need, at most; files of unknown size are taken to hold a pixel a byte."""
PNG_END = b"IEND\xaeB`\x82"
UNDONE_BY = {6: 8, 8: 6}
"""EXIF orientations that are not their own inverse."""


class Decoded(NamedTuple):
    """The pixels of a file; the rest as of a `LoadedImage`."""

    pixels: np.ndarray
    """(H, W), (H, W, 3) or (H, W, 4): uint8, uint16, int16 or float32"""
    size: tuple[int, int]
    orientation: int
    warnings: list[str]
    nodata: float | None = None
    """Value of pixels that hold nothing."""
    seen: np.ndarray | None = None
    """(H, W) bool, False where the file says by a mask that it holds nothing."""


def decode(
    path: str,
    *,
    gray: bool,
    apply_exif: bool,
    allow_truncated: bool,
    bands: Bands | None = None,
    nodata: float | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Decoded:
    """Pixels as stored, or upright with `apply_exif`.

    Arguments and errors are those of `matcher.images.load.load_image`.

    Args:
        gray: color is not needed; a JPEG is then decoded to gray, which is faster.
    """
    chosen = None if bands is None else chosen_bands(bands)
    with reading(path), whole_pictures():
        data = read_bytes(path)
        pages = read_directories(data) if data[:4] in TIFF_STARTS else []
        directory = pages[0] if pages else None
        if directory is not None:
            nodata = nodata_of(directory, nodata)
            if used := chosen or own_bands(directory):
                tag = _orientation(directory) if apply_exif else 1
                pixels = _narrowed(select_bands(path, data, used, max_pixels))
                notes = [] if chosen else unused_bands(directory, len(used))
                return _turned(pixels, tag, notes, nodata, mask_of(data, pages))
        image = _open(path, data, max_pixels)
        notes = _notes(path, image, count_images(pages) if pages else None)
        # Pillow turns TIFF, and nothing else, by itself while it loads.
        tag = _orientation(image.getexif()) if apply_exif or directory is not None else 1
        wants_gray = gray and chosen is None
        image, warnings = _load(path, data, image, gray=wants_gray, allow_truncated=allow_truncated)
        pixels = _pixels_of(image)
        if image.format == "PNG":
            pixels = _with_low_bytes(data, pixels)
        if directory is not None:
            pixels = turn_upright(pixels, UNDONE_BY.get(tag, tag))
            notes += unused_bands(directory, len(image.getbands()))
        if chosen is not None:
            pixels = _pick(path, pixels, chosen)
        mask = mask_of(data, pages) if pages else None
        return _turned(pixels, tag if apply_exif else 1, notes + warnings, nodata, mask)


def decode_picture(picture: Image.Image, name: str, *, apply_exif: bool) -> Decoded:
    """Pixels of a picture of Pillow as it stands, or upright with `apply_exif`.

    Raises:
        ImageError: it cannot be decoded (E102) or is of a kind that is not supported (E105).
        MemoryLimitError: memory ends while it is decoded (E131).
    """
    _require_mode(name, picture)
    with reading(name), whole_pictures():
        _load_pixels(picture)
        tag = _orientation(picture.getexif()) if apply_exif else 1
        return _turned(_pixels_of(picture), tag, [], None)


def stored_size(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    """(width, height) of an image file as stored, from its header; None where it has none."""
    try:
        with open_regular(path) as file:
            image = identify(file)
            if isinstance(image, TiffImagePlugin.TiffImageFile):
                # Pillow tells the size that a TIFF has after it is turned.
                return image.tag_v2[Base.ImageWidth], image.tag_v2[Base.ImageLength]
            return None if image is None else image.size
    except (MatcherError, OSError, ValueError, Image.DecompressionBombError):
        return None


def identify(file: BinaryIO) -> Image.Image | None:
    """The header as Pillow reads it, without its own limit of pixels; None for no image."""
    start = file.read(16)
    if start[4:8] == b"ftyp" and start[8:12] in HEIF_BRANDS:
        _register_heif()
    for name in FORMATS:
        factory, accept = Image.OPEN.get(name, (None, None))
        if factory is None or (accept is not None and accept(start) is not True):
            continue
        file.seek(0)
        try:
            return factory(file, "")
        except (SyntaxError, IndexError, TypeError, struct.error):
            continue
    return None


def _register_heif() -> None:
    """Teach Pillow HEIC where the package for it is installed."""
    if "HEIF" not in Image.OPEN:
        with suppress(ImportError):
            import_module("pillow_heif").register_heif_opener()


def _open(path: str, data: bytes, max_pixels: int) -> Image.Image:
    """The header, checked; nothing is decoded."""
    image = None
    try:
        image = identify(BytesIO(data))
    finally:
        if image is None:
            require_memory(MEMORY_TO_OPEN + MEMORY_A_PIXEL * len(data))
    if image is None:
        raise unidentified(path, data)
    width, height = image.size
    if width * height > max_pixels:
        remedy = f"limit {max_pixels:,}; raise max_pixels"
        raise ImageError(Code.LARGE_IMAGE, path, f"{width} x {height} pixels", remedy)
    _require_mode(path, image)
    return image


def _require_mode(name: str, image: Image.Image) -> None:
    """Refuse a picture whose pixels cannot be used (E105)."""
    if image.mode not in {*DIRECT_MODES, *CONVERTED_MODES}:
        raise unsupported(name, f"mode {image.mode}")


def _load(
    path: str, data: bytes, image: Image.Image, *, gray: bool, allow_truncated: bool
) -> tuple[Image.Image, list[str]]:
    """`image` decoded, all of it, and warnings."""
    if image.format == "PNG":
        # Loading checks neither the sums nor the end of a PNG.
        PngImagePlugin.PngImageFile(BytesIO(data)).verify()
    cut_png = image.format == "PNG" and PNG_END not in data
    cut_webp = image.format == "WEBP" and int.from_bytes(data[4:8], "little") + 8 > len(data)
    if cut_png or cut_webp:
        raise damaged(path, "cut off")
    try:
        return _load_pixels(image, gray), []
    except Exception:
        require_memory(MEMORY_A_PIXEL * image.size[0] * image.size[1])
        if isinstance(image, TiffImagePlugin.TiffImageFile):
            if compression_of(image.tag_v2) == WEBP:
                raise unsupported_compression(path, image.tag_v2) from None
        if not allow_truncated or image.format not in ("JPEG", "MPO"):
            raise
    # With an end marker the decoder fills what is missing.
    whole = identify(BytesIO(data + b"\xff\xd9"))
    if whole is None:
        raise unidentified(path, data)
    return _load_pixels(whole, gray), ["cut off; the missing part is gray"]


def _load_pixels(image: Image.Image, gray: bool = False) -> Image.Image:
    if gray:
        image.draft("L", image.size)
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        unpack_natively(image)
    image.load()
    return image


def _pixels_of(image: Image.Image) -> np.ndarray:
    """Pixels of a decoded picture, of a kind that `matcher.images.normalize` takes."""
    mode = CONVERTED_MODES.get(image.mode, image.mode)
    if "transparency" in image.info and mode in ("L", "RGB"):
        mode = "RGBA"
    pixels = np.asarray(image if mode == image.mode else image.convert(mode))
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        # Pillow itself turns over no more than 8 bits.
        turned = kind_of(image.tag_v2)[0] <= 8
        pixels = as_tagged(pixels, image.tag_v2, turned=turned)
    return _narrowed(pixels)


def _narrowed(pixels: np.ndarray) -> np.ndarray:
    """Pixels in this machine's order of bytes; integers of 32 bits as uint16 if they fit, or as
    float32, those of 8 bits with a sign as int16."""
    if pixels.dtype == np.int8:
        return pixels.astype(np.int16)
    if pixels.itemsize != 4 or pixels.dtype.kind == "f":
        return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    fits = pixels.min() >= 0 and pixels.max() <= 65535
    return pixels.astype(np.uint16 if fits else np.float32)


def _with_low_bytes(data: bytes, high: np.ndarray) -> np.ndarray:
    """Colors of 16 bits of a PNG, of which Pillow keeps the high bytes; others as they are.

    Unpacked in the other order of bytes, the low ones stand where the high ones did. Gray with
    transparency has four bytes a pixel, as RGBA of 8 bits.
    """
    image = PngImagePlugin.PngImageFile(BytesIO(data))
    other = DEEP_COLOR.get(str(image.tile[0].args)) if image.tile else None
    if other is None:
        return high
    image.tile = [image.tile[0]._replace(args=other)]
    image.load()
    low = np.asarray(image)
    if other == "RGBA":
        return np.ascontiguousarray(low).view(">u2")[..., [0, 0, 0, 1]]
    return high[..., : low.shape[2]].astype(np.uint16) << 8 | low


def _notes(path: str, image: Image.Image, images: int | None) -> list[str]:
    """What a user may want to know about a file that is accepted.

    Args:
        images: that it holds; None: as Pillow counts.
    """
    notes = []
    expected = SUFFIXES.get(Path(path).suffix.lower())
    found = "JPEG" if image.format == "MPO" else image.format
    if expected and expected != found:
        notes.append(f"is {found}, not {expected}")
    frames = getattr(image, "n_frames", 1) if images is None else images
    if frames > 1 and image.format != "MPO":
        notes.append(f"has {frames} frames; the first is used")
    return notes


def _pick(path: str, pixels: np.ndarray, bands: tuple[int, ...]) -> np.ndarray:
    """The chosen bands of decoded pixels."""
    require_bands(path, bands, 1 if pixels.ndim == 2 else pixels.shape[2])
    index = [band - 1 for band in bands]
    return np.atleast_3d(pixels)[..., index[0] if len(index) == 1 else index]


def _turned(
    pixels: np.ndarray,
    orientation: int,
    warnings: list[str],
    nodata: float | None,
    seen: np.ndarray | None = None,
) -> Decoded:
    """Stored pixels as their orientation wants them seen."""
    height, width = pixels.shape[:2]
    if orientation != 1:
        pixels = turn_upright(pixels, orientation)
        seen = None if seen is None else turn_upright(seen, orientation)
    return Decoded(pixels, (width, height), orientation, warnings, nodata, seen)


def _orientation(tags: Mapping[int, Any]) -> int:
    """The EXIF orientation among tags; 1 for none."""
    orientation = tags.get(Base.Orientation)
    return orientation if isinstance(orientation, int) and orientation in EXIF_STEPS else 1
