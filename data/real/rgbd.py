"""Pairs of an RGB-D sequence, chosen by the overlap that depth and pose tell."""

from __future__ import annotations

import logging
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from data.config import Framing
from data.real.readers import (
    FilePairs,
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


class RgbdPairs(FilePairs):
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
            what = f"has {len(self.frames)} frames in {frames}"
            raise UsageError(Code.UNREADABLE_LIST, folder, what)
        shared = overlap_matrix(self.frames)
        chosen = np.triu((shared >= overlap[0]) & (shared <= overlap[1]), k=1)
        self.pairs = np.argwhere(chosen)
        self.overlap = shared[chosen]
        super().__init__([len(self.pairs)])

    def read(self, scene: int, row: int) -> ImagePair:
        first, second = (self.frames[i] for i in self.pairs[row])
        views = [
            make_view(read_gray(f.image), registered_depth(f), f.K, self.framing)
            for f in (first, second)
        ]
        T_0to1 = np.linalg.inv(second.pose) @ first.pose
        return join(views, T_0to1, (first.image.name, second.image.name))


def registered_depth(frame: RgbdFrame) -> np.ndarray:
    """(H, W) float32 z-depth over the field of view of the picture, 0 where unknown; errors are
    those of `read_depth`."""
    depth = read_depth(frame.depth, frame.unit)
    if frame.depth_camera is None:
        return depth
    # The place of such a camera beside the color camera was not published: both count as one.
    # Matches of RedKitchen miss by 1.8 px so, and by 3.2 px if its depth is taken for registered.
    height, width = depth.shape
    color = resized_intrinsics(frame.K, frame.size, (height, width))
    to_depth = resized_intrinsics(frame.depth_camera, SIZE, (height, width)) @ np.linalg.inv(color)
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
        count = f"{len(errors)} of {len(frames)}"
        logger.warning("%s depth maps cannot be read, first %s", count, errors[0])
    return torch.from_numpy(np.stack(maps))


def overlap_matrix(frames: list[RgbdFrame]) -> np.ndarray:
    """(N, N) smaller of the fractions of known depth that two frames share, on a coarse grid."""
    depth = coarse_depth(frames)
    K = torch.from_numpy(np.stack([resized_intrinsics(f.K, f.size, SIZE) for f in frames]))
    pose = torch.from_numpy(np.stack([f.pose for f in frames]))
    world_to_camera = torch.linalg.inv(pose)
    shared = torch.stack(
        [
            visible(one_depth, one_K, depth, K, world_to_camera @ one_pose, SIZE)
            for one_depth, one_K, one_pose in zip(depth.split(1), K.split(1), pose, strict=True)
        ]
    )
    return torch.minimum(shared, shared.T).numpy()
