"""The options of match.py for collections, checked before anything heavy is imported."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field

from matcher.options import Intrinsics, WeightsOptions, require_intrinsics
from matcher.validation.checked import Name, Positive, Threads, checked
from matcher.validation.words import shown

Camera = tuple[float, float, float, float]
"""(fx, fy, cx, cy) in pixels."""


@checked()
class CollectionOptions(WeightsOptions):
    """How a collection is matched."""

    pairs: Name = field(kw_only=True)
    """A list of pairs or a folder of images."""
    against: Name | None = None
    """Another folder: each image of pairs= with each of this one."""
    select: Literal["exhaustive", "sequential"] = "exhaustive"
    """Pairs of one folder: all of them, or in each of its folders those within a window."""
    window: Positive = 5
    """select=sequential: each image with so many that follow, frame9 before frame10."""
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
    retry: bool = False
    """Match pairs of the run that failed once more."""
    threads: Threads | None = None
    """Threads of the CPU; null: as PyTorch chooses, with engine=ray a core a worker."""
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
    export: Literal["none", "pack", "hloc", "colmap"] = "none"
    """What is written when all is done: one file, two HDF5 files or a database."""
    merge: Annotated[float, Field(ge=0.1, le=100)] = 2.0
    """hloc and colmap: points closer than so many pixels become one keypoint."""
    converged_only: bool = False
    """hloc and colmap: leave out matches whose refinement did not converge, one in five; the others
    are exact to a few tenths of a pixel."""
    refine_tracks: bool = True
    """hloc and colmap, with refine=photometric: lay all points of a track on the pixels of one of
    its views, so that they mean one spot."""
    K: Intrinsics | None = None
    """colmap: [fx,fy,cx,cy] in pixels of all images, scaled or turned to their sizes; null: one
    camera each, guessed."""

    def __post_init__(self) -> None:
        require_intrinsics("K", self.K)

    @property
    def camera(self) -> Camera | None:
        if self.K is None:
            return None
        fx, fy, cx, cy = self.K if len(self.K) == 4 else (self.K[i] for i in (0, 4, 2, 5))
        return fx, fy, cx, cy

    @property
    def settings(self) -> dict[str, str | int | float | bool | None]:
        """Options that change results."""
        names = ("threshold", "max_side", "top_k", "refine", "snap", "batch_size")
        reading = ("apply_exif", "allow_truncated", "max_pixels", "nodata", "stretch")
        lists = {name: shown(getattr(self, name)) for name in ("bands", "rotate")}
        return {name: getattr(self, name) for name in (*names, *reading)} | lists
