"""Pixels to image files, by Pillow alone.

OpenCV brings its own copies of the libraries for PNG, JPEG and WebP; where a process has loaded
those of another package, two of them can clash.
"""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image, JpegImagePlugin, PngImagePlugin, WebPImagePlugin  # noqa: F401

FORMATS: dict[str, dict[str, Any]] = {
    ".png": {"format": "PNG", "compress_level": 1},
    ".jpg": {"format": "JPEG", "quality": 95},
    ".jpeg": {"format": "JPEG", "quality": 95},
    ".webp": {"format": "WEBP", "lossless": True, "method": 0},
}
"""Suffix to what Pillow is told: quick before small."""


def encode(pixels: np.ndarray, suffix: str) -> bytes:
    """The bytes of an image file.

    Args:
        pixels: (H, W) or (H, W, 3) RGB uint8; (H, W) uint16 for PNG.
        suffix: a key of `FORMATS`.
    """
    out = BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(out, **FORMATS[suffix])
    return out.getvalue()
