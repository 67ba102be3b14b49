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
    deep_color,
    kind_of,
    nodata_of,
    read_directory,
    select_bands,
)
from matcher.images.opening import MAX_PIXELS, open_regular, read_bytes, reading, require_memory
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
    """Value of pixels that hold nothing, as the file says."""
    black: int | None = None
    """Value of black in the file where its white is zero; such pixels are turned over."""

    def nodata_here(self, given: float | None) -> float | None:
        """Value of pixels that hold nothing, which in the file is as `given`, or as it says."""
        value = self.nodata if given is None else given
        return value if value is None or self.black is None else self.black - value


def decode(
    path: str,
    *,
    gray: bool,
    apply_exif: bool,
    allow_truncated: bool,
    bands: Bands | None = None,
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
            nodata, chosen_or_deep = nodata_of(directory), chosen or deep_color(directory)
            if chosen_or_deep is not None:
                tag = _tag(directory.get(Base.Orientation, 1)) if apply_exif else 1
                pixels = select_bands(path, data, chosen_or_deep, max_pixels)
                black = black_if_white_is_zero(directory)
                pixels = pixels if black is None else black - pixels
                notes = [] if chosen else _unused_bands(directory, len(chosen_or_deep))
                return _turned(pixels, tag, notes, nodata)._replace(black=black)
        image = _open(path, data, max_pixels)
        notes = _notes(path, image)
        # Pillow turns TIFF, and nothing else, by itself while it loads.
        turns_itself = directory is not None
        tag = orientation_of(image) if apply_exif or turns_itself else 1
        wants_gray = gray and chosen is None
        image, warnings = _load(path, data, image, gray=wants_gray, allow_truncated=allow_truncated)
        pixels = _array(image)
        if image.format == "PNG":
            pixels = _with_low_bytes(data, pixels)
    if directory is not None:
        pixels = turn_upright(pixels, UNDONE_BY.get(tag, tag))
        notes += [] if chosen else _unused_bands(directory, len(image.getbands()))
    if chosen is not None:
        pixels = _pick(path, pixels, chosen)
    decoded = _turned(pixels, tag if apply_exif else 1, notes + warnings, None)
    if directory is None:
        return decoded
    return decoded._replace(nodata=nodata_of(directory), black=black_if_white_is_zero(directory))


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


def array_of_picture(picture: Image.Image, name: str) -> np.ndarray:
    """Pixels of a picture of Pillow as it stands, of a kind that `matcher.images.pixels` takes.

    Raises:
        ImageError: it cannot be decoded (E102) or is of a kind that is not supported (E105).
        MemoryLimitError: memory ends while it is decoded (E131).
    """
    _require_mode(name, picture)
    with reading(name):
        picture.load()
        return _array(picture)


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
    _require_mode(path, image)
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


def _require_mode(name: str, image: Image.Image) -> None:
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
    whole = _identify(BytesIO(data + b"\xff\xd9"))
    if whole is None:
        raise unidentified(path, data)
    image = _load_pixels(whole, gray)
    return image, ["cut off; the missing part is gray"]


def _load_pixels(image: Image.Image, gray: bool) -> Image.Image:
    if gray:
        image.draft("L", image.size)
    image.load()
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


def _array(image: Image.Image) -> np.ndarray:
    """Pixels of a decoded image, of a kind that `matcher.images.pixels` takes."""
    mode = CONVERTED_MODES.get(image.mode, image.mode)
    if "transparency" in image.info and mode in ("L", "RGB"):
        mode = "RGBA"
    pixels = np.asarray(image if mode == image.mode else image.convert(mode))
    pixels = _as_tagged(image, pixels)
    if pixels.itemsize != 4 or pixels.dtype.kind == "f":
        return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    fits = pixels.min() >= 0 and pixels.max() <= 65535
    return pixels.astype(np.uint16 if fits else np.float32)


def _as_tagged(image: Image.Image, pixels: np.ndarray) -> np.ndarray:
    """Integers of a TIFF as signed as it says, and with white above black; Pillow takes 32 bits for
    signed and 8 for unsigned, and turns 8 bits over alone."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return pixels
    kind, black = kind_of(image.tag_v2), black_if_white_is_zero(image.tag_v2)
    if kind == (16, 1) and black is not None:
        return black - pixels
    if kind == (32, 1):
        return pixels.view(np.uint32)
    return pixels.view(np.int8).astype(np.int16) if kind == (8, 2) else pixels
