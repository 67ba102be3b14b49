"""Gray images in as few bytes as hold every value, for those that wait in memory."""

from __future__ import annotations

import numpy as np

WHITES = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}


def pack_gray(gray: np.ndarray) -> np.ndarray:
    """(H, W) uint8 or uint16 from which `unpack_gray` makes the same bits; else float32 as it is.

    Pictures of 8 and of 16 bits come back; those whose values were stretched stay float32.
    """
    for dtype, white in WHITES.items():
        levels = np.rint(gray * np.float32(white)).astype(dtype)
        if np.array_equal(unpack_gray(levels), gray):
            return levels
    return gray


def unpack_gray(gray: np.ndarray) -> np.ndarray:
    """(H, W) float32 in [0, 1] of a gray image, packed or not."""
    white = WHITES.get(gray.dtype)
    return gray if white is None else gray.astype(np.float32) / np.float32(white)
