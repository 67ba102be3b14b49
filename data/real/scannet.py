"""ScanNet in LoFTR's layout: ``<scene>/{color,depth,pose}`` with an index of pairs a scene."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch.utils.data import Dataset

from data.order import Key
from data.real.index import read_arrays, read_scannet_index
from data.real.megadepth import PairFiles
from data.real.readers import Framing, join, make_view, read_depth, read_gray, read_pose
from matcher.errors import Code, UsageError
from matcher.structures import ImagePair

INTRINSICS_SIZE = (480, 640)
"""(H, W) of the pictures that the published intrinsics belong to."""


class ScanNetPairs(Dataset[ImagePair]):
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
        self.intrinsics = {
            scene: K.astype(float).reshape(3, 3)
            for scene, K in read_arrays(Path(intrinsics)).items()
        }
        tables = [_kept(path, min_overlap) for path in indices]
        self.rows = np.concatenate([rows for rows, _ in tables]).astype(np.uint16)
        self.scores = np.concatenate([scores for _, scores in tables])
        scene = self.rows[:, 0].astype(np.int64) * 100 + self.rows[:, 1]
        self.order = np.argsort(scene, kind="stable")
        _, counts = np.unique(scene, return_counts=True)
        self.counts = tuple(counts.tolist())
        """Pairs of each scene, for `data.order.SceneBalanced`."""

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: int | Key) -> ImagePair:
        files = self.files(key[1] if isinstance(key, tuple) else key)
        views = []
        for image, depth, K in zip(files.images, files.depths, files.K, strict=True):
            gray = read_gray(image)
            # Published K was scaled from the stored size without the half-pixel shift.
            height, width = gray.shape
            stretch = np.diag([width / INTRINSICS_SIZE[1], height / INTRINSICS_SIZE[0], 1.0])
            views.append(make_view(gray, read_depth(depth), stretch @ K, self.framing))
        return join(views[0], views[1], files.T_0to1, files.names)

    def files(self, index: int) -> PairFiles:
        """Pair `index` without reading its pictures; K belongs to 640 x 480."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        row = int(self.order[index])
        number, sub, frame0, frame1 = self.rows[row].tolist()
        scene = f"scene{number:04d}_{sub:02d}"
        if scene not in self.intrinsics:
            raise UsageError(Code.UNREADABLE_LIST, "intrinsics", f"have no {scene}")
        folder, frames = self.root / scene, (frame0, frame1)
        # Camera-to-world on disk.
        world0, world1 = (read_pose(folder / "pose" / f"{f}.txt") for f in frames)
        return PairFiles(
            (folder / "color" / f"{frame0}.jpg", folder / "color" / f"{frame1}.jpg"),
            (folder / "depth" / f"{frame0}.png", folder / "depth" / f"{frame1}.png"),
            (self.intrinsics[scene], self.intrinsics[scene]),
            np.linalg.inv(world1) @ world0,
            float(self.scores[row]),
            (f"{scene}/color/{frame0}.jpg", f"{scene}/color/{frame1}.jpg"),
        )


def _kept(path: Path, min_overlap: float) -> tuple[np.ndarray, np.ndarray]:
    rows, scores = read_scannet_index(path)
    if scores is None:
        return rows, np.full(len(rows), np.nan, np.float32)
    kept = scores > min_overlap
    return rows[kept], scores[kept]
