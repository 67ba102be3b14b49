"""The sources of real pairs that a configuration can name."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from data.colmap import ColmapPairs
from data.megadepth import MegaDepthPairs, listed_indices
from data.readers import Framing
from data.rgbd import RgbdPairs
from data.scannet import ScanNetPairs
from matcher.config import require_choice, require_positive, require_range
from matcher.errors import UsageError
from matcher.structures import ImagePair

RealPairs = MegaDepthPairs | ScanNetPairs | RgbdPairs | ColmapPairs


@dataclass(frozen=True)
class FilesConfig:
    """Pairs in files. Paths that stay empty have no use in the chosen source."""

    root: str = ""
    """Folder of the pictures: of the index paths (megadepth), the scenes (scannet), the sequence
    (rgbd) or the pictures of the model (colmap)."""
    index: str = ""
    """Folder of the pair indices (megadepth, scannet) or of the model (colmap)."""
    scenes: str = ""
    """List of the indices to train on."""
    intrinsics: str = ""
    """File of ScanNet's intrinsics."""
    val_root: str = ""
    val_index: str = ""
    val_scenes: str = ""
    """Where validation differs from training; with none of them rendered scenes are validated."""
    val_intrinsics: str = ""
    frames: tuple[int, int] = (0, 10**9)
    """RGB-D: numbers (first, behind the last) of the training frames."""
    val_frames: tuple[int, int] = (0, 0)
    overlap: tuple[float, float] = (0.1, 0.9)
    """Kept pairs; ScanNet uses the lower limit."""
    per_scene: int = 100
    """Pairs of every scene in an epoch."""
    framing: Framing = field(default_factory=Framing)
    augment: float = 0.0
    """Strength of other light, blur, noise and compression of training pictures; 0: as published"""

    def __post_init__(self) -> None:
        for name in ("overlap", "frames", "val_frames"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        require_positive("data.files.per_scene", self.per_scene)
        require_range("data.files.augment", self.augment, 0, 2)


SOURCES = ("megadepth", "scannet", "rgbd", "colmap")


def training_pairs(source: str, config: FilesConfig) -> RealPairs:
    """The pairs to train on.

    Raises:
        UsageError, StorageError: a missing path or a file that is not what it should be.
    """
    return _pairs(source, config, config.root, config.index, config.scenes, config.frames)


def validation_pairs(source: str, config: FilesConfig) -> Dataset[ImagePair] | None:
    """The pairs to validate on, None where the configuration names none."""
    first, last = config.val_frames
    if last > first:
        return _pairs(source, config, config.root, config.index, config.scenes, config.val_frames)
    if not config.val_scenes and not config.val_root:
        return None
    root, index = config.val_root or config.root, config.val_index or config.index
    return _pairs(
        source, config, root, index, config.val_scenes, config.frames, config.val_intrinsics
    )


def _pairs(
    source: str,
    config: FilesConfig,
    root: str,
    index: str,
    scenes: str,
    frames: tuple[int, int],
    intrinsics: str = "",
) -> RealPairs:
    require_choice("data.source", source, SOURCES)
    options: dict[str, Any] = {"framing": config.framing}
    if source == "rgbd":
        return RgbdPairs(_given("root", root), frames=frames, overlap=config.overlap, **options)
    if source == "colmap":
        folders = _given("root", root), _given("index", index)
        return ColmapPairs(*folders, overlap=config.overlap, **options)
    indices = listed_indices(_given("index", index), _given("scenes", scenes))
    if source == "megadepth":
        return MegaDepthPairs(_given("root", root), indices, overlap=config.overlap, **options)
    return ScanNetPairs(
        _given("root", root),
        indices,
        _given("intrinsics", intrinsics or config.intrinsics),
        min_overlap=config.overlap[0],
        **options,
    )


def _given(name: str, path: str) -> Path:
    if not path:
        raise UsageError(204, f"data.files.{name}", "is not set", "give the path")
    return Path(path)
