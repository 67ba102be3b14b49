"""Images and region masks from the user, as the network takes them.

Each image lies at the top left of its own canvas; its last column and row are repeated beyond,
which disturbs matches near them less than black does. A coarse cell is valid if its center pixel
lies inside the image and the region mask allows it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from matcher.config import MatcherConfig
from matcher.geometry.pixels import (
    MIN_SIDE,
    Window,
    network_size,
    network_to_original,
    resize_scale,
    stored_to_upright,
    turn_upright,
    upright_to_stored,
)
from matcher.images.load import (
    ImageSource,
    LoadedImage,
    MaskSource,
    Reading,
    load_image,
    load_mask,
)
from matcher.images.opening import MAX_PIXELS, within_memory
from matcher.runtime import own_settings
from matcher.structures import FeatureMaps, Matches

logger = logging.getLogger(__name__)
MOST_ZOOM = 2.0
"""Pixels of the network to a stored one: beyond, there is nothing more to see."""


class PreparedImage(NamedTuple):
    """One image, or a part of it, resized, on its canvas."""

    image: LoadedImage
    """its valid pixels are those that the region mask allows"""
    canvas: Tensor
    """(1, H, W) gray in [0, 1], H and W divisible by the canvas of the network"""
    valid: Tensor
    """(H/8, W/8) bool of valid cells"""
    scale: Tensor
    """(2,) original size / network size as (x, y)"""
    size: tuple[int, int]
    """(width, height) that the network sees, without what the canvas adds"""
    origin: Tensor
    """(2,) the first pixel of `image.gray` that it sees, as (x, y)"""
    mask: np.ndarray | None = None
    """(H, W) bool beside `image.gray`, False where nothing may match; None: nowhere"""

    def to_full_size(self, points: Tensor) -> Tensor:
        """(N, 2) network pixels to pixels of `image.gray`."""
        return network_to_original(points, self.scale) + self.origin

    def to_original(self, points: Tensor) -> Tensor:
        """(N, 2) network pixels to pixels of the original image as it is stored."""
        return self.to_stored(self.to_full_size(points))

    def to_stored(self, points: Tensor) -> Tensor:
        """(N, 2) pixels of `image.gray` to pixels of the original image as it is stored."""
        return upright_to_stored(points, self.image.orientation, self.image.size)

    def from_stored(self, points: Tensor) -> Tensor:
        """(N, 2) pixels of the original image as it is stored to pixels of `image.gray`."""
        return stored_to_upright(points, self.image.orientation, self.image.size)


class PreparedPair(NamedTuple):
    """Two images as the network takes them."""

    input0: PreparedImage
    input1: PreparedImage

    @property
    def reason(self) -> str:
        """Why there can be no match; empty where there can."""
        if any(min(each.size) < MIN_SIDE for each in self):
            return "too_small"
        return "" if all(each.valid.any() for each in self) else "masked"

    def in_full_size(self, found: Matches) -> Matches:
        """Matches of the network in pixels of the upright images in full size."""
        points0 = self.input0.to_full_size(found.keypoints0)
        points1 = self.input1.to_full_size(found.keypoints1)
        return replace(found, keypoints0=points0, keypoints1=points1)

    def as_stored(self, found: Matches) -> Matches:
        """Those in pixels of the originals, the ones outside of them dropped."""
        points0 = self.input0.to_stored(found.keypoints0)
        points1 = self.input1.to_stored(found.keypoints1)
        inside = torch.ones(len(found), dtype=torch.bool)
        for each, points in ((self.input0, points0), (self.input1, points1)):
            inside &= ((points >= 0) & (points < torch.tensor(each.image.size))).all(dim=1)
        return replace(found, keypoints0=points0, keypoints1=points1)[inside]


@dataclass(frozen=True)
class PairReader:
    """Reads pairs for a model of `config`."""

    config: MatcherConfig
    max_side: int | None = 1024
    """Longer images are shrunk to it, shorter ones stay as they are."""
    reading: Reading = field(default_factory=Reading)
    """How files become images."""
    _warned: set[str] = field(default_factory=set)

    @own_settings()
    def read(
        self,
        image0: ImageSource,
        image1: ImageSource,
        mask0: MaskSource | None = None,
        mask1: MaskSource | None = None,
    ) -> PreparedPair:
        """Read both images and their region masks; `Predictor.match` explains them.

        Raises:
            UsageError: a missing file (E111), or a mask that is not of the size of its image.
            ImageError: an image that cannot be used.
        """
        first = self.read_one(image0, mask0, number="0")
        return PreparedPair(first, self.read_one(image1, mask1, number="1"))

    def read_one(
        self, source: ImageSource, mask: MaskSource | None = None, *, number: str = ""
    ) -> PreparedImage:
        """Read one image and its region mask; errors as `read`, each warning is logged once.

        Messages about what is no file name it by its `number` in the pair.
        """
        name, mask_name = f"image{number}", f"mask{number}"
        if isinstance(mask, (str, os.PathLike)):
            mask_name = os.fspath(mask)
        limit = self.reading.get("max_pixels", MAX_PIXELS)
        subject = os.fspath(source) if isinstance(source, (str, os.PathLike)) else name
        allowed = None if mask is None else load_mask(mask, mask_name, max_pixels=limit)
        image = load_image(
            source, name=name, allowed=allowed, allowed_name=mask_name, **self.reading
        )
        for warning in () if isinstance(source, LoadedImage) else image.warnings:
            text = f"{subject}: {warning}"
            if text not in self._warned:
                self._warned.add(text)
                logger.warning(text)
        if image.orientation != 1:
            logger.info("%s: turned upright by EXIF", subject)
        with within_memory(subject):
            return prepare(image, allowed, self.config, self.max_side)

    def turned(self, prepared: PreparedImage, quarters: int) -> PreparedImage:
        """The image turned by so many quarters counterclockwise; points come back as stored."""
        return prepare(prepared.image.turned(quarters), None, self.config, self.max_side)

    def zoomed(self, prepared: PreparedImage, window: Window) -> PreparedImage:
        """The part of an image inside a window, its longer side as long as that of all of it was,
        but enlarged at most `MOST_ZOOM` times."""
        width, height = window.right - window.left, window.bottom - window.top
        zoom = min(max(prepared.size) / max(width, height), MOST_ZOOM)
        size = max(MIN_SIDE, round(width * zoom)), max(MIN_SIDE, round(height * zoom))
        return _lay_out(prepared.image, window, size, self.config)


def prepare(
    image: LoadedImage, allowed: np.ndarray | None, config: MatcherConfig, max_side: int | None
) -> PreparedImage:
    """Resize an image, put it on its canvas and find its valid cells.

    Matches are `allowed` by (H, W) bool in pixels of the image as stored; None means everywhere.
    """
    upright = None if allowed is None else turn_upright(allowed, image.orientation)
    if image.valid is not None:
        upright = image.valid if upright is None else image.valid & upright
    height, width = image.gray.shape
    size, whole = network_size(width, height, max_side), Window(0, 0, width, height)
    return _lay_out(replace(image, valid=upright), whole, size, config)


def _lay_out(
    image: LoadedImage, window: Window, size: tuple[int, int], config: MatcherConfig
) -> PreparedImage:
    """The part of an image inside a window, resized, on its canvas."""
    rows, columns = slice(window.top, window.bottom), slice(window.left, window.right)
    part = image.gray[rows, columns]
    height, width = part.shape
    scale, step = resize_scale((width, height), size), config.canvas
    seen = np.ascontiguousarray(resize(part, size, enlarging=cv2.INTER_CUBIC).clip(0, 1))
    canvas = -(-size[1] // step) * step, -(-size[0] // step) * step
    padded = pad_bottom_right(torch.from_numpy(seen)[None, None], canvas, mode="replicate")[0]
    stride = config.backbone.resolution[0]
    valid = torch.zeros(canvas[0] // stride, canvas[1] // stride, dtype=torch.bool)
    x, y = (np.arange(0, side, stride) for side in size)
    inside = np.ones((len(y), len(x)), dtype=bool)
    if image.valid is not None:
        cells = np.ix_(_nearest(y, scale[1], height), _nearest(x, scale[0], width))
        inside = image.valid[rows, columns][cells]
    valid[: len(y), : len(x)] = torch.from_numpy(inside)
    origin = torch.tensor([window.left, window.top], dtype=torch.float32)
    steps = torch.tensor(scale, dtype=torch.float32)
    return PreparedImage(image, padded, valid, steps, size, origin, image.valid)


def resize(
    image: np.ndarray, size: tuple[int, int], *, enlarging: int = cv2.INTER_LINEAR
) -> np.ndarray:
    """A (H, W) or (H, W, C) image at `size` (width, height); itself where it has that size.

    It is averaged to fewer pixels, and interpolated by `enlarging` to more.
    """
    height, width = image.shape[:2]
    if (width, height) == size:
        return image
    shrinks = size[0] * size[1] < width * height
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if shrinks else enlarging)


def pad_bottom_right(
    images: Tensor, size: tuple[int, int], *, mode: Literal["constant", "replicate"] = "constant"
) -> Tensor:
    """(..., H, W) images on canvases of `size` (H, W), at their top left.

    Beyond them lie zeros, or with ``replicate`` (four dimensions) their last columns and rows.
    """
    return F.pad(images, (0, size[1] - images.shape[-1], 0, size[0] - images.shape[-2]), mode=mode)


def _nearest(pixels: np.ndarray, scale: float, side: int) -> np.ndarray:
    """Original pixels that hold the centers of network pixels along one axis."""
    return np.minimum((pixels + 0.5) * scale, side - 1).astype(np.int64)


def pad_feature_maps(
    maps: Sequence[FeatureMaps], cells: Sequence[Tensor]
) -> tuple[FeatureMaps, Tensor | None]:
    """Feature maps of several sizes as one batch, padded at the bottom and the right.

    Batches pad feature maps and never images: an image must not feel its batch mates.

    Of (1, C, h, w) and (1, D, H, W) maps and the (h, w) bool of valid cells of each, they are
    (B, C, h, w) and (B, D, H, W) maps and the (B, h, w) mask of valid cells, None if all are.
    """
    mask = stack_padded([each[None] for each in cells])
    features = FeatureMaps(*(stack_padded(each) for each in zip(*maps, strict=True)))
    return features, None if mask.all() else mask


def stack_padded(maps: Sequence[Tensor]) -> Tensor:
    """(B, …, H, W) of (1, …, h, w) maps; zeros where one ends before the largest."""
    if len(maps) == 1:
        return maps[0]
    height, width = (max(each.shape[side] for each in maps) for side in (-2, -1))
    return torch.cat([pad_bottom_right(each, (height, width)) for each in maps])
