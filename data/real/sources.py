"""The sources of real pairs that a configuration can name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from data.config import NO_FRAMES, VALIDATED_BY, FilesConfig, Source
from data.real.colmap import ColmapPairs
from data.real.megadepth import MegaDepthPairs, listed_indices
from data.real.rgbd import RgbdPairs
from data.real.scannet import ScanNetPairs
from matcher.errors import UsageError

RealPairs = MegaDepthPairs | ScanNetPairs | RgbdPairs | ColmapPairs


def training_pairs(source: Source, config: FilesConfig) -> RealPairs:
    """The pairs to train on.

    Raises:
        UsageError, StorageError: a missing path or a file that is not what it should be.
    """
    root, index = config.root, config.index
    options: dict[str, Any] = {"framing": config.framing}
    if source == "rgbd":
        frames, overlap = config.frames, config.overlap
        return RgbdPairs(_given("root", root), frames=frames, overlap=overlap, **options)
    if source == "colmap":
        folders = _given("root", root), _given("index", index)
        return ColmapPairs(*folders, overlap=config.overlap, **options)
    indices = listed_indices(_given("index", index), _given("scenes", config.scenes))
    if source == "megadepth":
        return MegaDepthPairs(_given("root", root), indices, overlap=config.overlap, **options)
    return ScanNetPairs(
        _given("root", root),
        indices,
        _given("intrinsics", config.intrinsics),
        min_overlap=config.overlap[0],
        **options,
    )


def validation_pairs(source: Source, config: FilesConfig) -> RealPairs | None:
    """The pairs to validate on, None where the configuration names none.

    Raises:
        UsageError, StorageError: as `training_pairs`.
    """
    if not config.validation_named:
        return None
    if "val_scenes" in VALIDATED_BY[source]:
        _given("val_scenes", config.val_scenes)
    other = replace(
        config,
        root=config.val_root or config.root,
        index=config.val_index or config.index,
        scenes=config.val_scenes,
        intrinsics=config.val_intrinsics or config.intrinsics,
        frames=config.frames if config.val_frames == NO_FRAMES else config.val_frames,
    )
    return training_pairs(source, other)


def _given(name: str, path: str) -> Path:
    if not path:
        raise UsageError(204, f"data.files.{name}", "is not set", "give the path")
    return Path(path)
