"""Images from files, arrays and tensors, as the network takes them.

Files are recognized by their content. The header is read first, and a size above `MAX_PIXELS` is
refused before anything is decoded. Damaged and cut files are refused, never half used.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, TiffImagePlugin
from PIL.ExifTags import Base
from torch import Tensor

from matcher.errors import Code, ImageError, missing
from matcher.geometry.pixels import EXIF_STEPS, turn_upright
from matcher.images.pixels import array_of_tensor, to_gray, to_rgb

FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "BMP", "GIF", "PPM")
MAX_PIXELS = 100_000_000
MAX_BYTES = 2**30
DIRECT_MODES = ("L", "RGB", "RGBA", "I", "I;16", "I;16L", "I;16B", "I;16N", "F")
"""Pillow's modes whose pixels are used as they are."""
CONVERTED_MODES = {
    **dict.fromkeys(("LA", "P", "PA"), "RGBA"),
    **dict.fromkeys(("RGBX", "CMYK", "YCbCr"), "RGB"),
    "1": "L",
}
SHORT_SUFFIXES = {"JPG": "JPEG", "TIF": "TIFF"}
SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"II*\0", b"MM\0*", b"BM", b"GIF8")
PNG_END = b"IEND\xaeB`\x82"
UNDONE_BY = {6: 8, 8: 6}
"""EXIF orientations that are not their own inverse."""


@dataclass(frozen=True)
class LoadedImage:
    """An image that was read and checked."""

    gray: np.ndarray
    """(H, W) float32 in [0, 1], upright if EXIF was applied"""
    size: tuple[int, int]
    """(width, height) as stored"""
    orientation: int = 1
    """The EXIF orientation that was applied, 1 for none."""
    warnings: tuple[str, ...] = ()
    """What a user may want to know about it, such as ``values ... stretched to 0 to 1``."""


ImageSource = str | os.PathLike[str] | np.ndarray | Tensor | Image.Image | LoadedImage


def load_image(
    source: ImageSource,
    *,
    name: str = "image",
    apply_exif: bool = False,
    allow_truncated: bool = False,
) -> LoadedImage:
    """An image from wherever it is.

    Args:
        source: a path; an array (H, W), (H, W, 1), (H, W, 3) RGB or (H, W, 4) RGBA; a tensor
            (H, W), (C, H, W) or (1, C, H, W); a picture of Pillow; or an image that was loaded
            before. `matcher.images.pixels` lists types and ranges.
        name: of what is no path, for messages.

    The other options are for paths; they and the errors are those of `read_image`.
    """
    if isinstance(source, LoadedImage):
        return source
    if isinstance(source, (str, os.PathLike)):
        return read_image(source, apply_exif=apply_exif, allow_truncated=allow_truncated)
    if isinstance(source, Tensor):
        source = array_of_tensor(source, name)
    if isinstance(source, Image.Image):
        source = array_of_picture(source, name)
    if not isinstance(source, np.ndarray):
        what = f"cannot use a value of type {type(source).__name__}"
        remedy = "give a path, an array, a tensor or a PIL image"
        raise ImageError(Code.UNSUPPORTED_IMAGE, name, what, remedy)
    gray, warnings = to_gray(source, name)
    return LoadedImage(gray, (gray.shape[1], gray.shape[0]), 1, tuple(warnings))


def read_image(
    path: str | os.PathLike[str], *, apply_exif: bool = False, allow_truncated: bool = False
) -> LoadedImage:
    """Read the gray image in a file.

    Args:
        path: JPEG, PNG, TIFF, WebP, BMP, GIF or PNM, whatever its suffix; of several frames or
            pages the first.
        apply_exif: turn the image as its EXIF orientation says; `upright_to_stored` leads
            back. By default the pixels are used as they are stored, as COLMAP and hloc do.
        allow_truncated: accept a JPEG that was cut off; the missing part is gray.

    Raises:
        UsageError: there is no such file (E111).
        ImageError: not an image (E101), damaged or cut off (E102), more than 100 million pixels
            (E103), NaN or infinite pixels (E104) or of a kind that is not supported (E105).
    """
    path = os.fspath(path)
    file = decode(path, gray=True, apply_exif=apply_exif, allow_truncated=allow_truncated)
    gray, warnings = to_gray(file.pixels, path)
    return LoadedImage(gray, file.size, file.orientation, (*file.warnings, *warnings))


