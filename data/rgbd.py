"""Pairs of an RGB-D sequence in a folder, chosen by the overlap that depth and pose tell.

Three layouts are told apart by their files: ``cameras.npz`` (``frame``, ``K``, ``pose``) with
``NNNNNN.jpg`` and ``NNNNNN.depth.png``; 7-Scenes (``frame-NNNNNN.{color,depth}.png`` and
``.pose.txt``); TUM (``rgb.txt``, ``depth.txt``, ``groundtruth.txt``). Depth maps are registered to
the colour camera; one of half the size holds every second pixel, which is also how
`resample_depth` reads it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from data.cameras import PROBE, visible
from data.index import read_arrays
from data.readers import (
    MILLIMETRES,
    Framing,
    join,
    make_view,
    read_depth,
    read_gray,
    read_pose,
    resample_depth,
)
from data.stream import Key
from matcher.errors import UsageError
from matcher.structures import ImagePair

SIZE = (480, 640)
SEVEN_SCENES_K = np.array([[585.0, 0, 320], [0, 585, 240], [0, 0, 1]])
TUM_K = np.array([[525.0, 0, 319.5], [0, 525, 239.5], [0, 0, 1]])
TUM_UNIT = 1 / 5000
TUM_DELAY = 0.02
"""Seconds by which a depth map or a pose may miss its picture."""


class RgbdFrame(NamedTuple):
    """A picture with its depth map and camera."""

    number: int
    image: Path
    depth: Path
    unit: float
    """metres a step of the depth map"""
    K: np.ndarray
    """(3, 3) in pixels of the stored 640 x 480 picture"""
    pose: np.ndarray
    """(4, 4) camera to world"""


class RgbdPairs(Dataset[ImagePair]):
    """Pairs of frames of one folder.

    Args:
        folder: in one of the layouts of this module.
        frames: numbers (first, behind the last) of the frames to use.
        overlap: range of the smaller of both shared parts of a pair.
        stride: use every so many frames.
        framing: of the network images; 640 x 480 by default.
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
            raise UsageError(112, folder, f"has {len(self.frames)} frames in {frames}")
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
            make_view(read_gray(f.image), read_depth(f.depth, f.unit), f.K, self.framing)
            for f in pair
        ]
        T_0to1 = np.linalg.inv(pair[1].pose) @ pair[0].pose
        return join(views[0], views[1], T_0to1, (pair[0].image.name, pair[1].image.name))


def overlap_matrix(frames: list[RgbdFrame]) -> np.ndarray:
    """(N, N) smaller of the fractions of known depth that two frames share, on a coarse grid."""
    depth = torch.from_numpy(
        np.stack([resample_depth(read_depth(f.depth, f.unit), PROBE) for f in frames])
    )
    K = torch.from_numpy(np.stack([f.K for f in frames]))
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


def list_frames(folder: Path) -> list[RgbdFrame]:
    """The frames of a folder whose pose is known, in their order.

    Raises:
        UsageError: none of the layouts.
    """
    layouts: dict[str, Callable[[Path], list[RgbdFrame]]] = {
        "cameras.npz": _numbered,
        "groundtruth.txt": _tum,
        "frame-*.pose.txt": _seven_scenes,
    }
    for mark, read in layouts.items():
        if any(folder.glob(mark)):
            return read(folder)
    raise UsageError(111, folder, "is no RGB-D sequence", f"expected {', '.join(layouts)}")


def _numbered(folder: Path) -> list[RgbdFrame]:
    cameras = read_arrays(folder / "cameras.npz")
    K, frames = cameras["K"].astype(float), []
    for number, pose in zip(cameras["frame"].tolist(), cameras["pose"], strict=True):
        image, depth = folder / f"{number:06d}.jpg", folder / f"{number:06d}.depth.png"
        frames.append(RgbdFrame(number, image, depth, MILLIMETRES, K, pose.astype(float)))
    return frames


def _seven_scenes(folder: Path) -> list[RgbdFrame]:
    frames = []
    for path in sorted(folder.glob("frame-*.pose.txt")):
        stem = path.name.removesuffix(".pose.txt")
        image, depth = folder / f"{stem}.color.png", folder / f"{stem}.depth.png"
        number = int(stem.removeprefix("frame-"))
        frames.append(RgbdFrame(number, image, depth, MILLIMETRES, SEVEN_SCENES_K, read_pose(path)))
    return frames


def _tum(folder: Path) -> list[RgbdFrame]:
    depth, truth = (_timed(folder / name) for name in ("depth.txt", "groundtruth.txt"))
    frames = []
    for number, (time, (image,)) in enumerate(_timed(folder / "rgb.txt")):
        near_depth = min(depth, key=lambda entry: abs(entry[0] - time))
        near_pose = min(truth, key=lambda entry: abs(entry[0] - time))
        if max(abs(near_depth[0] - time), abs(near_pose[0] - time)) > TUM_DELAY:
            continue
        pose = pose_of(np.array(near_pose[1], float))
        files = folder / image, folder / near_depth[1][0]
        frames.append(RgbdFrame(number, *files, TUM_UNIT, TUM_K, pose))
    return frames


def _timed(path: Path) -> list[tuple[float, tuple[str, ...]]]:
    """Lines ``time word...`` that are no comments."""
    if not path.is_file():
        raise UsageError(111, path, "no such file")
    lines = (line.split() for line in path.read_text().splitlines() if not line.startswith("#"))
    return [(float(words[0]), tuple(words[1:])) for words in lines if words]


def pose_of(values: np.ndarray) -> np.ndarray:
    """(4, 4) of TUM's ``tx ty tz qx qy qz qw``."""
    pose = np.eye(4)
    pose[:3, :3] = rotation_of(values[[6, 3, 4, 5]])
    pose[:3, 3] = values[:3]
    return pose


def rotation_of(quaternion: np.ndarray) -> np.ndarray:
    """(3, 3) of a quaternion (w, x, y, z)."""
    w, *vector = quaternion / np.linalg.norm(quaternion)
    length = np.linalg.norm(vector)
    if length < 1e-12:
        return np.eye(3)
    angle = 2 * np.arctan2(length, w)
    return cv2.Rodrigues(np.array(vector) / length * angle)[0]
