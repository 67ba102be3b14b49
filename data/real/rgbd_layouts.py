"""Frames of an RGB-D sequence in a folder: their files, cameras and poses.

Three layouts are told apart by their files: ``cameras.npz`` (``frame``, ``K``, ``pose``) with
``NNNNNN.jpg`` and ``NNNNNN.depth.png``; 7-Scenes (``frame-NNNNNN.{color,depth}.png`` and
``.pose.txt``); TUM (``rgb.txt``, ``depth.txt``, ``groundtruth.txt``).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from data.real.index import read_index
from data.real.readers import MILLIMETERS, fitted_intrinsics, numbered_lines, read_pose
from matcher.errors import Code, MatcherError, UsageError, missing
from matcher.geometry.validity import usable_intrinsics, usable_pose
from matcher.images.decode import stored_size
from matcher.validation.checked import invalid

logger = logging.getLogger(__name__)

FRAME = re.compile(r"frame-(\d{1,9})\.pose\.txt")
SIZE = (480, 640)
"""(H, W) of the pictures that these cameras belong to."""
SEVEN_SCENES_K = np.array([[525.0, 0, 320], [0, 525, 240], [0, 0, 1]])
SEVEN_SCENES_DEPTH_K = np.array([[585.0, 0, 320], [0, 585, 240], [0, 0, 1]])
TUM_K = np.array([[525.0, 0, 319.5], [0, 525, 239.5], [0, 0, 1]])
TUM_UNIT = 1 / 5000
TUM_DELAY = 0.02
"""Seconds by which a depth map or a pose may miss its picture."""
LOST = np.full((4, 4), np.nan)
"""The pose of a frame that has none."""


class RgbdFrame(NamedTuple):
    """A picture with its depth map and camera."""

    number: int
    image: Path
    depth: Path
    unit: float
    """meters a step of the depth map"""
    K: np.ndarray
    """(3, 3) in pixels of the stored picture"""
    pose: np.ndarray
    """(4, 4) camera to world"""
    size: tuple[int, int]
    """(H, W) of the stored picture"""
    depth_camera: np.ndarray | None = None
    """(3, 3) of a depth camera of its own at 640 x 480; None where depth is registered"""


def list_frames(folder: Path) -> list[RgbdFrame]:
    """The frames of a folder whose pose is known, in their order.

    Raises:
        UsageError: none of the layouts, or a list of TUM's that cannot be read.
        ImageError: a picture of other proportions than its camera.
    """
    layouts: dict[str, Callable[[Path], list[RgbdFrame]]] = {
        "cameras.npz": _numbered,
        "groundtruth.txt": _tum,
        "frame-*.pose.txt": _seven_scenes,
    }
    for mark, read in layouts.items():
        if any(folder.glob(mark)):
            frames = read(folder)
            kept = [f for f in frames if _is_pose(f.pose)]
            if lost := len(frames) - len(kept):
                count = f"{lost} of {len(frames)}"
                logger.warning("%s: %s frames left out, no usable pose", folder, count)
            return kept
    raise missing(folder, "is no RGB-D sequence", f"expected {', '.join(layouts)}")


def _is_pose(pose: np.ndarray) -> bool:
    try:
        usable_pose(pose)
    except ValueError:
        return False
    return True


def _cameras(values: dict[str, Any]) -> tuple[list[int], np.ndarray, np.ndarray]:
    """Numbers of N frames, their (3, 3) K and (N, 4, 4) poses."""
    K, poses = usable_intrinsics(values["K"]), np.asarray(values["pose"], float)
    numbers = np.asarray(values["frame"])
    if numbers.ndim != 1 or poses.shape != (len(numbers), 4, 4) or K.ndim != 2:
        shapes = f"frame {numbers.shape}, pose {poses.shape} and K {K.shape}"
        raise ValueError(f"{shapes}; expected (N,), (N, 4, 4) and (3, 3)")
    if numbers.dtype.kind not in "iu" or (numbers < 0).any():
        raise ValueError(f"frame holds {numbers.dtype} {numbers[:3].tolist()}, expected numbers")
    return numbers.tolist(), K, poses


def _numbered(folder: Path) -> list[RgbdFrame]:
    numbers, K, poses = read_index(folder / "cameras.npz", _cameras)
    frames = []
    for number, pose in zip(numbers, poses, strict=True):
        image, depth = folder / f"{number:06d}.jpg", folder / f"{number:06d}.depth.png"
        size = picture_shape(image)
        frames.append(RgbdFrame(number, image, depth, MILLIMETERS, K, pose, size))
    return frames


def _seven_scenes(folder: Path) -> list[RgbdFrame]:
    frames = []
    for path in sorted(p for p in folder.glob("frame-*.pose.txt") if FRAME.fullmatch(p.name)):
        stem = path.name.removesuffix(".pose.txt")
        image, depth = folder / f"{stem}.color.png", folder / f"{stem}.depth.png"
        number, size = int(stem.removeprefix("frame-")), picture_shape(image)
        K = fitted_intrinsics(SEVEN_SCENES_K, SIZE, size, image)
        try:
            pose = read_pose(path)
        except MatcherError:
            pose = LOST
        camera = K, pose, size, SEVEN_SCENES_DEPTH_K
        frames.append(RgbdFrame(number, image, depth, MILLIMETERS, *camera))
    return frames


def _tum(folder: Path) -> list[RgbdFrame]:
    depth, truth = (_timed(folder / name) for name in ("depth.txt", "groundtruth.txt"))
    frames = []
    for number, (time, (name, *_)) in enumerate(_timed(folder / "rgb.txt")):
        near_depth, near_pose = _words_at(time, depth), _words_at(time, truth)
        if not near_depth:
            continue
        image, size = folder / name, picture_shape(folder / name)
        camera = fitted_intrinsics(TUM_K, SIZE, size, image), pose_of(near_pose), size
        frames.append(RgbdFrame(number, image, folder / near_depth[0], TUM_UNIT, *camera))
    return frames


def _words_at(time: float, entries: list[tuple[float, tuple[str, ...]]]) -> tuple[str, ...]:
    """The words of the nearest entry, none if it misses by more than `TUM_DELAY`."""
    nearest, words = min(entries, key=lambda entry: abs(entry[0] - time))
    return words if abs(nearest - time) <= TUM_DELAY else ()


def picture_shape(image: Path) -> tuple[int, int]:
    """(H, W) that the header of a picture tells; `SIZE` where it cannot be read, since whoever
    needs its pixels will say so."""
    width, height = (image.is_file() and stored_size(image)) or SIZE[::-1]
    return height, width


def _timed(path: Path) -> list[tuple[float, tuple[str, ...]]]:
    """Lines ``time word...`` that are no comments; a `UsageError` tells of one that is not like
    that, and of a file without any."""
    entries = []
    for number, line in numbered_lines(path):
        try:
            time, first, *words = line.split()
            entries.append((float(time), (first, *words)))
        except ValueError:
            raise invalid(f"{path}, line {number}", line[:40], "a time and what it is of") from None
    if not entries:
        raise UsageError(Code.INVALID_VALUE, path, "lists nothing")
    return entries


def pose_of(words: Sequence[str]) -> np.ndarray:
    """(4, 4) of TUM's ``tx ty tz qx qy qz qw``, `LOST` if they are no pose."""
    try:
        tx, ty, tz, qx, qy, qz, qw = map(float, words)
        return rigid((qw, qx, qy, qz), (tx, ty, tz))
    except ValueError:
        return LOST


def rigid(quaternion: Sequence[float], translation: Sequence[float]) -> np.ndarray:
    """(4, 4) of a quaternion (w, x, y, z) of any length above 0 and a translation; `ValueError`
    where the quaternion is no rotation."""
    pose = np.eye(4)
    w, *vector = unit_quaternion(quaternion)
    length = np.linalg.norm(vector)
    if length >= 1e-12:
        angle = 2 * np.arctan2(length, w)
        pose[:3, :3] = cv2.Rodrigues(np.array(vector) / length * angle)[0]
    pose[:3, 3] = translation
    return pose


def unit_quaternion(quaternion: Sequence[float]) -> np.ndarray:
    """(4,) of length 1; `ValueError` for one of no length or that is not finite."""
    length = np.linalg.norm(quaternion)
    if not 0 < length < np.inf:
        raise ValueError(f"no rotation: a quaternion {[float(q) for q in quaternion]}")
    return np.array(quaternion) / length
