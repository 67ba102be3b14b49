"""Names of image files: what their suffixes promise. Loads nothing heavy."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec

SUFFIXES = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jpe": "JPEG",
    ".jfif": "JPEG",
    ".mpo": "JPEG",
    ".png": "PNG",
    ".apng": "PNG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WEBP",
    ".bmp": "BMP",
    ".gif": "GIF",
    ".ppm": "PPM",
    ".pgm": "PPM",
    ".pnm": "PPM",
    ".pbm": "PPM",
    ".jp2": "JPEG2000",
    ".j2k": "JPEG2000",
    ".j2c": "JPEG2000",
    ".jpc": "JPEG2000",
    ".jpf": "JPEG2000",
    ".jpx": "JPEG2000",
    ".avif": "AVIF",
    ".heic": "HEIF",
    ".heif": "HEIF",
    ".hif": "HEIF",
}
"""Suffix in lower case to format: what a folder of images lists."""
OTHER_SUFFIXES = (
    *(".dng", ".cr2", ".cr3", ".nef", ".nrw", ".arw", ".srf", ".sr2", ".orf", ".raf", ".rw2"),
    *(".pef", ".srw", ".x3f", ".3fr", ".raw", ".jxl", ".jxr", ".exr", ".hdr", ".tga", ".psd"),
    *(".pfm", ".fits", ".dcm", ".svg", ".ico", ".dds", ".pcx", ".sgi", ".ras", ".insp", ".img"),
)
"""Those of pictures that are not read here."""
_ALL = (*SUFFIXES, *OTHER_SUFFIXES)
FEATURES = {"JPEG2000": "jpg_2000", "AVIF": "avif", "WEBP": "webp"}
"""Formats that a Pillow may have been built without, and its names of them."""


def looks_like_picture(name: str) -> bool:
    """Whether a name ends as those of pictures do, read here or not."""
    return name.lower().endswith(_ALL)


def is_read(name: str) -> bool:
    """Whether a name ends as those of a format that can be read on this machine."""
    suffix = f".{name.lower().rpartition('.')[2]}"
    return suffix in SUFFIXES and _can_read(SUFFIXES[suffix])


@cache
def _can_read(format_: str) -> bool:
    if format_ == "HEIF":
        return find_spec("pillow_heif") is not None
    if format_ not in FEATURES:
        return True
    from PIL import features

    return bool(features.check(FEATURES[format_]))
