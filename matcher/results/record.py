"""Results on disk: one pair of images as HDF5, NPZ, CSV or JSON, chosen by the suffix.

Every file is built in memory and published by `write_atomically`, so a kill or a full disk leaves
either the old file or the new one. HDF5 never writes to disk itself: it can crash the process on
a full disk.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from matcher.errors import Code, StorageError, UsageError, missing
from matcher.files import write_atomically
from matcher.geometry.cameras import Camera
from matcher.results.formats import (
    BROKEN,
    FORMATS,
    MAX_FILE_BYTES,
    REFINED,
    Arrays,
    Attributes,
    Format,
)
from matcher.structures import Matches
from matcher.validation.checked import invalid

SCHEMA = "quadmatch/1"


@dataclass(frozen=True)
class ImageRecord:
    """One image of a pair: its name as the user gave it and its stored size in pixels."""

    name: str
    width: int
    height: int


UNKNOWN = ImageRecord("", 0, 0)


@dataclass(frozen=True)
class MatchRecord:
    """What is kept of one matched pair."""

    matches: Matches
    image0: ImageRecord = UNKNOWN
    image1: ImageRecord = UNKNOWN
    geometry: str = "none"
    """``homography``, ``fundamental``, ``essential`` or ``pose`` if a model was estimated."""
    model: np.ndarray | None = None
    """(3, 3) float64: a homography (x1 ~ H x0) or a fundamental matrix (x1^T F x0 = 0) in pixels,
    or an essential matrix in normalized coordinates; None if there is none."""
    inliers: np.ndarray | None = None
    """(N,) bool, the matches that agree with `model`."""
    T_0to1: np.ndarray | None = None
    """(4, 4) float64, for ``essential`` and ``pose``: takes points of camera 0 to camera 1, its
    translation of length 1, as its true length cannot be known."""
    cameras: tuple[Camera, Camera] | None = None
    """Of both images, likewise, with the focal lengths that were found."""
    verdict: str = ""
    """``reliable`` or ``too few to tell`` (`matcher.geometry.verdict`); empty: not judged."""
    translation_unknown: bool = False
    """Whether nothing is known of the translation: a pure rotation, or a plane."""
    provenance: Mapping[str, str | int | float] = field(default_factory=dict)
    """How it came about: version, weights and their sha256, EXIF policy, options."""

    def __post_init__(self) -> None:
        if self.inliers is not None and self.inliers.shape != (len(self.matches),):
            raise ValueError(f"inliers {self.inliers.shape} for {len(self.matches)} matches")
        for name, matrix, side in (("model", self.model, 3), ("T_0to1", self.T_0to1, 4)):
            if matrix is not None and matrix.shape != (side, side):
                raise ValueError(f"{name} of shape {matrix.shape}; expected ({side}, {side})")


def write_matches(path: Path | str, record: MatchRecord) -> None:
    """Write `record` in the format of the suffix: .h5, .hdf5, .npz, .csv or .json.

    Raises:
        UsageError: another suffix.
        StorageError: the file cannot be written (E401).
    """
    write_atomically(path, _format_of(Path(path)).encode(_arrays(record), _attributes(record)))


def read_matches(path: Path | str) -> MatchRecord:
    """Read what `write_matches` wrote.

    Raises:
        UsageError: the file is not there (E111), or has another suffix.
        StorageError: it is not one of ours, damaged, or refers outside itself (E402).
    """
    path = Path(path)
    form = _format_of(path)
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise ValueError(f"{size} bytes are more than the limit of {MAX_FILE_BYTES}")
        arrays, attributes = form.decode(path.read_bytes())
        return _record(arrays, attributes)
    except FileNotFoundError:
        raise missing(path) from None
    except BROKEN as error:
        detail = f"{error} is missing" if isinstance(error, KeyError) else error
        what = f"not a readable result: {detail}"
        raise StorageError(Code.DAMAGED_RESULT, path, what, "write it anew") from error


def _arrays(record: MatchRecord) -> Arrays:
    names = ("keypoints0", "keypoints1", "scores")
    columns = zip(names, record.matches.numpy(), strict=True)
    arrays: Arrays = {name: values.astype(np.float32) for name, values in columns}
    for name, dtype in REFINED.items():
        values = getattr(record.matches, name)
        if values is not None:
            arrays[name] = values.cpu().numpy().astype(dtype)
    if record.inliers is not None:
        arrays["inliers"] = record.inliers.astype(np.uint8)
    for name, matrix in (("model", record.model), ("T_0to1", record.T_0to1)):
        if matrix is not None:
            arrays[name] = matrix.astype(np.float64)
    return arrays


def _attributes(record: MatchRecord) -> Attributes:
    out: Attributes = {"schema": SCHEMA, "geometry": record.geometry}
    if record.matches.reason:
        out["reason"] = record.matches.reason
    if record.matches.turned:
        out["turned"] = record.matches.turned
    if record.verdict:
        out["verdict"] = record.verdict
    if record.translation_unknown:
        out["translation"] = "unknown"
    for i, camera in enumerate(record.cameras or ()):
        out[f"camera{i}"] = " ".join([camera.model, *map(str, camera.params)])
        out[f"focal{i}"] = "known" if camera.focal_known else "found"
    for i, image in enumerate((record.image0, record.image1)):
        # File names may hold bytes that are not UTF-8; HDF5 and JSON readers refuse those.
        out[f"image{i}_name"] = image.name.encode("utf-8", "backslashreplace").decode()
        out[f"image{i}_width"] = image.width
        out[f"image{i}_height"] = image.height
    return {**record.provenance, **out}


def _record(arrays: Arrays, attributes: Attributes) -> MatchRecord:
    rest = dict(attributes)
    schema = rest.pop("schema", None)
    if schema != SCHEMA:
        raise ValueError(f"schema {schema!r}, this version reads {SCHEMA!r}")
    images = []
    for i in (0, 1):
        width, height = (int(rest.pop(f"image{i}_{side}")) for side in ("width", "height"))
        images.append(ImageRecord(str(rest.pop(f"image{i}_name")), width, height))
    cameras = [_camera(rest, i, image) for i, image in enumerate(images) if f"camera{i}" in rest]
    column = {
        name: torch.from_numpy(np.ascontiguousarray(arrays[name], dtype=np.float32))
        for name in ("keypoints0", "keypoints1", "scores", *REFINED)
        if name in arrays
    }
    converged = column.get("converged")
    inliers = arrays.get("inliers")
    return MatchRecord(
        Matches(
            column["keypoints0"],
            column["keypoints1"],
            column["scores"],
            reason=str(rest.pop("reason", "")),
            turned=int(rest.pop("turned", 0)),
            converged=None if converged is None else converged.bool(),
            correlation=column.get("correlation"),
            quality=column.get("quality"),
        ),
        *images,
        geometry=str(rest.pop("geometry")),
        model=arrays.get("model"),
        inliers=None if inliers is None else inliers.astype(bool),
        T_0to1=arrays.get("T_0to1"),
        cameras=(cameras[0], cameras[1]) if len(cameras) == 2 else None,
        verdict=str(rest.pop("verdict", "")),
        translation_unknown=rest.pop("translation", "") == "unknown",
        provenance=rest,
    )


def _camera(attributes: Attributes, i: int, image: ImageRecord) -> Camera:
    """The camera of image `i`, taken out of the attributes."""
    model, *params = str(attributes.pop(f"camera{i}")).split()
    known = attributes.pop(f"focal{i}") == "known"
    try:
        return Camera(model, tuple(map(float, params)), (image.width, image.height), known)
    except UsageError as error:
        raise ValueError(error) from None


def _format_of(path: Path) -> Format:
    if path.suffix.lower() not in FORMATS:
        raise invalid("output", str(path), f"a name ending in {', '.join(FORMATS)}")
    return FORMATS[path.suffix.lower()]
