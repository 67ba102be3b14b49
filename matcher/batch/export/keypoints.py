"""Matches of many pairs to keypoints of each image that pairs share.

Points of an image that fall into the same cell of a grid become one keypoint. Cells are centered
on multiples of their side, as the points that the network starts from are at full size.

Memory holds the points of few images at a time: the points of all pairs go through scratch files,
which have no name and so are gone with the process, however it ends.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from matcher.batch.run import Run
from matcher.batch.shards import MATCHES, NO_MATCH
from matcher.errors import unwritable
from matcher.results.formats import REFINED
from matcher.validation.checked import invalid

POINT = np.dtype([("image", "i4"), ("x", "f4"), ("y", "f4"), ("score", "f4")])
KEYPOINT = np.dtype([("cell", "i8"), ("x", "f4"), ("y", "f4"), ("score", "f4"), ("left", "?")])
"""`left`: its matches are left out."""
SCRATCH_POINTS = 2_000_000
"""Points a scratch file, as long as there are not too many files."""
MAX_SCRATCH_FILES = 256
BYTES_A_MATCH = 29


@dataclass(frozen=True)
class PairMatches:
    """Matches of two images by number."""

    image0: int
    image1: int
    keypoints0: np.ndarray
    """(M, 2) float32"""
    keypoints1: np.ndarray
    scores: np.ndarray
    """(M,) float32"""
    converged: np.ndarray | None = None
    """(M,) uint8; None: not refined"""
    correlation: np.ndarray | None = None
    """(M,) float32; None likewise"""
    quality: np.ndarray | None = None
    """(M,) float32; None likewise"""

    def sides(self) -> tuple[tuple[int, np.ndarray], tuple[int, np.ndarray]]:
        """Each image with its keypoints."""
        return (self.image0, self.keypoints0), (self.image1, self.keypoints1)


class Merged:
    """Keypoints of so many images, kept in a file, in order of their cells of `side` pixels."""

    def __init__(self, images: int, side: float, file: BinaryIO) -> None:
        self.counts = np.zeros(images, np.int64)
        """(images,) keypoints of each"""
        self._side = side
        self._file = file
        self._starts = np.zeros(images, np.int64)

    def add(self, image: int, points: np.ndarray) -> None:
        """Merge all points of an image, (M,) of `POINT`.

        A keypoint lies at the mean of the points of its cell, weighted by their scores, and has
        the best of the scores.
        """
        xy = np.stack([points["x"], points["y"]], axis=1)
        cells, index = np.unique(self._cells(xy), return_inverse=True)
        weight = np.maximum(points["score"].astype(np.float64), 1e-6)
        total = np.bincount(index, weight, len(cells))
        merged = np.zeros(len(cells), KEYPOINT)
        merged["cell"] = cells
        for axis in ("x", "y"):
            merged[axis] = np.bincount(index, weight * points[axis], len(cells)) / total
        np.maximum.at(merged["score"], index, points["score"])
        self._starts[image] = self._file.tell()
        self.counts[image] = len(merged)
        self._file.write(merged.tobytes())

    def keypoints(self, image: int) -> tuple[np.ndarray, np.ndarray]:
        """(K, 2) and (K,) float32 keypoints of an image and their scores."""
        keypoints = self._read(image)
        xy = np.stack([keypoints["x"], keypoints["y"]], axis=1)
        return xy, keypoints["score"].copy()

    def place(self, image: int, xy: np.ndarray, left: np.ndarray) -> None:
        """Put the keypoints of an image at (K, 2) and leave out the matches of some, (K,) bool; the
        others keep theirs."""
        keypoints = self._read(image).copy()
        keypoints["x"], keypoints["y"] = xy.T
        keypoints["left"] = left
        self._file.seek(self._starts[image])
        self._file.write(keypoints.tobytes())

    def matches(self, pair: PairMatches) -> tuple[np.ndarray, np.ndarray]:
        """(M, 2) uint32 matches of a pair as indices into keypoints, one to one, and (M,) scores.

        Of several matches of a keypoint the best is kept.
        """
        if pair.image0 == pair.image1 or not len(pair.scores):
            return np.zeros((0, 2), np.uint32), np.zeros(0, np.float32)
        ends, left = [], np.zeros(len(pair.scores), bool)
        for image, points in pair.sides():
            keypoints = self._read(image)
            ends.append(np.searchsorted(keypoints["cell"], self._cells(points)))
            left |= keypoints["left"][ends[-1]]
        index = np.stack(ends, axis=1)
        keep = one_to_one(index, pair.scores)
        keep = keep[~left[keep]]
        return index[keep].astype(np.uint32), pair.scores[keep]

    def _cells(self, points: np.ndarray) -> np.ndarray:
        """(M,) int64 number of the cell of (M, 2) points."""
        cell = np.floor(points / self._side + 0.5).astype(np.int64)
        return (cell[:, 1] << 32) + cell[:, 0]

    def _read(self, image: int) -> np.ndarray:
        self._file.seek(self._starts[image])
        return np.frombuffer(self._file.read(self.counts[image] * KEYPOINT.itemsize), KEYPOINT)


def pair_matches(run: Run, converged_only: bool = False) -> Iterator[PairMatches]:
    """Every pair of a finished run that was matched; those without a match are empty.

    Raises as `Run.read_all`, and `UsageError` (E201) if only matches whose refinement converged are
    wanted and nothing was refined.
    """
    for number, shard in run.read_all():
        first = run.range(number).start
        ends = np.cumsum(shard.count)
        for i in np.flatnonzero(shard.status <= NO_MATCH):
            part = slice(int(ends[i] - shard.count[i]), int(ends[i]))
            image0, image1 = run.pairs.index[first + i].tolist()
            columns = {name: getattr(shard, name) for name in (*MATCHES, *REFINED)}
            of_pair = {name: v[part] for name, v in columns.items() if v is not None}
            if converged_only and shard.count[i]:
                if "converged" not in of_pair:
                    raise invalid("converged_only", True, "false for a run with refine=none")
                kept = of_pair["converged"] > 0
                of_pair = {name: values[kept] for name, values in of_pair.items()}
            yield PairMatches(image0, image1, **of_pair)


@contextmanager
def merged_keypoints(run: Run, side: float, converged_only: bool = False) -> Iterator[Merged]:
    """Keypoints of all images of a finished run, in cells of `side` pixels; pairs of an image with
    itself do not count. Scratch files lie in the folder of the run.

    Raises as `Run.read_all`, and `StorageError` (E401) if there is no room.
    """
    with ExitStack() as files:
        try:
            merged = Merged(len(run.pairs.names), side, files.enter_context(_scratch(run.folder)))
            with ExitStack() as scratch:
                for file in _spread(run, scratch, converged_only):
                    _merge_file(file, merged)
        except OSError as error:
            raise unwritable(run.folder, error, "free some space") from error
        yield merged


def one_to_one(index: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Matches to keep, in order: every keypoint once, the best scores first; of (M, 2) keypoints
    in image 0 and image 1 and (M,) scores."""
    order = np.argsort(-scores, kind="stable")
    for side in (0, 1):
        order = order[np.sort(np.unique(index[order, side], return_index=True)[1])]
    return np.sort(order)


