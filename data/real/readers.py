"""Images, depth maps and poses from files, brought to the network's size.

A corrupt or missing file raises a `MatcherError` that names it, so that `data.corrupt` can
replace the sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import h5py
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from matcher.config import invalid, require_positive
from matcher.errors import Code, ImageError, UsageError
from matcher.geometry.cameras import rescale_intrinsics
from matcher.images.load import read_image
from matcher.structures import ImagePair, PairGeometry

MILLIMETRES = 0.001


@dataclass(frozen=True)
class Framing:
    """How pictures of any size become network images of one size."""

    size: tuple[int, int] = (832, 832)
    """(H, W) of the network image."""
    keep_aspect: bool = True
    """Fit the picture into `size` and pad at the bottom right; False stretches it."""
    multiple: int = 32
    """With `keep_aspect`, sides of the content are rounded down to a multiple of this."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", tuple(self.size))
        require_positive("data.files.framing.size", *self.size)
        require_positive("data.files.framing.multiple", self.multiple)
        if len(self.size) != 2 or min(self.size) < self.multiple:
            expected = f"(height, width) of at least {self.multiple}"
            raise invalid("data.files.framing.size", self.size, expected)

    def content(self, height: int, width: int) -> tuple[int, int]:
        """(H, W) of the content of a picture of `height` x `width`."""
        if not self.keep_aspect:
            return self.size
        scale = min(self.size[0] / height, self.size[1] / width)
        sides = (max(1, int(round(n * scale) // self.multiple)) for n in (height, width))
        rows, columns = (n * self.multiple for n in sides)
        return rows, columns


@dataclass(frozen=True)
class View:
    """One side of an `ImagePair`, a batch of 1."""

    image: Tensor
    depth: Tensor
    mask: Tensor | None
    scale: Tensor
    K: Tensor


def make_view(gray: np.ndarray, depth: np.ndarray, K: np.ndarray, framing: Framing) -> View:
    """Bring a picture and its depth to the network's grid.

    Args:
        gray: (H, W) float32 in [0, 1].
        depth: (h, w) z-depth over the same field of view, of any resolution, 0 where unknown.
        K: (3, 3) in pixels of `gray`.
        framing: the network's size.
    """
    height, width = gray.shape
    rows, columns = framing.content(height, width)
    shrinks = rows * columns < height * width
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    image = np.zeros(framing.size, np.float32)
    image[:rows, :columns] = cv2.resize(gray, (columns, rows), interpolation=interpolation)
    seen = np.zeros(framing.size, np.float32)
    seen[:rows, :columns] = resample_depth(depth, (rows, columns))
    mask = None
    if framing.keep_aspect:
        mask = torch.zeros(1, *framing.size, dtype=torch.bool)
        mask[:, :rows, :columns] = True
    return View(
        torch.from_numpy(image)[None, None],
        torch.from_numpy(seen)[None],
        mask,
        torch.tensor([[width / columns, height / rows]], dtype=torch.float32),
        torch.from_numpy(np.asarray(K, np.float32))[None],
    )


def resample_depth(depth: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W) depth on another grid over the same field: that of the nearest pixel, since a mean
    across an edge lies on neither surface."""
    row, column = (
        ((np.arange(n) + 0.5) * (m / n)).astype(int) for n, m in zip(size, depth.shape, strict=True)
    )
    return depth[row[:, None], column]


def resized_intrinsics(K: np.ndarray, size: tuple[int, int], to: tuple[int, int]) -> np.ndarray:
    """(3, 3) `K` of a picture of (H, W) `size` after that picture was resized to `to`."""
    scale = torch.tensor([size[1] / to[1], size[0] / to[0]], dtype=torch.float64)
    return rescale_intrinsics(torch.from_numpy(np.asarray(K, np.float64)), scale).numpy()


def fitted_intrinsics(
    K: np.ndarray, size: tuple[int, int], stored: tuple[int, int], image: Path
) -> np.ndarray:
    """(3, 3) `K` of a camera of (H, W) `size` in the pixels of its picture `image` as stored.

    Raises:
        ImageError: the `stored` size has not the proportions of the camera, to within a pixel.
    """
    (height, width), (rows, columns) = size, stored
    if min(abs(rows - height * columns / width), abs(columns - width * rows / height)) > 1:
        what = f"is {columns} x {rows}, its camera {width} x {height}"
        raise ImageError(
            Code.UNSUPPORTED_IMAGE, image, what, "expected a picture of the same proportions"
        )
    return resized_intrinsics(K, size, stored)


def join(view0: View, view1: View, T_0to1: np.ndarray, names: tuple[str, str]) -> ImagePair:
    """A batch of one pair."""
    T = torch.from_numpy(np.asarray(T_0to1, np.float32))[None]
    return ImagePair(
        view0.image,
        view1.image,
        view0.scale,
        view1.scale,
        view0.mask,
        view1.mask,
        PairGeometry(view0.depth, view1.depth, view0.K, view1.K, T),
        (names,),
    )


def read_gray(path: Path) -> np.ndarray:
    """(H, W) float32 in [0, 1], pixels as stored.

    Raises:
        UsageError: no such file.
        ImageError: the file does not decode.
    """
    return read_image(path).gray


def read_depth(path: Path, unit: float = MILLIMETRES) -> np.ndarray:
    """(H, W) float32 z-depth, 0 where unknown.

    Args:
        path: ``.h5`` with the dataset ``depth``, returned as it is, or a 16-bit picture.
        unit: metres a step of the picture; 0 and 65535 are unknown.

    Raises:
        UsageError: no such file.
        ImageError: not a depth map.
    """
    if not path.is_file():
        raise UsageError(Code.MISSING_FILE, path, "no such depth map")
    try:
        depth = _read_h5(path) if path.suffix == ".h5" else _read_png(path, unit)
        depth = np.where(np.isfinite(depth) & (depth > 0), depth, 0).astype(np.float32)
    except Exception as error:  # Pillow and h5py raise whatever a damaged file leads them to.
        raise ImageError(Code.DAMAGED_IMAGE, path, f"is not a depth map ({error})") from error
    if depth.ndim != 2:
        raise ImageError(
            Code.UNSUPPORTED_IMAGE, path, f"has shape {depth.shape}", "expected (height, width)"
        )
    return depth


def _read_h5(path: Path) -> np.ndarray:
    with h5py.File(path, "r") as file:
        values = file["depth"]
        if not isinstance(values, h5py.Dataset):
            raise KeyError("no dataset 'depth'")
        return values[()]


def _read_png(path: Path, unit: float) -> np.ndarray:
    with Image.open(path) as image:
        depth = np.asarray(image)
    if depth.dtype not in (np.uint16, np.int32):
        raise ValueError(f"{depth.dtype} pixels, expected 16 bits")
    return np.where(depth < 65535, depth, 0) * unit


def read_pose(path: Path) -> np.ndarray:
    """(4, 4) float64 of a text file of 16 numbers.

    Raises:
        UsageError: no such file.
        ImageError: not a finite 4 x 4 matrix.
    """
    if not path.is_file():
        raise UsageError(Code.MISSING_FILE, path, "no such pose")
    try:
        pose = np.array(path.read_text().split(), float).reshape(4, 4)
    except ValueError as error:
        raise ImageError(Code.DAMAGED_IMAGE, path, f"is not a pose ({error})") from error
    if not np.isfinite(pose).all():
        raise ImageError(Code.INVALID_PIXELS, path, "is a lost pose (not finite)")
    return pose
