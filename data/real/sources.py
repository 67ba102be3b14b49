"""The sources of real pairs that a configuration can name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from data.config import READ_BY, FilesConfig, Source
from data.real.colmap import ColmapPairs, ColmapScenes
from data.real.megadepth import MegaDepthPairs, listed_indices, listed_names
from data.real.readers import FilePairs
from data.real.rgbd import RgbdPairs
from data.real.scannet import ScanNetPairs
from matcher.errors import Code, UsageError
from matcher.validation.checked import invalid


def training_pairs(source: Source, config: FilesConfig) -> FilePairs:
    """The pairs to train on.

    Raises:
        UsageError, StorageError: a missing path or a file that is not what it should be.
    """
    framing, overlap = config.framing, config.overlap
    if source == "colmap":
        scenes = colmap_scenes(config)
        # A pattern with a slip would let all pictures in.
        for pattern in config.exclude:
            if not any(scene.named(pattern).any() for scene in scenes.scenes):
                raise invalid("data.files.exclude", pattern, "the name or pattern of a picture")
        return scenes
    if source == "rgbd":
        root = _given("root", config.root)
        return RgbdPairs(root, frames=config.frames, overlap=overlap, framing=framing)
    indices = listed_indices(_given("index", config.index), _given("scenes", config.scenes))
    root = _given("root", config.root)
    if source == "megadepth":
        return MegaDepthPairs(root, indices, overlap=overlap, framing=framing)
    K = _given("intrinsics", config.intrinsics)
    return ScanNetPairs(root, indices, K, min_overlap=overlap[0], framing=framing)


def colmap_scenes(config: FilesConfig) -> ColmapScenes:
    """The COLMAP models; errors are those of `ColmapPairs` and `listed_names`."""
    root = _given("root", config.root)
    options: dict[str, Any] = {n: getattr(config, n) for n in ("exclude", "overlap", "framing")}
    if config.index and not config.scenes:
        listed = Path(config.pairs) if config.pairs else None
        return ColmapScenes([ColmapPairs(root, config.index, listed=listed, **options)])
    names = listed_names(Path(config.scenes)) if config.scenes else [""]
    scenes = []
    for name in names:
        folder = root / name
        listed = folder / config.pairs if config.pairs else None
        model = folder / (config.index or "sparse")
        scenes.append(ColmapPairs(folder / "images", model, listed=listed, scene=name, **options))
    return ColmapScenes(scenes)


def validation_pairs(source: Source, config: FilesConfig) -> FilePairs | None:
    """The pairs to validate on, None where the configuration names none; errors are those of
    `training_pairs`."""
    named = [name for name in config.given if name.startswith("val_")]
    if not named:
        return None
    if "val_scenes" in READ_BY[source]:
        _given("val_scenes", config.val_scenes)
    other = replace(
        config,
        root=config.val_root or config.root,
        index=config.val_index or config.index,
        scenes=config.val_scenes,
        intrinsics=config.val_intrinsics or config.intrinsics,
        frames=config.val_frames if "val_frames" in named else config.frames,
    )
    return colmap_scenes(other) if source == "colmap" else training_pairs(source, other)


def _given(name: str, path: str) -> Path:
    if not path:
        raise UsageError(Code.UNUSABLE_WORD, f"data.files.{name}", "is not set", "give the path")
    return Path(path)
