"""The options of `python -m matcher.tasks.stereo`, checked before anything heavy is read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from matcher.errors import Code, UsageError
from matcher.images.encode import FORMATS
from matcher.options import Device, Intrinsics, require_pinholes
from matcher.tasks.stereo.files import require_suffix
from matcher.validation.checked import Name, Positive, checked, invalid

Length = Annotated[float, Field(ge=0, le=1e9)]
Pixels = Annotated[float, Field(ge=-1e6, le=1e6)]


@checked()
class StereoOptions:
    """What one call asks for."""

    left: Name
    """Left image of a rectified pair; with `rectify` the first photograph."""
    right: Name
    """Right image of it; with `rectify` the second photograph."""
    output: Name = "disparity.pfm"
    """A .pfm, a .png in KITTI's form, or an .npz with occlusion, and with depth where it is known.
    """
    picture: str = ""
    """Where a picture is written; empty: none."""
    focal: Length = 0.0
    """Focal length in pixels; 0: unknown."""
    baseline: Length = 0.0
    """Distance of the cameras, in the unit of depth; 0: unknown."""
    offset: Pixels = 0.0
    """Right minus left principal column in pixels (Middlebury's doffs)."""
    cloud: str = ""
    """Where points are written, in the unit of `baseline`; empty: nowhere."""
    rectify: bool = False
    """Take two photographs from different places, in any order: match, rectify, then as ever.
    Depth is in baselines unless `baseline` is given; points are those of the first camera."""
    K: Intrinsics | None = None
    """[fx,fy,cx,cy] in pixels of both photographs; null: from `focal`, or 1.2 times the longer
    side."""
    K0: Intrinsics | None = None
    """K of the first photograph alone."""
    K1: Intrinsics | None = None
    """K of the second photograph alone."""
    side: Positive = 1024
    """Longer sides of photographs are shrunk to this many pixels."""
    views: str = ""
    """Where the rectified views are shown side by side, with lines along rows; empty: nowhere."""
    weights: str = ""
    """Weights file; empty: the bundled one."""
    device: Device | None = None
    """cpu, cuda, cuda:1 or mps; null: cuda where there is one, else cpu."""
    check: bool = True
    """Refuse what cannot be a rectified pair."""

    def __post_init__(self) -> None:
        require_suffix(self.output)
        self._require_endings()
        require_pinholes(self.K, self.K0, self.K1)
        if self.rectify:
            if self.offset:
                raise invalid("offset", self.offset, "none with rectify=true, which finds it")
            return
        for name in ("K", "K0", "K1", "views"):
            if getattr(self, name):
                raise invalid(name, getattr(self, name), "none without rectify=true")
        if self.cloud and not self.metric:
            raise UsageError(
                Code.INVALID_VALUE, "cloud", "depth is unknown", "give focal= and baseline= too"
            )
        if bool(self.focal) != bool(self.baseline):
            raise UsageError(
                Code.INVALID_VALUE, "focal", "only one of focal and baseline", "give both"
            )

    @property
    def metric(self) -> bool:
        """Whether disparity of a rectified pair can be turned into depth."""
        return self.focal > 0 and self.baseline > 0

    def _require_endings(self) -> None:
        for name, known in (("picture", FORMATS), ("views", FORMATS), ("cloud", (".ply",))):
            path = getattr(self, name)
            if path and Path(path).suffix.lower() not in known:
                raise invalid(name, path, f"a name that ends in one of {', '.join(known)}")
