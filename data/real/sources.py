"""The sources of real pairs that a configuration can name."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from data.real.colmap import ColmapPairs
from data.real.megadepth import MegaDepthPairs, listed_indices
from data.real.readers import Framing
from data.real.rgbd import RgbdPairs
from data.real.scannet import ScanNetPairs
from matcher.config import invalid, require_choice, require_positive, require_range
from matcher.errors import Code, UsageError

NO_FRAMES = (0, 0)

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
    """`root` of the validation, which takes rendered scenes where no `val_` option is given."""
    val_index: str = ""
    """MegaDepth, ScanNet, COLMAP: `index` of the validation."""
    val_scenes: str = ""
    """MegaDepth, ScanNet: `scenes` of the validation."""
    val_intrinsics: str = ""
    """ScanNet: `intrinsics` of the validation."""
    frames: tuple[int, int] = (0, 10**9)
    """RGB-D: numbers (first, behind the last) of the training frames."""
    val_frames: tuple[int, int] = NO_FRAMES
    """RGB-D: those of the validation."""
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


VALIDATED_BY = {
    "megadepth": ("val_root", "val_index", "val_scenes"),
    "scannet": ("val_root", "val_index", "val_scenes", "val_intrinsics"),
    "rgbd": ("val_root", "val_frames"),
    "colmap": ("val_root", "val_index"),
}
"""What names the pairs of each source to validate on."""
SOURCES = tuple(VALIDATED_BY)


def training_pairs(source: str, config: FilesConfig) -> RealPairs:
    """The pairs to train on.

    Raises:
        UsageError, StorageError: a missing path or a file that is not what it should be.
    """
    require_choice("data.source", source, SOURCES)
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


def validation_pairs(source: str, config: FilesConfig) -> RealPairs | None:
    """The pairs to validate on, None where the configuration names none.

    Raises:
        UsageError, StorageError: as `training_pairs`.
    """
    if not _named_for_validation(config):
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


def require_validated_by(source: str, config: FilesConfig) -> None:
    """Whether all that `config` names to validate on has a meaning for the source.

    Raises:
        UsageError: an option that would do nothing.
    """
    for name in _named_for_validation(config):
        if name not in VALIDATED_BY[source]:
            expected = f"nothing: data.source={source} takes {', '.join(VALIDATED_BY[source])}"
            raise invalid(f"data.files.{name}", getattr(config, name), expected)


def _named_for_validation(config: FilesConfig) -> list[str]:
    names = [f.name for f in fields(FilesConfig) if f.name.startswith("val_")]
    return [n for n in names if (value := getattr(config, n)) and value != NO_FRAMES]


def _given(name: str, path: str) -> Path:
    if not path:
        raise UsageError(Code.UNUSABLE_WORD, f"data.files.{name}", "is not set", "give the path")
    return Path(path)
