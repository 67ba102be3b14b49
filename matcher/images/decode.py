"""Image files to pixels; whatever cannot be trusted is refused with a typed error.

Files are recognized by their content. The header is read first, and a size above a limit
(`MAX_PIXELS` unless another is given) is refused before anything is decoded. Damaged and cut files
are refused, never half used. Whatever is not an ordinary file, such as a named pipe, is refused
before it is read.
"""

from __future__ import annotations

import os
import struct
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
from PIL.ExifTags import IFD, Base

from matcher.errors import (
    Code,
    ImageError,
    MatcherError,
)
from matcher.geometry.pixels import EXIF_STEPS, turn_upright
from matcher.images.bands import (
    Bands,
    black_if_white_is_zero,
    chosen_bands,
    compression_of,
    count_bands,
    nodata_of,
    own_bands,
    read_directory,
    select_bands,
)
from matcher.images.from_pillow import (
    load_pixels,
    narrowed,
    pixels_of,
    require_mode,
    with_low_bytes,
)
from matcher.images.opening import MAX_PIXELS, open_regular, read_bytes, reading, require_memory
from matcher.images.suffixes import SUFFIXES
from matcher.images.unreadable import (
    HEIF_BRANDS,
    TIFF_STARTS,
    WEBP,
    damaged,
    unidentified,
    unsupported_compression,
)

FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "BMP", "GIF", "PPM", "JPEG2000", "AVIF", "HEIF")
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
    data = read_bytes(path)
    with reading(path):
        directory = read_directory(data) if data[:4] in TIFF_STARTS else None
        if directory is not None:
            nodata = _nodata(directory, nodata)
            if used := chosen or own_bands(directory):
                tag = _tag(directory.get(Base.Orientation, 1)) if apply_exif else 1
                pixels = narrowed(select_bands(path, data, used, max_pixels))
                notes = [] if chosen else _unused_bands(directory, len(used))
                return _turned(pixels, tag, notes, nodata)
        image = _open(path, data, max_pixels)
        notes = _notes(path, image)
        # Pillow turns TIFF, and nothing else, by itself while it loads.
        turns_itself = directory is not None
        tag = orientation_of(image) if apply_exif or turns_itself else 1
        wants_gray = gray and chosen is None
        image, warnings = _load(path, data, image, gray=wants_gray, allow_truncated=allow_truncated)
        pixels = pixels_of(image)
        if image.format == "PNG":
            pixels = with_low_bytes(data, pixels)
    if directory is not None:
        pixels = turn_upright(pixels, UNDONE_BY.get(tag, tag))
        notes += [] if chosen else _unused_bands(directory, len(image.getbands()))
    if chosen is not None:
        pixels = _pick(path, pixels, chosen)
    return _turned(pixels, tag if apply_exif else 1, notes + warnings, nodata)


def _nodata(directory: TiffImagePlugin.ImageFileDirectory_v2, given: float | None) -> float | None:
    """The value of pixels that hold nothing, once white is above black; in the file it is as
    `given`, or as that says."""
    value = nodata_of(directory) if given is None else given
    black = black_if_white_is_zero(directory)
    return value if value is None or black is None else black - value


def stored_size(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    """(width, height) of an image file as stored, from its header; None where it has none."""
    try:
        with open_regular(path) as file:
            image = _identify(file)
            if isinstance(image, TiffImagePlugin.TiffImageFile):
                # Pillow tells the size that a TIFF has after it is turned.
                return image.tag_v2[Base.ImageWidth], image.tag_v2[Base.ImageLength]
            return None if image is None else image.size
    except (MatcherError, OSError, ValueError, Image.DecompressionBombError):
        return None


def exif_of(path: str | os.PathLike[str], part: IFD) -> dict[int, Any]:
    """A part of the EXIF of an image file, from its header; nothing where it cannot be read."""
    try:
        with open_regular(path) as file, reading(os.fspath(path)):
            image = _identify(file)
            # Of a TIFF it is read from the file.
            return {} if image is None else dict(image.getexif().get_ifd(part))
    except MatcherError:
        return {}


def _open(path: str, data: bytes, max_pixels: int) -> Image.Image:
    """The header, checked; nothing is decoded."""
    try:
        image = _identify(BytesIO(data))
    except Exception:
        require_memory(MEMORY_TO_OPEN + MEMORY_A_PIXEL * len(data))
        raise
    if image is None:
        require_memory(MEMORY_TO_OPEN + MEMORY_A_PIXEL * len(data))
        raise unidentified(path, data)
    width, height = image.size
    if width * height > max_pixels:
        remedy = f"limit {max_pixels:,}; raise max_pixels"
        raise ImageError(Code.LARGE_IMAGE, path, f"{width} x {height} pixels", remedy)
    require_mode(path, image)
    return image


def _identify(file: BinaryIO) -> Image.Image | None:
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
    whole = _identify(BytesIO(data + b"\xff\xd9"))
    if whole is None:
        raise unidentified(path, data)
    image = _load_pixels(whole, gray)
    return image, ["cut off; the missing part is gray"]


def _load_pixels(image: Image.Image, gray: bool) -> Image.Image:
    if gray:
        image.draft("L", image.size)
    load_pixels(image)
    return image


def _notes(path: str, image: Image.Image) -> list[str]:
    """What a user may want to know about a file that is accepted."""
    notes = []
    expected = SUFFIXES.get(Path(path).suffix.lower())
    found = "JPEG" if image.format == "MPO" else image.format
    if expected and expected != found:
        notes.append(f"is {found}, not {expected}")
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":
        notes.append(f"has {frames} frames; the first is used")
    return notes


def _unused_bands(directory: TiffImagePlugin.ImageFileDirectory_v2, used: int) -> list[str]:
    """A warning where a TIFF has more bands than were read."""
    count = count_bands(directory)
    first = "first is" if used == 1 else f"first {used} are"
    return [f"has {count} bands; the {first} used"] if count > used else []


def _pick(path: str, pixels: np.ndarray, bands: tuple[int, ...]) -> np.ndarray:
    """The chosen bands of decoded pixels."""
    count = 1 if pixels.ndim == 2 else pixels.shape[2]
    if max(bands) > count:
        raise ImageError(
            Code.UNSUPPORTED_IMAGE, path, f"has {count} bands, not {max(bands)}", "choose others"
        )
    index = [band - 1 for band in bands]
    return np.atleast_3d(pixels)[..., index[0] if len(index) == 1 else index]


def _turned(
    pixels: np.ndarray, orientation: int, warnings: list[str], nodata: float | None
) -> Decoded:
    """Stored pixels as their orientation wants them seen."""
    height, width = pixels.shape[:2]
    upright = pixels if orientation == 1 else turn_upright(pixels, orientation)
    return Decoded(upright, (width, height), orientation, warnings, nodata)


def orientation_of(image: Image.Image) -> int:
    """The EXIF orientation of a picture of Pillow; 1 for none."""
    return _tag(image.getexif().get(Base.Orientation, 1))


def _tag(orientation: object) -> int:
    """An EXIF orientation; 1 for what is none."""
    valid = isinstance(orientation, int) and orientation in EXIF_STEPS
    return int(orientation) if valid else 1  # pyright: ignore[reportArgumentType]
