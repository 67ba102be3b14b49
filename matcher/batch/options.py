"""The options of match.py for collections, checked before anything heavy is imported."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field

from matcher.files import Lock
from matcher.options import Intrinsics, WeightsOptions, camera_of, require_intrinsics
from matcher.validation.checked import Name, Positive, Threads, checked, invalid
from matcher.validation.words import shown

Pinhole = tuple[float, float, float, float]
"""(fx, fy, cx, cy) in pixels."""


@checked()
class CollectionOptions(WeightsOptions):
    """How a collection is matched."""

    pairs: Name = field(kw_only=True)
    """A list of pairs or a folder of images."""
    against: Name | None = None
    """Another folder: each image of pairs= with each of this one."""
    select: Literal["exhaustive", "sequential", "retrieval", "covisible", "poses", "gps"] = (
        "exhaustive"
    )
    """Pairs of folders. exhaustive: all; sequential: in each folder those that follow each other,
    frame9 before frame10; or each image with those nearest to it, retrieval: by what they show,
    covisible: by common points of model=, poses: by its cameras, gps: by EXIF."""
    window: Positive | None = None
    """Of all but exhaustive: each image with so many that follow or are nearest; null: 5."""
    model: Name | None = None
    """select=covisible and poses: folder of a COLMAP model of the images."""
    root: Name | None = None
    """Folder that the names in a list are relative to; null: that of the list."""
    allow_outside_root: bool = False
    """Accept names, and follow links of folders, that lead out of it."""
    skip_missing: bool = False
    """Go on without missing images; their pairs fail with E111."""
    output: Name = "matches"
    """Folder of the run, not inside of a folder of images; an interrupted run goes on where it
    stopped."""
    extend: bool = False
    """Add what is new in pairs= to the run in output=."""
    lock: Lock = "system"
    """How output= is kept to one process; soft: by a file, for network disks without locks."""
    retry: bool = False
    """Match pairs of the run that failed once more."""
    threads: Threads | None = None
    """Threads of the CPU; null: as PyTorch chooses, with engine=ray a core a worker."""
    zoom: Literal["auto", "off"] = "off"
    """auto: where few matches lie in a part of both images, that part is enlarged and matched too,
    and its matches are added; such pairs take more than twice the time. off: no."""
    batch_size: Positive = 4
    """Pairs at a time."""
    shard_size: Annotated[int, Field(ge=1, le=1000)] = 32
    """Pairs a file."""
    cache_mb: Positive = 2048
    """Memory for features of images that are used again."""
    readers: Threads = 2
    """Threads that read and decode images ahead."""
    engine: Literal["local", "ray"] = "local"
    """This machine, or a cluster."""
    workers: Threads = 2
    """engine=ray: models that match at a time."""
    export: Literal[
        "none", "pack", "hloc", "colmap", "colmap_text", "gdal", "hugin", "verdicts"
    ] = "none"
    """What is written when all is done: one file, two HDF5 files, a database, text for COLMAP,
    control points for GDAL and QGIS, a project for Hugin, or a table of which pairs to trust."""
    merge: Annotated[float, Field(ge=0.1, le=100)] = 2.0
    """hloc, colmap: points closer than so many pixels become one keypoint."""
    converged_only: bool = False
    """In all exports but pack: leave out matches whose refinement did not converge, one in five;
    the others are exact to a few tenths of a pixel."""
    refine_tracks: bool = True
    """hloc and colmap, with refine=photometric: lay all points of a track on the pixels of one of
    its views, so that they mean one spot."""
    K: Intrinsics | None = None
    """colmap, hugin: [fx,fy,cx,cy] in pixels of all images, scaled or turned to their sizes; null:
    one camera each, guessed."""
    cameras: Name | None = None
    """colmap, hugin: instead of K, a CSV file, a cameras.txt or a model of COLMAP, or exif: images
    of one row, or of one focal length and size, share a camera."""
    masks: Name | None = None
    """Folder of gray images, each of the name of an image, .png for any suffix, or both: no match
    where it is black; images without one are whole."""

    def __post_init__(self) -> None:
        require_intrinsics("K", self.K)
        if self.K and self.cameras:
            raise invalid("cameras", self.cameras, "either K or cameras")
        if (self.K or self.cameras) and self.export not in ("colmap", "hugin"):
            raise invalid("export", self.export, "colmap or hugin with K= and cameras=")
        if self.window and self.select == "exhaustive":
            raise invalid("window", self.window, "select= with it, such as select=sequential")
        if self.against and self.select == "sequential":
            raise invalid("select", self.select, "another with against=: it pairs within folders")
        by_model = self.select in ("covisible", "poses")
        if by_model and self.model is None:
            raise invalid("model", None, f"the folder of a COLMAP model with select={self.select}")
        if self.model and not by_model:
            raise invalid("select", self.select, "covisible or poses with model=")
        if self.converged_only and (self.refine == "none" or self.export in ("none", "pack")):
            expected = "false with refine=none, and without an export but pack"
            raise invalid("converged_only", True, expected)

    @property
    def reach(self) -> int:
        """How many images follow each, or are nearest to it."""
        return self.window or 5

    @property
    def pinhole(self) -> Pinhole | None:
        return None if self.K is None else camera_of(self.K)

    @property
    def settings(self) -> dict[str, str | int | float | bool | None]:
        """Options that change results."""
        names = ("threshold", "max_side", "top_k", "refine", "snap", "zoom", "batch_size", "dtype")
        reading = ("apply_exif", "allow_truncated", "max_pixels", "nodata", "stretch")
        lists = {name: shown(getattr(self, name)) for name in ("bands", "rotate")}
        return {name: getattr(self, name) for name in (*names, *reading)} | lists