def _scratch(folder: Path) -> BinaryIO:
    return tempfile.TemporaryFile(dir=folder)  # pyright: ignore[reportReturnType]


def _spread(run: Run, files: ExitStack, converged_only: bool) -> list[BinaryIO]:
    """The points of all pairs in scratch files, each image in one of them."""
    matches = sum(path.stat().st_size for path in run.done().values()) // BYTES_A_MATCH
    count = min(2 * matches // SCRATCH_POINTS + 1, MAX_SCRATCH_FILES)
    scratch = [files.enter_context(_scratch(run.folder)) for _ in range(count)]
    for pair in pair_matches(run, converged_only):
        if pair.image0 == pair.image1:
            continue
        for image, points in pair.sides():
            entries = np.empty(len(points), POINT)
            entries["image"], entries["score"] = image, pair.scores
            entries["x"], entries["y"] = points.T
            scratch[image % count].write(entries.tobytes())
    return scratch


def _merge_file(file: BinaryIO, merged: Merged) -> None:
    file.seek(0)
    points = np.frombuffer(file.read(), POINT)
    points = points[np.argsort(points["image"], kind="stable")]
    file.truncate(0)
    images, starts = np.unique(points["image"], return_index=True)
    for image, of_image in zip(images.tolist(), np.split(points, starts[1:]), strict=False):
        merged.add(image, of_image)
