"""ScanNet in LoFTR's layout: ``<scene>/{color,depth,pose}`` with an index of pairs a scene."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data.config import Framing
from data.real.index import read_index, read_scannet_index
from data.real.megadepth import PairFiles
from data.real.readers import FilePairs, join, make_view, read_depth, read_gray, read_pose
from matcher.errors import Code, UsageError
from matcher.geometry.validity import usable_intrinsics
from matcher.structures import ImagePair

INTRINSICS_SIZE = (480, 640)
"""(H, W) of the pictures that the published intrinsics belong to."""


class ScanNetPairs(FilePairs):
    """All pairs of the given indices whose overlap is above a limit.

    Args:
        root: the folder of the scenes, such as ``data/scannet/train``.
        indices: npz or HDF5 files with ``name`` and, but for the test file, ``score``.
        intrinsics: npz or HDF5 file, a (3, 3) or (9,) matrix a scene.
        min_overlap: kept are pairs with a higher score; 0.4 is published.
        framing: of the network images; 640 x 480 by default.
    """

    def __init__(
        self,
        root: str | Path,
        indices: Sequence[Path],
        intrinsics: str | Path,
        *,
        min_overlap: float = 0.4,
        framing: Framing | None = None,
    ) -> None:
        self.root = Path(root)
        self.framing = framing or Framing(INTRINSICS_SIZE, keep_aspect=False)
        self.intrinsics = read_intrinsics(Path(intrinsics))
        rows = np.concatenate([_kept(path, min_overlap) for path in indices]).astype(np.uint16)
        scene = rows[:, 0].astype(np.int64) * 100 + rows[:, 1]
        self.rows = rows[np.argsort(scene, kind="stable")]
        super().__init__(np.unique(scene, return_counts=True)[1].tolist())

    def read(self, scene: int, row: int) -> ImagePair:
        files = self.files(int(self.first[scene]) + row)
        views = []
        for image, depth, K in zip(files.images, files.depths, files.K, strict=True):
            gray = read_gray(image)
            # Published K was scaled from the stored size without the half-pixel shift.
            height, width = gray.shape
            stretch = np.diag([width / INTRINSICS_SIZE[1], height / INTRINSICS_SIZE[0], 1.0])
            views.append(make_view(gray, read_depth(depth), stretch @ K, self.framing))
        return join(views, files.T_0to1, files.names)

    def files(self, index: int) -> PairFiles:
        """Pair `index` without reading its pictures; K belongs to 640 x 480."""
        number, sub, *frames = self.rows[index].tolist()
        scene = f"scene{number:04d}_{sub:02d}"
        if scene not in self.intrinsics:
            raise UsageError(Code.UNREADABLE_LIST, "intrinsics", f"have no {scene}")
        folder, K = self.root / scene, self.intrinsics[scene]
        name0, name1 = (f"{scene}/color/{f}.jpg" for f in frames)
        depth0, depth1 = (folder / "depth" / f"{f}.png" for f in frames)
        # Camera-to-world on disk.
        world0, world1 = (read_pose(folder / "pose" / f"{f}.txt") for f in frames)
        images = self.root / name0, self.root / name1
        T_0to1 = np.linalg.inv(world1) @ world0
        return PairFiles(images, (depth0, depth1), (K, K), T_0to1, (name0, name1))


def read_intrinsics(path: Path) -> dict[str, np.ndarray]:
    """(3, 3) of every scene in an npz or HDF5 file of (3, 3) or (9,) matrices.

    Raises:
        UsageError: no such file.
        StorageError: not such a file, or a matrix that is none of a camera.
    """

    def parse(arrays: dict[str, Any]) -> dict[str, np.ndarray]:
        return {s: usable_intrinsics(np.asarray(K).reshape(3, 3)) for s, K in arrays.items()}

    return read_index(path, parse)


def _kept(path: Path, min_overlap: float) -> np.ndarray:
    rows, scores = read_scannet_index(path)
    return rows if scores is None else rows[scores > min_overlap]