def read_rgb(path: str | os.PathLike[str], *, allow_truncated: bool = False) -> np.ndarray:
    """(H, W, 3) uint8 of a file in the pixels as stored, to draw on; errors as `read_image`."""
    path = os.fspath(path)
    file = decode(path, gray=False, apply_exif=False, allow_truncated=allow_truncated)
    return to_rgb(file.pixels, path)


def read_mask(path: str | os.PathLike[str]) -> np.ndarray:
    """(H, W) bool of a mask image in the pixels as stored: black is False, all else True."""
    return read_rgb(path).max(axis=2) > 0


class Decoded(NamedTuple):
    """The pixels of a file; the rest as of a `LoadedImage`."""

    pixels: np.ndarray
    """(H, W), (H, W, 3) or (H, W, 4): uint8, uint16 or float32"""
    size: tuple[int, int]
    orientation: int
    warnings: list[str]


def decode(path: str, *, gray: bool, apply_exif: bool, allow_truncated: bool) -> Decoded:
    """Pixels as stored, or upright with `apply_exif`; arguments and errors as of `read_image`.

    Where `gray` is enough, a JPEG is decoded to it, which is faster.
    """
    data = read_bytes(path)
    with _damage(path):
        image = _open(path, data)
        notes = _notes(path, image)
        # Pillow turns TIFF, and nothing else, by itself while it loads.
        turns_itself = image.format == "TIFF"
        tag = image.getexif().get(Base.Orientation, 1) if apply_exif or turns_itself else 1
        tag = tag if tag in EXIF_STEPS else 1
        image, warnings = _load(path, data, image, gray=gray, allow_truncated=allow_truncated)
        pixels = _array(image)
    if turns_itself and not apply_exif:
        pixels = turn_upright(pixels, UNDONE_BY.get(tag, tag))
    elif apply_exif and not turns_itself:
        pixels = turn_upright(pixels, tag)
    applied = tag if apply_exif else 1
    height, width = pixels.shape[:2]
    size = (height, width) if EXIF_STEPS[applied][0] else (width, height)
    return Decoded(pixels, size, applied, notes + warnings)


