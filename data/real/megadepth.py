"""MegaDepth in LoFTR's layout: scene indices, undistorted images, depth maps as HDF5."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from data.config import Framing
from data.real.index import SceneIndex, read_scene_index
from data.real.readers import FilePairs, join, make_view, read_depth, read_gray
from matcher.errors import Code, UsageError
from matcher.files import read_text
from matcher.structures import ImagePair


class PairFiles(NamedTuple):
    """Where the two sides of a pair are, and their cameras."""

    images: tuple[Path, Path]
    depths: tuple[Path, Path]
    K: tuple[np.ndarray, np.ndarray]
    T_0to1: np.ndarray
    names: tuple[str, str]


class MegaDepthPairs(FilePairs):
    """All pairs of the given scene indices whose overlap is in range.

    Args:
        root: the folder that image and depth paths start from.
        indices: scene index files.
        overlap: kept are pairs with low < overlap <= high.
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
        super().__init__([len(rows) for rows in self.kept])

    def read(self, scene: int, row: int) -> ImagePair:
        files = pair_files(self.root, self.scenes[scene], int(self.kept[scene][row]))
        views = [
            make_view(read_gray(image), read_depth(depth), K, self.framing)
            for image, depth, K in zip(files.images, files.depths, files.K, strict=True)
        ]
        return join(views, files.T_0to1, files.names)


def pair_files(root: Path, scene: SceneIndex, row: int) -> PairFiles:
    """Files and cameras of pair `row` of a scene."""
    i, j = scene.pairs[row].tolist()
    return PairFiles(
        (find_image(root, scene, i), find_image(root, scene, j)),
        (root / scene.depth_paths[i], root / scene.depth_paths[j]),
        (scene.intrinsics[i], scene.intrinsics[j]),
        scene.poses[j] @ np.linalg.inv(scene.poses[i]),
        (scene.image_paths[i], scene.image_paths[j]),
    )


def find_image(root: Path, scene: SceneIndex, i: int) -> Path:
    """Image `i`: where the index says (D2-Net's undistorted copy), or else among MegaDepth's own
    images, in ``imgs`` beside the folder of its depth map."""
    undistorted = root / scene.image_paths[i]
    own = root / PurePosixPath(scene.depth_paths[i]).parent.parent / "imgs" / undistorted.name
    return own if own.is_file() and not undistorted.is_file() else undistorted


def listed_indices(folder: str | Path, names: str | Path) -> list[Path]:
    """Index files of a list as of `listed_names`, with or without suffix; an HDF5 file beside the
    named one is preferred."""
    stems = [n.removesuffix(".npz").removesuffix(".h5") for n in listed_names(Path(names))]
    both = [(Path(folder) / f"{stem}.h5", Path(folder) / f"{stem}.npz") for stem in stems]
    return [converted if converted.is_file() else npz for converted, npz in both]


def listed_names(path: Path) -> list[str]:
    """The scenes of a list, one a line.

    Raises:
        UsageError: the list is missing or empty.
    """
    names = read_text(path, "list of scenes").split()
    if not names:
        raise UsageError(Code.UNREADABLE_LIST, path, "lists no scene")
    return names
