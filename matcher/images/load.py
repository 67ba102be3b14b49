"""Images from files, arrays and tensors, as the network takes them."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TypedDict

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from matcher.errors import Code, ImageError
from matcher.geometry.pixels import turn_orientation, turn_upright
from matcher.images.bands import Bands
from matcher.images.decode import Decoded, decode, decode_picture
from matcher.images.normalize import PLAIN, Normalization, to_gray, to_rgb
from matcher.images.opening import MAX_PIXELS, reading, within_memory
from matcher.validation.checked import invalid

NUMPY_FLOATS = (torch.float16, torch.float32, torch.float64)
"""Precisions of tensors that NumPy has too."""


@dataclass(frozen=True)
class LoadedImage:
    """An image that was read and checked."""

    gray: np.ndarray
    """(H, W) float32 in [0, 1], upright if EXIF was applied"""
    size: tuple[int, int]
    """(width, height) as stored"""
    orientation: int = 1
    """The EXIF orientation that leads from the image as stored to `gray`, 1 for none."""
    warnings: tuple[str, ...] = ()
    """What a user may want to know about it, such as ``values ... stretched to 0 to 1``."""
    valid: np.ndarray | None = None
    """(H, W) bool beside `gray`, False where the file holds nothing; None: all hold something."""
    normalization: Normalization = PLAIN
    """How values became `gray`."""

    def turned(self, quarters: int) -> LoadedImage:
        """The image turned by so many quarters counterclockwise; it knows the way back."""
        valid = None if self.valid is None else np.ascontiguousarray(np.rot90(self.valid, quarters))
        return replace(
            self,
            gray=np.ascontiguousarray(np.rot90(self.gray, quarters)),
            orientation=turn_orientation(self.orientation, quarters),
            valid=valid,
        )


class Reading(TypedDict, total=False):
    """Keywords of `load_image` that say how an image is read."""

    apply_exif: bool
    allow_truncated: bool
    bands: Bands | None
    nodata: float | None
    stretch: bool
    max_pixels: int


MaskSource = str | os.PathLike[str] | np.ndarray | Tensor | Image.Image
ImageSource = MaskSource | LoadedImage


def load_image(
    source: ImageSource,
    *,
    name: str = "image",
    apply_exif: bool = True,
    allow_truncated: bool = False,
    allowed: np.ndarray | None = None,
    allowed_name: str = "mask",
    bands: Bands | None = None,
    nodata: float | None = None,
    stretch: bool = False,
    max_pixels: int = MAX_PIXELS,
) -> LoadedImage:
    """A gray image from wherever it is.

    Args:
        source: a path of JPEG, PNG, TIFF, WebP, BMP, GIF, PNM, JPEG 2000 or AVIF, and HEIC where
            pillow-heif is installed, whatever its suffix; of several frames or pages the first.
            Or an array (H, W), (H, W, 1), (H, W, 3) RGB or (H, W, 4) RGBA; a tensor (H, W),
            (C, H, W) or (1, C, H, W); a picture of Pillow; or an image that was loaded before.
            `matcher.images.normalize` lists types and ranges.
        name: of what is no path, for messages.
        apply_exif: turn a file or a picture of Pillow as its EXIF orientation says;
            `upright_to_stored` leads back. Otherwise the pixels are used as they are stored.
        allow_truncated: accept a JPEG that was cut off; the missing part is gray.
        allowed: (H, W) bool in pixels as stored: the region that decides the range of values.
        allowed_name: of that region, for messages.
        bands: one band or three (red, green, blue) of a file, counted from 1.
        nodata: value of pixels that hold nothing; None: as the file says (GDAL_NODATA of TIFF).
        stretch: widen pictures of low contrast.
        max_pixels: larger files are refused.

    Raises:
        UsageError: there is no such file (E111), or bands or a region that cannot be (E201).
        ImageError: not an image (E101), damaged or cut off (E102), more than `max_pixels` (E103),
            no valid pixel (E104) or of a kind that is not supported (E105).
        MemoryLimitError: memory ends while it is read (E131).
    """
    if isinstance(source, LoadedImage):
        _require_shape(allowed, source.size, allowed_name)
        return source
    name = os.fspath(source) if isinstance(source, (str, os.PathLike)) else name
    with within_memory(name):
        if isinstance(source, (str, os.PathLike)):
            read = decode(
                name,
                gray=True,
                apply_exif=apply_exif,
                allow_truncated=allow_truncated,
                bands=bands,
                nodata=nodata,
                max_pixels=max_pixels,
            )
        else:
            read = _in_memory(source, name, apply_exif)._replace(nodata=nodata)
        _require_shape(allowed, read.size, allowed_name)
        image = to_gray(
            read.pixels,
            name,
            allowed=None if allowed is None else turn_upright(allowed, read.orientation),
            nodata=read.nodata,
            seen=read.seen,
            stretch=stretch,
        )
    warnings = (*read.warnings, *image.warnings)
    return LoadedImage(
        image.gray, read.size, read.orientation, warnings, image.valid, image.normalization
    )


def _in_memory(source: np.ndarray | Tensor | Image.Image, name: str, apply_exif: bool) -> Decoded:
    """The pixels of what is no file."""
    if isinstance(source, Image.Image):
        return decode_picture(source, name, apply_exif=apply_exif)
    if isinstance(source, Tensor):
        source = _array_of_tensor(source, name)
    if not isinstance(source, np.ndarray):
        what = f"cannot use a value of type {type(source).__name__}"
        remedy = "give a path, an array, a tensor or a PIL image"
        raise ImageError(Code.UNSUPPORTED_IMAGE, name, what, remedy)
    if np.ma.is_masked(source):
        what, remedy = "cannot use a masked array", "give its data, and ~image.mask as the mask"
        raise ImageError(Code.UNSUPPORTED_IMAGE, name, what, remedy)
    size = (source.shape[1], source.shape[0]) if source.ndim >= 2 else (0, 0)
    return Decoded(source, size, 1, [])


def _array_of_tensor(tensor: Tensor, name: str) -> np.ndarray:
    """The array (H, W) or (H, W, C) of a tensor (H, W), (C, H, W) or (1, C, H, W); C: 1, 3, 4."""
    array = _plain_array(tensor, name)
    shape = array.shape
    if len(shape) == 4 and shape[0] == 1:
        array = array[0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[0] not in (1, 3, 4)):
        what = f"cannot use a tensor of shape {shape}"
        expected = "expected (H, W), (C, H, W) or (1, C, H, W) with 1, 3 or 4 channels"
        raise ImageError(Code.UNSUPPORTED_IMAGE, name, what, expected)
    return np.moveaxis(array, 0, -1) if array.ndim == 3 else array


def _plain_array(tensor: Tensor, name: str) -> np.ndarray:
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


def read_rgb(
    path: str | os.PathLike[str],
    *,
    apply_exif: bool = False,
    allow_truncated: bool = False,
    bands: Bands | None = None,
    nodata: float | None = None,
    max_pixels: int = MAX_PIXELS,
) -> np.ndarray:
    """(H, W, 3) uint8 of a file in the pixels as stored, to draw on, or upright with `apply_exif`;
    errors as `load_image`."""
    path = os.fspath(path)
    with within_memory(path):
        file = decode(
            path,
            gray=False,
            apply_exif=apply_exif,
            allow_truncated=allow_truncated,
            bands=bands,
            nodata=nodata,
            max_pixels=max_pixels,
        )
        return to_rgb(file.pixels, path, nodata=file.nodata)


def read_mask(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """(H, W) bool of a mask image in the pixels as stored: black and what is all transparent are
    False, all else True."""
    path = os.fspath(path)
    with within_memory(path):
        pixels = decode(
            path, gray=False, apply_exif=False, allow_truncated=False, max_pixels=max_pixels
        ).pixels
        return _not_black(pixels)


def load_mask(mask: MaskSource, name: str, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """(H, W) bool of a mask from wherever it is: black, zero, NaN and what is all transparent are
    False, all else True.

    Args:
        mask: a path; an array or a tensor (H, W), also with axes of length 1 before or behind it;
            or a picture of Pillow.
        name: of what is no path, for errors.
        max_pixels: larger files are refused.

    Raises:
        UsageError: something else (E201).
        ImageError, MemoryLimitError: as `load_image`.
    """
    if isinstance(mask, (str, os.PathLike)):
        return read_mask(mask, max_pixels=max_pixels)
    with within_memory(name):
        if isinstance(mask, Image.Image):
            return _not_black(decode_picture(mask, name, apply_exif=False).pixels)
        values = _plain_array(mask, name) if isinstance(mask, Tensor) else np.ma.filled(mask, 0)
        if not isinstance(mask, (np.ndarray, Tensor)) or values.dtype.kind not in "biuf":
            found = str(getattr(mask, "dtype", type(mask).__name__))
            raise invalid(name, found, "a path, a PIL image, or an array or a tensor of numbers")
        while values.ndim > 2 and 1 in (values.shape[0], values.shape[-1]):
            values = values[0] if values.shape[0] == 1 else values[..., 0]
        return np.nan_to_num(np.asarray(values)) != 0


def _not_black(pixels: np.ndarray) -> np.ndarray:
    """(H, W) bool of decoded pixels, False also where they are all transparent."""
    nonzero = np.atleast_3d(np.nan_to_num(pixels) != 0)
    return np.logical_and(nonzero[..., :3].any(axis=2), nonzero[..., 3:].all(axis=2))


def _require_shape(allowed: np.ndarray | None, size: tuple[int, int], name: str) -> None:
    if allowed is not None and allowed.shape != (size[1], size[0]):
        expected = f"(H, W) = ({size[1]}, {size[0]}), that of the image"
        raise invalid(name, allowed.shape, expected)
