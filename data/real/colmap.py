"""Own pictures with COLMAP models: poses, and depth at the triangulated points."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import cv2
import numpy as np

from data.config import Framing
from data.real.colmap_model import ColmapImage, ColmapModel, read_model
from data.real.readers import (
    FilePairs,
    View,
    fitted_intrinsics,
    join,
    make_view,
    numbered_lines,
    read_gray,
)
from matcher.errors import Code, UsageError
from matcher.geometry.pixels import original_to_network
from matcher.structures import ImagePair
from matcher.validation.checked import invalid

logger = logging.getLogger(__name__)

MIN_POINTS = 50
POINTS_AT_ONCE = 4096
PATCH = 4
"""A point's depth stands for the network pixels up to so far around it: coarse labels only."""


class ColmapPairs(FilePairs):
    """Pairs of pictures of one model: those of a list, or all that see common points.

    Args:
        images: the folder of the pictures.
        model: the folder of ``cameras``, ``images`` and ``points3D``, ``.bin`` or ``.txt``.
        listed: file of lines ``name0 name1 overlap``; None makes pairs from common points.
        exclude: names of pictures that are never used; ``*``, ``?`` and ``[...]`` as in a shell.
        scene: put before the names of pictures, and allowed before the names to exclude.
        overlap: range of the listed overlaps, or of common points over the points of the picture
            that has fewer.

    Raises:
        UsageError, ImageError: as `read_model` and `listed_overlaps`.
    """

    def __init__(
        self,
        images: str | Path,
        model: str | Path,
        *,
        listed: str | Path | None = None,
        exclude: Sequence[str] = (),
        scene: str = "",
        overlap: tuple[float, float] = (0.1, 0.8),
        framing: Framing | None = None,
    ) -> None:
        self.folder = Path(images)
        self.model = read_model(Path(model))
        prefix = f"{scene}/" if scene else ""
        self.names = [prefix + image.name for image in self.model.images]
        self.framing = framing or Framing()
        if listed is None:
            shared = shared_points(self.model)
        else:
            shared = listed_overlaps(self.model, Path(listed))
        used = ~np.any([self.named(pattern) for pattern in exclude] or [False], axis=0)
        chosen = (shared >= overlap[0]) & (shared <= overlap[1]) & used & used[..., None]
        self.pairs = np.argwhere(chosen)
        super().__init__([len(self.pairs)])

    def named(self, pattern: str) -> np.ndarray:
        """(N,) bool: the pictures that a pattern names, with or without their scene."""
        names = zip(self.names, (image.name for image in self.model.images), strict=True)
        return np.array(
            [any(pattern == name or fnmatchcase(name, pattern) for name in both) for both in names],
            bool,
        )

    def read(self, scene: int, row: int) -> ImagePair:
        i, j = self.pairs[row].tolist()
        first, second = self.model.images[i], self.model.images[j]
        T_0to1 = second.pose @ np.linalg.inv(first.pose)
        return join((self.view(first), self.view(second)), T_0to1, (self.names[i], self.names[j]))

    def view(self, image: ColmapImage) -> View:
        """The picture with depth where points are; errors are those of `read_gray` and
        `fitted_intrinsics`."""
        path, camera = self.folder / image.name, image.camera
        gray = read_gray(path)
        height, width = gray.shape
        K = fitted_intrinsics(camera.K, camera.size, (height, width), path)
        size = self.framing.content(height, width)
        scale = np.array([camera.size[1] / size[1], camera.size[0] / size[0]])
        position = np.array([self.model.points[i] for i in image.points3d.tolist()])
        z = position.reshape(-1, 3) @ image.pose[2, :3] + image.pose[2, 3]
        depth = splat(original_to_network(image.points2d, scale), z, size)
        return make_view(gray, depth, K, self.framing)


class ColmapScenes(FilePairs):
    """The pairs of several models, one after the other."""

    def __init__(self, scenes: Sequence[ColmapPairs]) -> None:
        self.scenes = tuple(scenes)
        super().__init__([len(scene) for scene in scenes])

    def read(self, scene: int, row: int) -> ImagePair:
        return self.scenes[scene][row]


def splat(points: np.ndarray, z: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W) depth, the nearest of the points within `PATCH` pixels, 0 where there is none."""
    height, width = (n + 2 * PATCH for n in size)
    depth = np.full((height, width), np.inf, np.float32)
    x, y = np.rint(points).astype(int).T + PATCH
    kept = (z > 0) & (x >= 0) & (x < width) & (y >= 0) & (y < height)
    np.minimum.at(depth, (y[kept], x[kept]), z[kept].astype(np.float32))
    nearest = cv2.erode(depth, np.ones((2 * PATCH + 1, 2 * PATCH + 1), np.uint8))
    return np.where(np.isfinite(nearest), nearest, 0)[PATCH:-PATCH, PATCH:-PATCH]


def shared_points(model: ColmapModel) -> np.ndarray:
    """(N, N) common points over the points of the picture that has fewer, for i < j; NaN where
    there are less than `MIN_POINTS`."""
    common = common_points(model)
    own = np.maximum(common.diagonal(), 1)
    share = common / np.minimum(own[:, None], own)
    return np.where(np.triu(common >= MIN_POINTS, k=1), share, np.nan)


def common_points(model: ColmapModel) -> np.ndarray:
    """(N, N) number of points that two pictures both see; on the diagonal those of one."""
    column = {point: i for i, point in enumerate(model.points)}
    visible = [np.unique([column[p] for p in image.points3d.tolist()]) for image in model.images]
    total = np.zeros((len(visible), len(visible)), np.float32)
    for start in range(0, len(column), POINTS_AT_ONCE):
        table = np.zeros((len(visible), POINTS_AT_ONCE), np.float32)
        for row, columns in zip(table, visible, strict=True):
            low, high = np.searchsorted(columns, (start, start + POINTS_AT_ONCE))
            row[columns[low:high].astype(int) - start] = 1
        total += table @ table.T
    return total.astype(int)


def listed_overlaps(model: ColmapModel, path: Path) -> np.ndarray:
    """(N, N) listed overlap of picture i with j, NaN where none is.

    Lines are ``name0 name1 overlap``, with tabs between if names have spaces; more words and ``#``
    lines are passed over.

    Raises:
        UsageError: no such file (E111), a line that is not like that (E201), or no pair of the
            list is of this model (E112).
    """
    listed: dict[tuple[str, str], float] = {}
    for row, line in numbered_lines(path):
        try:
            name0, name1, overlap = (line.split("\t") if "\t" in line else line.split())[:3]
            listed[name0, name1] = float(overlap)
        except ValueError:
            raise invalid(f"{path}, line {row}", line[:60], "name0 name1 overlap") from None
    number = {image.name: i for i, image in enumerate(model.images)}
    known = [pair for pair in listed if number.keys() >= set(pair)]
    if not known:
        raise UsageError(Code.UNREADABLE_LIST, path, "lists no pair of two pictures of the model")
    if strangers := len(listed) - len(known):
        logger.warning("%s: %d of %d pairs are not of the model", path, strangers, len(listed))
    shared = np.full((len(number), len(number)), np.nan)
    for name0, name1 in known:
        shared[number[name0], number[name1]] = listed[name0, name1]
    return shared
