"""Stereo pairs with real texture: frames of an RGB-D sequence, and right views warped from them.

The left view is a part of a frame; its depth, as seen by two equal cameras side by side, is the
disparity. The right view is drawn from both (as Watson et al., ECCV 2020, do from estimated depth),
so that the disparity is exact whatever the error of the depth; where it would show what the frame
does not, it shows a part of another frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from data.corrupt import Replacing
from data.order import Key
from data.real.readers import read_gray
from data.real.rgbd import registered_depth
from data.real.rgbd_layouts import RgbdFrame, list_frames
from data.real.stereo import filled
from data.synthetic.stereo_truth import Misalignment, misaligned, occluded_in
from matcher.errors import Code, UsageError
from matcher.tasks.stereo.structures import StereoPair

PARTS = (0.5, 1.0)
"""Range of the part of a frame, along its tighter side, that a pair shows."""
LEAST_KNOWN = 0.3
"""Share of the depth of a part that has to be known; other parts are drawn anew."""
ATTEMPTS = 20


class Picture(NamedTuple):
    """A frame, or a part of one at the size of a pair."""

    gray: np.ndarray
    """(H, W) float32 in [0, 1]"""
    depth: np.ndarray
    """(h, w) float32 of the same view, 0 where unknown, in a unit of its own"""


@dataclass(eq=False)
class WholeFrames(Dataset[Picture]):
    """Whole frames as they are stored."""

    listed: Sequence[RgbdFrame]

    def __len__(self) -> int:
        return len(self.listed)

    def __getitem__(self, key: Key) -> Picture:
        frame = self.listed[key[1]]
        return Picture(read_gray(frame.image), registered_depth(frame))


class StereoFrames:
    """Pairs from the frames of a folder, in one of the layouts of `data.real.rgbd_layouts`.

    Args:
        folder: of the sequence.
        numbers: first and behind the last of the frames to use.
        notes: the file of `data.corrupt` that lists frames which cannot be read; others take their
            places.

    Raises:
        UsageError: no such folder (E111), or no frame in it (E112).
    """

    def __init__(self, folder: str | Path, numbers: tuple[int, int], notes: Path) -> None:
        first, behind = numbers
        self.folder = Path(folder)
        self.frames = [f for f in list_frames(self.folder) if first <= f.number < behind]
        if not self.frames:
            raise UsageError(Code.UNREADABLE_LIST, folder, f"has no frames in {numbers}")
        self._readable = Replacing(WholeFrames(self.frames), notes)

    def draw(
        self,
        rng: np.random.Generator,
        size: tuple[int, int],
        disparity: tuple[float, float],
        misalignment: float,
    ) -> StereoPair:
        """A pair, a batch of 1.

        Args:
            rng: decides everything.
            size: (H, W) of the pair.
            disparity: range of the disparity of the near scene, as a part of the width.
            misalignment: largest vertical error of the right view in pixels at a width of 256.

        Raises:
            UsageError: nowhere is enough depth known (E112).
            ImageError: too many frames cannot be read (E106).
        """
        for _ in range(ATTEMPTS):
            picture = self._picture(rng, size)
            known = picture.depth > 0
            if known.mean() >= LEAST_KNOWN:
                break
        else:
            raise UsageError(Code.UNREADABLE_LIST, self.folder, "hardly any depth is known")
        near = float(np.quantile(picture.depth[known], 0.05))
        wanted = rng.uniform(*disparity) * size[1]
        # Nearer than that is the noise of a few pixels.
        depth = np.maximum(picture.depth, 0.5 * near)
        truth = filled(np.where(known, wanted * near / depth, 0).astype(np.float32), known)
        right, right_disparity = warp_right(picture.gray, truth)
        hole = right_disparity == 0
        right[hole] = self._picture(rng, size).gray[hole]
        left_truth, right_truth = (torch.from_numpy(x)[None] for x in (truth, right_disparity))
        valid = torch.from_numpy(known)[None]
        error = misalignment * size[1] / 256 * (rng.random() < 0.6)
        moved = Misalignment(error * rng.uniform(-1, 1), error * rng.uniform(-1, 1) / size[1])
        views = [torch.from_numpy(lit(rng, view))[None, None] for view in (picture.gray, right)]
        return StereoPair(
            left=views[0],
            right=misaligned(views[1], moved),
            disparity=left_truth * valid,
            occluded=occluded_in(left_truth, right_truth) & valid,
            valid=valid,
        )

    def _picture(self, rng: np.random.Generator, size: tuple[int, int]) -> Picture:
        return cut(rng, self._readable[int(rng.integers(len(self.frames)))], size)


def cut(rng: np.random.Generator, frame: Picture, size: tuple[int, int]) -> Picture:
    """A random part of a frame, mirrored half of the time, at (H, W)."""
    rows, columns = frame.gray.shape
    scale = min(rows / size[0], columns / size[1]) * rng.uniform(*PARTS)
    height, width = size[0] * scale / rows, size[1] * scale / columns
    top, left = rng.uniform(0, 1 - height), rng.uniform(0, 1 - width)
    parts = []
    for values, way in ((frame.gray, cv2.INTER_AREA), (frame.depth, cv2.INTER_NEAREST)):
        h, w = values.shape
        y0, x0 = int(top * h), int(left * w)
        y1, x1 = max(y0 + 1, int((top + height) * h)), max(x0 + 1, int((left + width) * w))
        parts.append(cv2.resize(values[y0:y1, x0:x1], size[::-1], interpolation=way))
    if rng.random() < 0.5:
        parts = [part[:, ::-1].copy() for part in parts]
    return Picture(*parts)


def warp_right(left: np.ndarray, disparity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The right view of (H, W) pixels with an (H, W) disparity above 0, and its own disparity.

    Neighbors of a row whose disparities differ by less than a pixel are one surface, which is
    linear between them; of surfaces at one place the nearest is seen. Both are 0 where there is
    none.
    """
    height, width = left.shape
    column = np.arange(width, dtype=np.float32)
    start, step = (column - disparity)[:, :-1], 1 - np.diff(disparity, axis=1)
    seen = np.zeros((height, width), np.float32)
    joined = (step > 0) & (step < 2)
    first = np.ceil(start)
    for k in range(2):  # Pixels of the right view between two neighbors of the left one.
        place = first + k
        part = (place - start) / np.where(joined, step, 1)
        inside = joined & (part <= 1) & (place >= 0) & (place < width)
        row, source = np.nonzero(inside)
        shown = source + part[inside] - place[inside]
        np.maximum.at(seen, (row, place[inside].astype(int)), shown.astype(np.float32))
    rows = np.broadcast_to(np.arange(height, dtype=np.float32)[:, None], seen.shape)
    right = cv2.remap(left, column + seen, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.where(seen > 0, right, 0).astype(np.float32), seen


def lit(rng: np.random.Generator, view: np.ndarray) -> np.ndarray:
    """A view with an exposure, a contrast and noise of its own."""
    gamma, gain = np.exp(rng.normal(0, 0.08)), np.exp(rng.normal(0, 0.08))
    noise = rng.normal(0, rng.uniform(0, 0.02), view.shape)
    return (gain * view**gamma + noise).clip(0, 1).astype(np.float32)