def stored_size(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    """(width, height) of an image file as stored, from its header; None where it has none."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            if isinstance(image, TiffImagePlugin.TiffImageFile):
                # Pillow tells the size that a TIFF has after it is turned.
                return image.tag_v2[Base.ImageWidth], image.tag_v2[Base.ImageLength]
            return image.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def array_of_picture(picture: Image.Image, name: str) -> np.ndarray:
    """Pixels of a picture of Pillow as it stands, for `matcher.images.pixels`, or E102 or E105."""
    _require_mode(name, picture)
    with _damage(name):
        picture.load()
        return _array(picture)


def read_bytes(path: str) -> bytes:
    """The whole file, of at most `MAX_BYTES`."""
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            what = "a folder" if stat.S_ISDIR(status.st_mode) else "not an ordinary file"
            raise ImageError(Code.UNREADABLE_IMAGE, path, what, "give an image")
        if status.st_size > MAX_BYTES:
            raise _too_large(path, f"{status.st_size:,} bytes", MAX_BYTES)
        return Path(path).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise missing(path) from None
    except (OSError, ValueError) as error:
        raise ImageError(Code.UNREADABLE_IMAGE, path, f"cannot read: {error}") from error


@contextmanager
def _damage(path: str) -> Iterator[None]:
    """Whatever a decoder stumbles over is damage of the file."""
    try:
        yield
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(path, "too many pixels", MAX_PIXELS) from error
    except Exception as error:
        detail = str(error) or type(error).__name__
        raise _damaged(path, f"damaged or cut off ({detail})") from error


def _open(path: str, data: bytes) -> Image.Image:
    """The header, checked; nothing is decoded."""
    try:
        image = Image.open(BytesIO(data), formats=FORMATS)
    except Image.UnidentifiedImageError:
        raise _unidentified(path, data) from None
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise _too_large(path, f"{width} x {height} pixels", MAX_PIXELS)
    _require_mode(path, image)
    return image


def _require_mode(name: str, image: Image.Image) -> None:
    if image.mode not in {*DIRECT_MODES, *CONVERTED_MODES}:
        raise _unsupported(name, f"mode {image.mode}")


def _load(
    path: str, data: bytes, image: Image.Image, *, gray: bool, allow_truncated: bool
) -> tuple[Image.Image, list[str]]:
    """`image` decoded, all of it, and warnings."""
    if image.format == "PNG":
        # Loading checks neither the sums nor the end of a PNG.
        Image.open(BytesIO(data), formats=("PNG",)).verify()
    cut_png = image.format == "PNG" and PNG_END not in data
    cut_webp = image.format == "WEBP" and int.from_bytes(data[4:8], "little") + 8 > len(data)
    if cut_png or cut_webp:
        raise _damaged(path, "cut off")
    try:
        return _load_pixels(image, gray), []
    except OSError:
        if not allow_truncated or image.format not in ("JPEG", "MPO"):
            raise
    # With an end marker the decoder fills what is missing.
    image = _load_pixels(_open(path, data + b"\xff\xd9"), gray)
    return image, ["cut off; the missing part is gray"]


def _load_pixels(image: Image.Image, gray: bool) -> Image.Image:
    if gray:
        image.draft("L", image.size)
    image.load()
    return image


def _unidentified(path: str, data: bytes) -> ImageError:
    if data.startswith((b"II*\0", b"MM\0*")) and _lacks_only_its_mode(data):
        return _unsupported(path, "this kind of TIFF")
    if data.startswith(SIGNATURES):
        return _damaged(path, "damaged or cut off in its header")
    start = data[:512].lstrip().lower()
    what, remedy = "not an image of a known format", "known: JPEG, PNG, TIFF, WebP, BMP, GIF, PNM"
    if not data:
        what = "an empty file"
    elif start.startswith(b"version https://git-lfs"):
        what, remedy = "a git-lfs pointer, not an image", "run git lfs pull"
    elif start.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        what = "an HTML page, not an image"
    elif start.isascii() and start.translate(None, b"\r\n\t").decode("ascii").isprintable():
        what = "text, not an image"
    return ImageError(Code.UNREADABLE_IMAGE, path, what, remedy)


def _lacks_only_its_mode(data: bytes) -> bool:
    """Whether Pillow understands a TIFF it cannot identify, all but the kind of its pixels."""
    try:
        TiffImagePlugin.TiffImageFile(BytesIO(data))
    except SyntaxError as error:
        return any(part in str(error) for part in ("pixel mode", "samples per pixel"))
    except (IndexError, TypeError, struct.error):
        pass
    return False


def _unsupported(path: str, what: str) -> ImageError:
    known = "supported: gray, RGB, CMYK, palette, with transparency, of 1, 8 or 16 bits, or float32"
    return ImageError(Code.UNSUPPORTED_IMAGE, path, f"{what} is not supported", known)


def _damaged(path: str, what: str) -> ImageError:
    return ImageError(Code.DAMAGED_IMAGE, path, what, "fetch it anew")


def _too_large(path: str, what: str, limit: int) -> ImageError:
    return ImageError(Code.LARGE_IMAGE, path, what, f"limit {limit:,}")


def _notes(path: str, image: Image.Image) -> list[str]:
    """What a user may want to know about a file that is accepted."""
    notes = []
    suffix = Path(path).suffix[1:].upper()
    expected = SHORT_SUFFIXES.get(suffix, suffix)
    found = "JPEG" if image.format == "MPO" else image.format
    # Files in one of the PNM formats have several suffixes.
    if expected != found and expected in FORMATS and expected != "PPM":
        notes.append(f"is {found}, not {expected}")
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":
        notes.append(f"has {frames} frames; the first is used")
    return notes


def _array(image: Image.Image) -> np.ndarray:
    """Pixels of a decoded image, of a kind that `matcher.images.pixels` takes."""
    mode = CONVERTED_MODES.get(image.mode, image.mode)
    if "transparency" in image.info and mode in ("L", "RGB"):
        mode = "RGBA"
    pixels = np.asarray(image if mode == image.mode else image.convert(mode))
    if image.mode != "I":
        return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    fits = pixels.min() >= 0 and pixels.max() <= 65535
    return pixels.astype(np.uint16 if fits else np.float32)
