"""Pixels of any kind to gray in [0, 1] or to 8-bit RGB.

| type | range |
|---|---|
| bool | False is black, True is white |
| uint8, uint16 | 0 to 255, 0 to 65535 |
| float16, float32, float64 | 0 to 1; others are stretched from their minimum to their maximum |

Arrays are (H, W), (H, W, 1), (H, W, 3) RGB or (H, W, 4) RGBA; transparency shows mid-gray.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from matcher.errors import Code, ImageError

MID_GRAY = 128
EXPECTED = "expected uint8, uint16, bool or float of shape (H, W), (H, W, 3) or (H, W, 4)"
_WHITE = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}


def to_gray(pixels: np.ndarray, name: str) -> tuple[np.ndarray, list[str]]:
    """(H, W) float32 in [0, 1], by OpenCV's weights of red, green and blue, and warnings.

    NaN or infinity is E104, another shape or type E105.
    """
    opaque, warnings = _opaque(pixels, name)
    gray = cv2.cvtColor(opaque, cv2.COLOR_RGB2GRAY) if opaque.ndim == 3 else opaque
    white = _WHITE.get(gray.dtype, 1)
    return gray.astype(np.float32) / np.float32(white), warnings


def to_rgb(pixels: np.ndarray, name: str) -> np.ndarray:
    """(H, W, 3) uint8, with the errors of `to_gray`."""
    opaque, _ = _opaque(pixels, name)
    if opaque.dtype != np.uint8:
        white = _WHITE.get(opaque.dtype, 1)
        opaque = (opaque * np.float32(255 / white)).round().astype(np.uint8)
    return cv2.cvtColor(opaque, cv2.COLOR_GRAY2RGB) if opaque.ndim == 2 else opaque


def array_of_tensor(tensor: Tensor, name: str) -> np.ndarray:
    """The array (H, W) or (H, W, C) of a tensor (H, W), (C, H, W) or (1, C, H, W); C: 1, 3, 4."""
    shape = tuple(tensor.shape)
    if len(shape) == 4 and shape[0] == 1:
        tensor = tensor[0]
    if tensor.ndim not in (2, 3) or (tensor.ndim == 3 and tensor.shape[0] not in (1, 3, 4)):
        what = f"cannot use a tensor of shape {shape}"
        expected = "expected (H, W), (C, H, W) or (1, C, H, W) with 1, 3 or 4 channels"
        raise ImageError(Code.UNSUPPORTED_IMAGE, name, what, expected)
    tensor = tensor.detach().cpu()
    if tensor.dtype is torch.bfloat16:
        tensor = tensor.float()
    return tensor.movedim(0, -1).numpy() if tensor.ndim == 3 else tensor.numpy()


def _opaque(pixels: np.ndarray, name: str) -> tuple[np.ndarray, list[str]]:
    """(H, W) or (H, W, 3) contiguous: uint8, uint16, or float32 in [0, 1]."""
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    kind = pixels.dtype.kind
    known = kind in "fb" or pixels.dtype in _WHITE
    color = pixels.ndim == 3 and pixels.shape[2] in (3, 4)
    if not known or not (pixels.ndim == 2 or color) or pixels.size == 0:
        what = f"cannot use {pixels.dtype} of shape {pixels.shape}"
        raise ImageError(Code.UNSUPPORTED_IMAGE, name, what, EXPECTED)
    pixels, warnings = np.ascontiguousarray(pixels), []
    if kind == "b":
        pixels = pixels.astype(np.uint8) * 255
    elif kind == "f":
        pixels, warnings = _unit_range(pixels, name)
    opaque, more = _composite(pixels)
    return opaque, warnings + more


def _unit_range(pixels: np.ndarray, name: str) -> tuple[np.ndarray, list[str]]:
    low, high = float(pixels.min()), float(pixels.max())
    if not np.isfinite((low, high)).all():
        raise ImageError(Code.INVALID_PIXELS, name, "NaN or infinite pixels", "replace them")
    if low >= 0 and high <= 1:
        return pixels.astype(np.float32), []
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        what = f"RGBA values from {low:g} to {high:g}"
        remedy = "floats with transparency must lie from 0 to 1"
        raise ImageError(Code.UNSUPPORTED_IMAGE, name, what, remedy)
    warning = f"values from {low:g} to {high:g} stretched to 0 to 1"
    width = high - low
    if not 0 < width < np.inf:
        return np.zeros(pixels.shape, np.float32), [warning]
    return ((pixels.astype(np.float64) - low) / width).astype(np.float32), [warning]


def _composite(pixels: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Transparent pixels over mid-gray, at the same range."""
    if pixels.ndim == 2 or pixels.shape[2] == 3:
        return pixels, []
    white = _WHITE.get(pixels.dtype, 1)
    alpha = pixels[..., 3:].astype(np.float32) / white
    gray = MID_GRAY / 255 * white
    mixed = gray + (pixels[..., :3].astype(np.float32) - gray) * alpha
    warnings = [] if alpha.any() else ["fully transparent"]
    return (mixed if white == 1 else mixed.round()).astype(pixels.dtype), warnings
