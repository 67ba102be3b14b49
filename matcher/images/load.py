"""Images from files, arrays and tensors, as the network takes them."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
from PIL import Image
from torch import Tensor

from matcher.errors import Code, ImageError
from matcher.geometry.pixels import upright_to_stored
from matcher.images.decode import array_of_picture, decode
from matcher.images.pixels import array_of_tensor, to_gray, to_rgb


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

    def to_stored(self, points: Tensor) -> Tensor:
        """(N, 2) pixels of `gray` to pixels of the image as it is stored."""
        return upright_to_stored(points, self.orientation, self.size)


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
        apply_exif: for paths, as in `read_image`; so is `allow_truncated`.

    Raises:
        UsageError, ImageError: as `read_image`.
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
        raise ImageError(
            Code.UNSUPPORTED_IMAGE, name, what, "give a path, an array, a tensor or a PIL image"
        )
    gray, warnings = to_gray(source, name)
    return LoadedImage(gray, (gray.shape[1], gray.shape[0]), 1, tuple(warnings))


def read_image(
    path: str | os.PathLike[str], *, apply_exif: bool = False, allow_truncated: bool = False
) -> LoadedImage:
    """Read the gray image in a file.

    Args:
        path: JPEG, PNG, TIFF, WebP, BMP, GIF or PNM, whatever its suffix; of several frames or
            pages the first.
        apply_exif: turn the image as its EXIF orientation says; `LoadedImage.to_stored` leads
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
