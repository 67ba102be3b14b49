"""What a run trains on: frozen dataclasses, checked on construction."""

from __future__ import annotations

from dataclasses import field, fields
from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from matcher.validation.checked import (
    NotNegative,
    Positive,
    Share,
    Workers,
    checked,
    invalid,
)

FileSource = Literal["megadepth", "scannet", "rgbd", "colmap"]
SOURCES: tuple[FileSource, ...] = get_args(FileSource)
"""Sources of real pairs."""
Source = Literal["synthetic", FileSource]
Layout = Literal["plane", "room", "street", "clutter"]
"""A kind of rendered scene; `data.synthetic.layouts` draws them."""
Frames = tuple[NotNegative, NotNegative]
Strength = Annotated[float, Field(ge=0, le=2)]
Overlap = Annotated[tuple[Share, Share], Field(description="(low, high) in 0..1")]
Eighths = Annotated[int, Field(ge=8, multiple_of=8)]
READ_BY_ALL = ("root", "val_root", "overlap", "per_scene", "framing", "augment", "coarse_only")
READ_BY: dict[Source, tuple[str, ...]] = {
    "synthetic": (),
    "megadepth": (*READ_BY_ALL, "index", "scenes", "val_index", "val_scenes"),
    "scannet": (*READ_BY_ALL, "index", "scenes", "intrinsics",
                "val_index", "val_scenes", "val_intrinsics"),
    "rgbd": (*READ_BY_ALL, "frames", "val_frames"),
    "colmap": (*READ_BY_ALL, "index", "scenes", "pairs", "exclude", "val_index"),
}  # fmt: skip
"""What each source reads of `FilesConfig`."""


def require_unset(config: Any, name: str, beside: str, path: str = "data.") -> None:
    """Refuse (E201) an option of `config` that says something but does nothing beside another."""
    value, default = getattr(config, name), getattr(type(config), name)
    if value != default:
        plain = {None: "null", (): "[]"}.get(default, default)
        raise invalid(f"{path}{name}", value, f"{plain} beside {beside}, where nothing reads it")


@checked("data.synthetic.")
class SyntheticConfig:
    """What is drawn."""

    size: Annotated[
        tuple[Eighths, Eighths], Field(description="(height, width), multiples of 8")
    ] = (192, 256)
    """(H, W) of both images."""
    pairs: Positive = 10_000
    """Pairs an epoch."""
    mix: dict[Layout, Annotated[float, Field(ge=0)]] = field(
        default_factory=lambda: {"plane": 0.45, "room": 0.25, "street": 0.2, "clutter": 0.1}
    )
    """Relative frequency of the kinds of scene."""
    overlap: Overlap = (0.1, 0.9)
    """Range of the shared part of the images (the smaller of both ways)."""
    photos: str | None = None
    """Folder of photographs for texture; null paints with procedural textures alone."""
    photo_limit: Positive | None = None
    """Photographs read from `photos`, at most; null: all."""
    texture_side: Annotated[int, Field(ge=32, multiple_of=32)] = 384
    """Shorter side of the textures in pixels; with more, large images stay sharp."""
    procedural: Positive = 270
    """Number of procedural textures."""
    texture_seed: NotNegative = 0
    """Seed of the procedural textures: another one shows none that training has seen."""
    roll: Annotated[float, Field(ge=0, le=180)] = 0.0
    """Largest turn of camera 1 about its optical axis, in degrees, on top of a hand's roll."""
    roll_share: Share = 0.0
    """Share of the pairs with such a turn, uniform from -roll to roll."""
    strength: Strength = 1.0
    """Strength of the photometric differences; 0 turns them off."""
    seed: NotNegative = 0
    """Seed of the scenes; a training replaces it by its own."""

    def __post_init__(self) -> None:
        if not self.photos:
            require_unset(self, "photo_limit", "data.synthetic.photos=null", "data.synthetic.")
        if not self.overlap[0] < self.overlap[1]:
            raise invalid("data.synthetic.overlap", self.overlap, "(low, high) in 0..1")
        if not sum(self.mix.values()) > 0:
            raise invalid("data.synthetic.mix", self.mix, "a weight above 0")


