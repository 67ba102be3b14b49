"""Pairs of an RGB-D sequence, chosen by the overlap that depth and pose tell.

Depth maps are registered to the colour camera; one of half the size holds every second pixel, which
is also how `resample_depth` reads it. Only 7-Scenes has the maps of a depth camera of its own
(f = 585 where colour has 525), whose place beside the colour camera was not published. They are
resized about the centre, as if both stood in one place. SIFT matches of 60 pairs of RedKitchen miss
by 1.8 px (median) when depth and pose carry them so; by 1.8 px with the calibration in use for the
Kinect too, and by 3.2 px with the maps taken for registered to f = 585.
"""

from __future__ import annotations

import logging
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from data.order import Key
from data.real.readers import (
    Framing,
    join,
    make_view,
    read_depth,
    read_gray,
    resample_depth,
    resized_intrinsics,
)
from data.real.rgbd_layouts import SIZE, RgbdFrame, list_frames
from data.synthetic.cameras import PROBE, visible
from matcher.errors import Code, MatcherError, UsageError
from matcher.structures import ImagePair

logger = logging.getLogger(__name__)


class RgbdPairs(Dataset[ImagePair]):
    """Pairs of frames of one folder.

    Args:
        folder: in one of the layouts of this module.
        frames: numbers (first, behind the last) of the frames to use.
        overlap: range of the smaller of both shared parts of a pair.
        stride: use every so many frames.
        framing: of the network images; 640 x 480 by default.

    Frames without a usable pose are left out. One whose depth map cannot be read shares nothing
    with any other, so that only a range from 0 on has pairs of it, for `data.corrupt`.

    Raises:
        UsageError: no such folder, or too few frames.
        MatcherError: a picture of other proportions than its camera, or no readable depth map.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        frames: tuple[int, int] = (0, 10**9),
        overlap: tuple[float, float] = (0.2, 0.9),
        stride: int = 1,
        framing: Framing | None = None,
    ) -> None:
        self.framing = framing or Framing(SIZE, keep_aspect=False)
        listed = list_frames(Path(folder))
        self.frames = [f for f in listed if frames[0] <= f.number < frames[1]][::stride]
        if len(self.frames) < 2:
            raise UsageError(
                Code.UNREADABLE_LIST, folder, f"has {len(self.frames)} frames in {frames}"
            )
        shared = overlap_matrix(self.frames)
        chosen = np.triu((shared >= overlap[0]) & (shared <= overlap[1]), k=1)
        self.pairs = np.argwhere(chosen)
        self.overlap = shared[chosen]
        self.counts = (len(self.pairs),)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, key: int | Key) -> ImagePair:
        index = key[1] if isinstance(key, tuple) else key
        if not 0 <= index < len(self):
            raise IndexError(index)
        pair = [self.frames[i] for i in self.pairs[index]]
        views = [
            make_view(read_gray(f.image), registered_depth(f), f.K, self.framing) for f in pair
        ]
        T_0to1 = np.linalg.inv(pair[1].pose) @ pair[0].pose
        return join(views[0], views[1], T_0to1, (pair[0].image.name, pair[1].image.name))


def registered_depth(frame: RgbdFrame) -> np.ndarray:
    """(H, W) float32 z-depth over the field of view of the picture, 0 where unknown.

    Raises:
        UsageError, ImageError: as `read_depth`.
    """
    depth = read_depth(frame.depth, frame.unit)
    if frame.depth_camera is None:
        return depth
    height, width = depth.shape
    colour = resized_intrinsics(frame.K, frame.size, (height, width))
    to_depth = resized_intrinsics(frame.depth_camera, SIZE, (height, width)) @ np.linalg.inv(colour)
    nearest = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(depth, to_depth[:2], (width, height), flags=nearest)


def coarse_depth(frames: list[RgbdFrame]) -> Tensor:
    """(N, h, w) depth on the grid of `PROBE`, all unknown where a map cannot be read.

    Raises:
        UsageError, ImageError: not one can be read.
    """
    maps, errors = [], []
    for frame in frames:
        try:
            maps.append(resample_depth(registered_depth(frame), PROBE))
        except MatcherError as error:
            maps.append(np.zeros(PROBE, np.float32))
            errors.append(error)
    if len(errors) == len(frames):
        raise errors[0]
    if errors:
        logger.warning(
            "%d of %d depth maps cannot be read, first %s", len(errors), len(frames), errors[0]
        )
    return torch.from_numpy(np.stack(maps))


def overlap_matrix(frames: list[RgbdFrame]) -> np.ndarray:
    """(N, N) smaller of the fractions of known depth that two frames share, on a coarse grid."""
    depth = coarse_depth(frames)
    K = torch.from_numpy(np.stack([resized_intrinsics(f.K, f.size, SIZE) for f in frames]))
    pose = torch.from_numpy(np.stack([f.pose for f in frames]))
    world_to_camera = torch.linalg.inv(pose)
    count = len(frames)
    shared = torch.stack(
        [
            visible(
                depth[i].expand(count, -1, -1),
                K[i].expand(count, -1, -1),
                depth,
                K,
                world_to_camera @ pose[i],
                SIZE,
            )
            for i in range(count)
        ]
    )
    return torch.minimum(shared, shared.T).numpy()
