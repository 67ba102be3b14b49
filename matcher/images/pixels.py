"""Pixels of any kind to gray in [0, 1] or to 8-bit RGB.

Arrays are (H, W), (H, W, 1), (H, W, 3) RGB or (H, W, 4) RGBA, of bool, uint8, uint16, int16 or
float, in any order of bytes; `matcher.images.normalize` lists ranges. Transparency shows mid-gray.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from matcher.errors import Code, ImageError
from matcher.images.normalize import NormalizedImage, as_type, normalize, scale
from matcher.images.opening import reading, within_memory

MID_GRAY = 128
EXPECTED = "expected uint8, uint16, int16, bool or float of shape (H, W), (H, W, 3) or (H, W, 4)"
NUMPY_FLOATS = (torch.float16, torch.float32, torch.float64)
INTEGERS = (np.dtype(np.uint8), np.dtype(np.uint16), np.dtype(np.int16))


def to_gray(
    pixels: np.ndarray,
    name: str,
    *,
    allowed: np.ndarray | None = None,
    nodata: float | None = None,
    stretch: bool = False,
) -> tuple[NormalizedImage, list[str]]:
    """A gray picture in [0, 1], by OpenCV's weights of red, green and blue, and warnings.

    Args:
        pixels: of any kind.
        name: for errors.
        allowed, nodata, stretch: see `matcher.images.normalize.normalize`; a pixel of several
            bands holds nothing if all of them are nodata.

    Raises:
        ImageError: no valid pixel (E104), or another shape or type (E105).
        MemoryLimitError: memory ends (E131).
    """
    with within_memory(name):
        color, alpha, warnings = _opaque(pixels, name)
        gray, valid = color, None
        if color.ndim == 3:
            gray = cv2.cvtColor(color, cv2.COLOR_RGB2GRAY)
            if nodata is not None:
                valid = ~(color == as_type(nodata, color.dtype)).all(axis=2)
        if alpha is not None:
            allowed = alpha > 0 if allowed is None else allowed & (alpha > 0)
        image = normalize(gray, name, allowed=allowed, valid=valid, nodata=nodata, stretch=stretch)
        if alpha is not None:
            image = image._replace(gray=_over_mid_gray(image.gray, alpha))
        return image, image.normalization.warnings + warnings


def to_rgb(pixels: np.ndarray, name: str, *, nodata: float | None = None) -> np.ndarray:
    """(H, W, 3) uint8, scaled as `to_gray` does, with its errors."""
    with within_memory(name):
        color, alpha, _ = _opaque(pixels, name)
        if color.dtype != np.uint8:
            unit = scale(color, to_gray(pixels, name, nodata=nodata)[0].normalization)
            if alpha is not None:
                unit = _over_mid_gray(unit, alpha[..., None])
            color = (unit * np.float32(255)).round().astype(np.uint8)
        return cv2.cvtColor(color, cv2.COLOR_GRAY2RGB) if color.ndim == 2 else color


def array_of_tensor(tensor: Tensor, name: str) -> np.ndarray:
    """The array (H, W) or (H, W, C) of a tensor (H, W), (C, H, W) or (1, C, H, W); C: 1, 3, 4."""
    array = plain_array(tensor, name)
    shape = array.shape
    if len(shape) == 4 and shape[0] == 1:
        array = array[0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[0] not in (1, 3, 4)):
        what = f"cannot use a tensor of shape {shape}"
        expected = "expected (H, W), (C, H, W) or (1, C, H, W) with 1, 3 or 4 channels"
        raise ImageError(Code.UNSUPPORTED_IMAGE, name, what, expected)
    return np.moveaxis(array, 0, -1) if array.ndim == 3 else array


def plain_array(tensor: Tensor, name: str) -> np.ndarray:
    """The values of a tensor of any device and layout, quantized or of a precision that NumPy
    lacks, as an array of its shape.

    Raises:
        ImageError: it holds no values, such as one of the device ``meta`` (E105).
        MemoryLimitError: memory ends (E131).
    """
    with reading(name, Code.UNSUPPORTED_IMAGE, "cannot use this tensor", "give an ordinary one"):
        tensor = tensor.detach()
        if tensor.is_quantized:
            tensor = tensor.dequantize()
        if tensor.layout is not torch.strided:
            tensor = tensor.to_dense()
        if tensor.is_floating_point() and tensor.dtype not in NUMPY_FLOATS:
            tensor = tensor.float()
        return tensor.numpy(force=True)


def _opaque(pixels: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray | None, list[str]]:
    """(H, W) or (H, W, 3) contiguous, (H, W) opacity in [0, 1] if it is yet to be applied."""
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    pixels = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    kind = pixels.dtype.kind
    known = kind in "fb" or pixels.dtype in INTEGERS
    color = pixels.ndim == 3 and pixels.shape[2] in (3, 4)
    if not known or not (pixels.ndim == 2 or color) or pixels.size == 0:
        what = f"cannot use {pixels.dtype} of shape {pixels.shape}"
        raise ImageError(Code.UNSUPPORTED_IMAGE, name, what, EXPECTED)
    pixels = np.ascontiguousarray(pixels)
    if kind == "b":
        pixels = pixels.astype(np.uint8) * 255
    elif pixels.dtype == np.float16 or (color and pixels.dtype not in INTEGERS[:2]):
        with np.errstate(over="ignore"):
            pixels = pixels.astype(np.float32)
    if pixels.ndim == 2 or pixels.shape[2] == 3:
        return pixels, None, []
    return _split_alpha(pixels, name)


def _split_alpha(pixels: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray | None, list[str]]:
    """Transparent pixels over mid-gray where the type says the range; else their opacity."""
    if pixels.dtype == np.uint16:
        alpha = pixels[..., 3].astype(np.float32) / 65535
        color = np.ascontiguousarray(pixels[..., :3])
        return color, alpha, _all_clear(alpha)
    white = 255 if pixels.dtype == np.uint8 else 1
    if not (pixels.min() >= 0 and pixels.max() <= white):
        what = f"RGBA values from {pixels.min():g} to {pixels.max():g}"
        remedy = "floats with transparency must lie from 0 to 1"
        raise ImageError(Code.UNSUPPORTED_IMAGE, name, what, remedy)
    alpha = pixels[..., 3:].astype(np.float32) / white
    mixed = MID_GRAY / 255 * white
    mixed = mixed + (pixels[..., :3].astype(np.float32) - mixed) * alpha
    opaque = (mixed if white == 1 else mixed.round()).astype(pixels.dtype)
    return opaque, None, _all_clear(alpha)


def _all_clear(alpha: np.ndarray) -> list[str]:
    return [] if alpha.any() else ["fully transparent"]


def _over_mid_gray(unit: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Values in [0, 1], of opacity `alpha`, over mid-gray."""
    gray = np.float32(MID_GRAY / 255)
    return gray + (unit - gray) * alpha
