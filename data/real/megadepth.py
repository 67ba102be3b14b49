"""MegaDepth in LoFTR's layout: scene indices, undistorted images, depth maps as HDF5."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from torch.utils.data import Dataset

from data.order import Key
from data.real.index import SceneIndex, read_scene_index
from data.real.readers import Framing, join, make_view, read_depth, read_gray
from matcher.errors import Code, UsageError
from matcher.structures import ImagePair


@dataclass(frozen=True)
class PairFiles:
    """Where the two sides of a pair are, and their cameras."""

    images: tuple[Path, Path]
    depths: tuple[Path, Path]
    K: tuple[np.ndarray, np.ndarray]
    T_0to1: np.ndarray
    overlap: float
    names: tuple[str, str]


class MegaDepthPairs(Dataset[ImagePair]):
    """All pairs of the given scene indices whose overlap is in range.

    Args:
        root: the folder that image and depth paths start from.
        indices: scene index files.
        overlap: kept are pairs with low < overlap <= high.
        framing: of the network images.
    """

    def __init__(
        self,
        root: str | Path,
        indices: Sequence[Path],
        *,
        overlap: tuple[float, float] = (0.0, 1.0),
        framing: Framing | None = None,
    ) -> None:
        self.root = Path(root)
        self.framing = framing or Framing()
        self.scenes = [read_scene_index(path) for path in indices]
        low, high = overlap
        self.kept = [np.flatnonzero((s.overlap > low) & (s.overlap <= high)) for s in self.scenes]
        self.counts = tuple(len(rows) for rows in self.kept)
        """Pairs of each scene, for `data.order.SceneBalanced`."""
        self.first = np.cumsum([0, *self.counts])

    def __len__(self) -> int:
        return int(self.first[-1])

    def __getitem__(self, key: int | Key) -> ImagePair:
        files = self.files(key[1] if isinstance(key, tuple) else key)
        views = [
            make_view(read_gray(image), read_depth(depth), K, self.framing)
            for image, depth, K in zip(files.images, files.depths, files.K, strict=True)
        ]
        return join(views[0], views[1], files.T_0to1, files.names)

    def files(self, index: int) -> PairFiles:
        """Pair `index` without reading its pictures."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = int(np.searchsorted(self.first, index, side="right")) - 1
        scene = self.scenes[number]
        row = int(self.kept[number][index - self.first[number]])
        return pair_files(self.root, scene, row)


def pair_files(root: Path, scene: SceneIndex, row: int) -> PairFiles:
    """Files and cameras of pair `row` of a scene."""
    i, j = scene.pairs[row].tolist()
    images = find_image(root, scene, i), find_image(root, scene, j)
    return PairFiles(
        images,
        (root / scene.depth_paths[i], root / scene.depth_paths[j]),
        (scene.intrinsics[i], scene.intrinsics[j]),
        scene.poses[j] @ np.linalg.inv(scene.poses[i]),
        float(scene.overlap[row]),
        (scene.image_paths[i], scene.image_paths[j]),
    )


def find_image(root: Path, scene: SceneIndex, i: int) -> Path:
    """Image `i`: where the index says (D2-Net's undistorted copy), or else among MegaDepth's own
    images, in ``imgs`` beside the folder of its depth map."""
    undistorted = root / scene.image_paths[i]
    if undistorted.is_file():
        return undistorted
    depth = PurePosixPath(scene.depth_paths[i])
    name = PurePosixPath(scene.image_paths[i]).name
    own = root / depth.parent.parent / "imgs" / name
    return own if own.is_file() else undistorted


def listed_indices(folder: str | Path, names: str | Path) -> list[Path]:
    """Index files of a list, one name a line, with or without suffix; an HDF5 file beside the
    named one is preferred.

    Raises:
        UsageError: the list is missing or empty.
    """
    folder, names = Path(folder), Path(names)
    if not names.is_file():
        raise UsageError(Code.MISSING_FILE, names, "no such list of scenes")
    found = []
    for line in names.read_text().split():
        stem = line.removesuffix(".npz").removesuffix(".h5")
        converted = folder / f"{stem}.h5"
        found.append(converted if converted.is_file() else folder / f"{stem}.npz")
    if not found:
        raise UsageError(Code.UNREADABLE_LIST, names, "lists no scene")
    return found
