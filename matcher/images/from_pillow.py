"""Pictures of Pillow to arrays of all the depth that their files have."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image, PngImagePlugin, TiffImagePlugin

from matcher.images.bands import as_tagged, kind_of, unpack_natively
from matcher.images.opening import reading
from matcher.images.unreadable import unsupported

DIRECT_MODES = ("L", "RGB", "RGBA", "I", "I;16", "I;16L", "I;16B", "I;16N", "F")
"""Pillow's modes whose pixels are used as they are."""
CONVERTED_MODES = {
    **dict.fromkeys(("LA", "P", "PA"), "RGBA"),
    **dict.fromkeys(("RGBX", "CMYK", "YCbCr"), "RGB"),
    "1": "L",
}
DEEP_COLOR = {"RGB;16B": "RGB;16L", "RGBA;16B": "RGBA;16L", "LA;16B": "RGBA"}
"""How Pillow unpacks 16-bit colors of a PNG to what gives their low bytes, and of gray both."""


def require_mode(name: str, image: Image.Image) -> None:
    """Refuse a picture whose pixels cannot be used (E105)."""
    if image.mode not in {*DIRECT_MODES, *CONVERTED_MODES}:
        raise unsupported(name, f"mode {image.mode}")


def array_of_picture(picture: Image.Image, name: str) -> np.ndarray:
    """Pixels of a picture of Pillow as it stands, of a kind that `matcher.images.pixels` takes.

    Raises:
        ImageError: it cannot be decoded (E102) or is of a kind that is not supported (E105).
        MemoryLimitError: memory ends while it is decoded (E131).
    """
    require_mode(name, picture)
    with reading(name):
        load_pixels(picture)
        return pixels_of(picture)


def load_pixels(image: Image.Image) -> None:
    """Decode a picture that was opened."""
    unpack_natively(image)
    image.load()


def pixels_of(image: Image.Image) -> np.ndarray:
    """Pixels of a decoded picture, of a kind that `matcher.images.pixels` takes."""
    mode = CONVERTED_MODES.get(image.mode, image.mode)
    if "transparency" in image.info and mode in ("L", "RGB"):
        mode = "RGBA"
    pixels = np.asarray(image if mode == image.mode else image.convert(mode))
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        # Pillow itself turns over no more than 8 bits.
        turned = kind_of(image.tag_v2)[0] <= 8
        pixels = as_tagged(pixels, image.tag_v2, turned=turned)
    return narrowed(pixels)


def narrowed(pixels: np.ndarray) -> np.ndarray:
    """Pixels in this machine's order of bytes; integers of 32 bits as uint16 if they fit, or as
    float32, those of 8 bits with a sign as int16."""
    if pixels.dtype == np.int8:
        return pixels.astype(np.int16)
    if pixels.itemsize != 4 or pixels.dtype.kind == "f":
        return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    fits = pixels.min() >= 0 and pixels.max() <= 65535
    return pixels.astype(np.uint16 if fits else np.float32)


def with_low_bytes(data: bytes, high: np.ndarray) -> np.ndarray:
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
