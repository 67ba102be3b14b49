"""The options of `quadmatch localize`, checked before anything heavy is read."""

from __future__ import annotations

from dataclasses import field

from matcher.options import Intrinsics, WeightsOptions, require_intrinsics
from matcher.validation.checked import Name, Positive, checked, invalid


@checked()
class LocalizationOptions(WeightsOptions):
    """What is localized in what."""

    query: Name = field(kw_only=True)
    """A photograph, or a folder of photographs."""
    model: Name = field(kw_only=True)
    """Folder of a model of COLMAP with points."""
    images: Name = field(kw_only=True)
    """Folder of the images of the model."""
    K: Intrinsics | None = None
    """[fx,fy,cx,cy] in pixels of the photographs."""
    cameras: Name | None = None
    """Cameras of the photographs: a CSV file, a cameras.txt or a model of COLMAP, or exif; null:
    those of K, else a focal length is found."""
    most: Positive = 5
    """Images of the model that a photograph is matched with in full: those most like it."""
    output: Name | None = None
    """Text file of the poses, as hloc writes it: name, quaternion w x y z and translation, from the
    model to the camera; null: none."""

    def __post_init__(self) -> None:
        require_intrinsics("K", self.K)
        if self.K and self.cameras:
            raise invalid("cameras", self.cameras, "either K or cameras")
