"""Why a file is no image that can be read, in a line, and what to do about it."""

from __future__ import annotations

import struct
from io import BytesIO

from PIL import Image, TiffImagePlugin

from matcher.errors import Code, ImageError
from matcher.images.bands import compression_of, count_bands, read_directory

TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
KNOWN = "JPEG, PNG, TIFF, WebP, BMP, GIF, PNM, JPEG 2000, AVIF, HEIC with pillow-heif"
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1")
WEBP = 50001
"""The compression of TIFF that Pillow knows and may be built without."""
COMPRESSIONS = {34661: "JBIG", 34712: "JPEG 2000", 34887: "LERC", WEBP: "WebP", 50002: "JPEG XL"}
SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"II*\0", b"MM\0*", b"BM", b"GIF8")


def unidentified(path: str, data: bytes) -> ImageError:
    """Of bytes that Pillow takes for no image that it knows."""
    if data.startswith(TIFF_STARTS) and _lacks_only_its_mode(data):
        directory = read_directory(data)
        if compression_of(directory) not in TiffImagePlugin.COMPRESSION_INFO:
            return unsupported_compression(path, directory)
        count = count_bands(directory)
        if count > 1:
            example = "[3,2,1]" if count > 2 else "1"
            remedy = f"choose one or three of them, such as bands={example}"
            return ImageError(Code.UNSUPPORTED_IMAGE, path, f"a TIFF of {count} bands", remedy)
        return unsupported(path, "this kind of TIFF")
    if data[4:8] == b"ftyp" and data[8:12] in HEIF_BRANDS and "HEIF" not in Image.OPEN:
        remedy = "pip install pillow-heif, or convert it to JPEG"
        return ImageError(
            Code.UNSUPPORTED_IMAGE, path, "a HEIC image, which Pillow does not read alone", remedy
        )
    if data.startswith(SIGNATURES):
        return damaged(path, "damaged or cut off in its header")
    start = data[:512].lstrip().lower()
    if start.startswith(b"version https://git-lfs"):
        return ImageError(
            Code.UNREADABLE_IMAGE, path, "a git-lfs pointer, not an image", "run git lfs pull"
        )
    what = "not an image of a known format"
    if not data:
        what = "an empty file"
    elif start.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        what = "an HTML page, not an image"
    elif start.isascii() and start.translate(None, b"\r\n\t").decode("ascii").isprintable():
        what = "text, not an image"
    return ImageError(Code.UNREADABLE_IMAGE, path, what, f"known: {KNOWN}")


def _lacks_only_its_mode(data: bytes) -> bool:
    """Whether Pillow understands a TIFF it cannot identify, all but the kind of its pixels or how
    they are compressed."""
    try:
        TiffImagePlugin.TiffImageFile(BytesIO(data))
    except SyntaxError as error:
        by_mode = any(part in str(error) for part in ("pixel mode", "samples per pixel"))
        return by_mode or isinstance(error.__cause__, KeyError)
    except (IndexError, TypeError, struct.error):
        return False
    return False


def unsupported_compression(
    path: str, directory: TiffImagePlugin.ImageFileDirectory_v2
) -> ImageError:
    """Of a TIFF whose bytes Pillow cannot unpack."""
    kind = compression_of(directory)
    name = COMPRESSIONS.get(kind, f"number {kind}")
    what = f"a TIFF with compression {name}, which Pillow does not read"
    remedy = "save it with deflate, as by gdal_translate -co COMPRESS=DEFLATE"
    return ImageError(Code.UNSUPPORTED_IMAGE, path, what, remedy)


def unsupported(path: str, what: str) -> ImageError:
    known = "supported: gray, RGB, CMYK, palette, with transparency, of 1, 8 or 16 bits, or float32"
    return ImageError(Code.UNSUPPORTED_IMAGE, path, f"{what} is not supported", known)


def damaged(path: str, what: str) -> ImageError:
    return ImageError(Code.DAMAGED_IMAGE, path, what, "fetch it anew")