@checked("data.files.framing.")
class Framing:
    """How pictures of any size become network images of one size."""

    size: tuple[Positive, Positive] = (832, 832)
    """(H, W) of the network image."""
    keep_aspect: bool = True
    """Fit the picture into `size` and pad at the bottom right; false stretches it."""
    multiple: Positive = 32
    """With `keep_aspect`, sides of the content are rounded down to a multiple of this."""

    def __post_init__(self) -> None:
        if min(self.size) < self.multiple:
            expected = f"(height, width) of at least {self.multiple}"
            raise invalid("data.files.framing.size", self.size, expected)

    def content(self, height: int, width: int) -> tuple[int, int]:
        """(H, W) of the content of a picture of `height` x `width`."""
        if not self.keep_aspect:
            return self.size
        scale = min(self.size[0] / height, self.size[1] / width)
        sides = (max(1, int(round(n * scale) // self.multiple)) for n in (height, width))
        rows, columns = (n * self.multiple for n in sides)
        return rows, columns


@checked("data.files.")
class FilesConfig:
    """Pairs in files. What the chosen source does not read stays as it is."""

    root: str = ""
    """Folder of the pictures: of the index paths (megadepth), the scenes (scannet), the sequence
    (rgbd) or the pictures of the model (colmap; without `index` a folder of images and sparse)."""
    index: str = ""
    """Folder of the pair indices (megadepth, scannet) or of the model (colmap)."""
    scenes: str = ""
    """List of the indices to train on; COLMAP: of folders in `root`, with images and sparse."""
    pairs: str = ""
    """COLMAP: list of lines ``name0 name1 overlap``, a path or its name in the folder of a scene;
    empty makes pairs from common points."""
    exclude: tuple[str, ...] = ()
    """COLMAP: pictures never to use, by name, ``scene/name`` or a pattern with ``*``."""
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
    frames: Frames = (0, 10**9)
    """RGB-D: numbers (first, behind the last) of the training frames."""
    val_frames: Frames = (0, 0)
    """RGB-D: those of the validation."""
    overlap: Overlap = (0.1, 0.9)
    """Kept pairs; ScanNet uses the lower limit."""
    per_scene: Positive = 100
    """Pairs of every scene in an epoch."""
    framing: Framing = field(default_factory=Framing)
    augment: Strength = 0.0
    """Strength of other light, blur, noise and compression of training pictures; 0: as published"""
    coarse_only: bool = False
    """Teach cells alone: for depth that is spread around points, as that of COLMAP models."""

    @property
    def given(self) -> list[str]:
        """The options that say something."""
        plain = FilesConfig()
        return [f.name for f in fields(self) if getattr(self, f.name) != getattr(plain, f.name)]


@checked("data.")
class DataConfig:
    """What a run trains on."""

    source: Source = "synthetic"
    """``synthetic`` (rendered), ``megadepth``, ``scannet``, ``rgbd`` or ``colmap``."""
    real: FileSource | None = None
    """With ``synthetic``: the source of real pairs, `files`, that some batches hold; null: none."""
    real_share: Share = 0.25
    """Share of the batches that hold real pairs."""
    batch_size: Positive = 8
    """Pairs of one process in a batch."""
    workers: Workers = 0
    """Loader processes; 0 loads in the training process. Samples do not depend on it."""
    val_pairs: Positive = 64
    """Pairs of a validation."""
    ramp: tuple[
        Annotated[
            tuple[NotNegative, Eighths, Eighths],
            Field(description="(pairs seen, height, width), sizes multiples of 8"),
        ],
        ...,
    ] = ()
    """Synthetic scenes: (pairs seen, height, width) from which on images have that size."""
    synthetic: SyntheticConfig = field(default_factory=SyntheticConfig)
    files: FilesConfig = field(default_factory=FilesConfig)

    def __post_init__(self) -> None:
        if list(self.ramp) != sorted(self.ramp):
            raise invalid("data.ramp", self.ramp, "stages in the order of pairs seen")
        if self.source != "synthetic":
            for name in ("real", "ramp"):
                require_unset(self, name, f"data.source={self.source}")
        if not self.real:
            require_unset(self, "real_share", "data.real=null")
        read = READ_BY[self.of_files]
        for name in self.files.given:
            if name not in read:
                expected = f"nothing: {self.of_files} reads {', '.join(read) or 'no files'}"
                raise invalid(f"data.files.{name}", getattr(self.files, name), expected)

    @property
    def of_files(self) -> Source:
        """What `files` are of; ``synthetic``: there are none."""
        return self.real or self.source
