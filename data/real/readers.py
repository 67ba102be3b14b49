"""Images, depth maps and poses from files, brought to the network's size and joined to pairs.

A corrupt or missing file raises a `MatcherError` that names it, so that `data.corrupt` can
replace the sample.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from data.config import Framing
from data.order import Key
from matcher.errors import Code, ImageError, missing
from matcher.files import read_text
from matcher.geometry.cameras import rescale_intrinsics
from matcher.geometry.validity import usable_pose
from matcher.images.load import load_image
from matcher.images.preprocess import pad_bottom_right, resize
from matcher.structures import ImagePair, PairGeometry

MILLIMETERS = 0.001


class FilePairs(Dataset[ImagePair], ABC):
    """Pairs in files, scene after scene, by index or (epoch, index)."""

    def __init__(self, counts: Sequence[int]) -> None:
        self.counts = tuple(counts)
        """Pairs of each scene, for `data.order.SceneBalanced`."""
        self.first = np.cumsum([0, *counts])

    def __len__(self) -> int:
        return int(self.first[-1])

    def __getitem__(self, key: int | Key) -> ImagePair:
        index = key[1] if isinstance(key, tuple) else key
        if not 0 <= index < len(self):
            raise IndexError(index)
        scene = int(np.searchsorted(self.first, index, side="right")) - 1
        return self.read(scene, index - int(self.first[scene]))

    @abstractmethod
    def read(self, scene: int, row: int) -> ImagePair:
        """Pair `row` of those of a scene."""


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a file, from 1, that are neither empty nor comments; errors as `read_text`."""
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if line.strip() and not line.startswith("#"):
            yield number, line


def require_file(path: Path, what: str = "file") -> None:
    if not path.is_file():
        raise missing(path, f"no such {what}")


class View(NamedTuple):
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
    image = torch.from_numpy(resize(gray, (columns, rows)))[None, None]
    seen = torch.from_numpy(resample_depth(depth, (rows, columns)))[None].float()
    inside = torch.ones(1, rows, columns, dtype=torch.bool)
    return View(
        pad_bottom_right(image, framing.size),
        pad_bottom_right(seen, framing.size),
        pad_bottom_right(inside, framing.size) if framing.keep_aspect else None,
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
        raise ImageError(Code.UNSUPPORTED_IMAGE, image, what, "expected the same proportions")
    return resized_intrinsics(K, size, stored)


def join(views: Sequence[View], T_0to1: np.ndarray, names: tuple[str, str]) -> ImagePair:
    """A batch of one pair of two views."""
    (image0, depth0, mask0, scale0, K0), (image1, depth1, mask1, scale1, K1) = views
    T = torch.from_numpy(np.asarray(T_0to1, np.float32))[None]
    geometry = PairGeometry(depth0, depth1, K0, K1, T)
    return ImagePair(image0, image1, scale0, scale1, mask0, mask1, geometry, (names,))


def read_gray(path: Path) -> np.ndarray:
    """(H, W) float32 in [0, 1], pixels as stored; errors are those of `load_image`."""
    return load_image(path, apply_exif=False).gray


def read_depth(path: Path, unit: float = MILLIMETERS) -> np.ndarray:
    """(H, W) float32 z-depth, 0 where unknown.

    Args:
        path: ``.h5`` with the dataset ``depth``, returned as it is, or a 16-bit picture.
        unit: meters a step of the picture; 0 and 65535 are unknown.

    Raises:
        UsageError, ImageError: no such file, or not a depth map.
    """
    require_file(path, "depth map")
    try:
        depth = _read_h5(path) if path.suffix == ".h5" else _read_png(path, unit)
        depth = np.where(np.isfinite(depth) & (depth > 0), depth, 0).astype(np.float32)
    except Exception as error:  # Pillow and h5py raise whatever a damaged file leads them to.
        raise ImageError(Code.DAMAGED_IMAGE, path, f"is not a depth map ({error})") from error
    if depth.ndim != 2:
        raise ImageError(Code.UNSUPPORTED_IMAGE, path, f"has shape {depth.shape}, not (H, W)")
    return depth


def _read_h5(path: Path) -> np.ndarray:
    # Disks without locks, as of networks, refuse one; another reader or writer may hold it.
    with h5py.File(path, "r", locking=False) as file:
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
        UsageError, ImageError: no such file, or not a finite 4 x 4 matrix that is rigid.
    """
    text = read_text(path, "pose")
    try:
        pose = np.array(text.split(), float).reshape(4, 4)
    except ValueError as error:
        raise ImageError(Code.DAMAGED_IMAGE, path, f"is not a pose ({error})") from error
    if not np.isfinite(pose).all():
        raise ImageError(Code.INVALID_PIXELS, path, "is a lost pose (not finite)")
    try:
        return usable_pose(pose)
    except ValueError as error:
        raise ImageError(Code.INVALID_PIXELS, path, str(error)) from None
