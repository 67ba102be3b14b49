"""Real and rendered stereo sets on disk: Middlebury, KITTI and Scene Flow, as they are published.

A set is a list of `StereoFiles`; `read_stereo` reads one of them as a `StereoPair`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from data.synthetic.stereo_truth import occluded_in
from matcher.errors import Code, ImageError, UsageError
from matcher.images.load import load_image, read_rgb
from matcher.tasks.stereo.files import read_disparity
from matcher.tasks.stereo.structures import StereoPair

BOTH_SEE, HIDDEN = 255, 128
"""Values of Middlebury's masks."""


class StereoFiles(NamedTuple):
    """The files of one pair; what tells occlusion is one of the last three, or unknown."""

    name: str
    """Unique in its folder."""
    left: Path
    right: Path
    disparity: Path
    mask: Path | None = None
    """Middlebury's mask of what both views see."""
    visible: Path | None = None
    """KITTI's disparity of what both views see."""
    right_disparity: Path | None = None


def find_middlebury(folder: str | Path) -> list[StereoFiles]:
    """Scenes of the 2014 form: im0.png, im1.png, disp0GT.pfm (or disp0.pfm) in a folder each."""
    found = []
    for left in _sorted(folder, "im0.png"):
        scene = left.parent
        truth = next((p for n in ("disp0GT.pfm", "disp0.pfm") if (p := scene / n).is_file()), None)
        if truth and (scene / "im1.png").is_file():
            other = scene / truth.name.replace("0", "1", 1)
            found.append(
                StereoFiles(
                    _name(scene, folder),
                    left,
                    scene / "im1.png",
                    truth,
                    mask=_if_file(scene / "mask0nocc.png"),
                    right_disparity=_if_file(other),
                )
            )
    return _some(found, folder, "Middlebury's im0.png, im1.png and disp0GT.pfm")


def find_kitti(folder: str | Path) -> list[StereoFiles]:
    """KITTI 2012 and 2015 as unpacked, in color where both are there, or folders of left.png,
    right.png and disparity.png."""
    root = Path(folder)
    found = [
        StereoFiles(_name(p.parent, root), p.parent / "left.png", p.parent / "right.png", p)
        for p in _sorted(root, "disparity.png")
        if (p.parent / "left.png").is_file() and (p.parent / "right.png").is_file()
    ]
    for left, right, every, seen in (
        ("image_2", "image_3", "disp_occ_0", "disp_noc_0"),
        ("colored_0", "colored_1", "disp_occ", "disp_noc"),
        ("image_0", "image_1", "disp_occ", "disp_noc"),
    ):
        for truth in sorted((root / every).glob("*_10.png")):
            views = root / left / truth.name, root / right / truth.name
            known = {files.disparity for files in found}
            if truth not in known and all(view.is_file() for view in views):
                visible = _if_file(root / seen / truth.name)
                found.append(StereoFiles(truth.stem, *views, truth, visible=visible))
    return _some(found, folder, "KITTI's image_2, image_3 and disp_occ_0")


def find_scene_flow(folder: str | Path) -> list[StereoFiles]:
    """Scene Flow (frames_*pass with disparity beside it) and its subset (image_* and disparity)."""
    found = []
    for truth in _sorted(folder, "*.pfm"):
        parts = truth.parts
        if "disparity" not in parts or truth.parent.name != "left":
            continue
        at = len(parts) - 1 - parts[::-1].index("disparity")
        root, inner = Path(*parts[:at]), Path(*parts[at + 1 :])
        images = sorted(p for p in root.iterdir() if re.fullmatch(r"(frames|image)_\w+", p.name))
        other = truth.parent.parent / "right" / truth.name
        for image in images:
            left = _picture(image / inner)
            right = _picture(image / inner.parent.parent / "right" / inner.name)
            if left and right:
                name = f"{image.name}/{inner.with_suffix('')}"
                found.append(StereoFiles(name, left, right, truth, right_disparity=_if_file(other)))
                break
    return _some(found, folder, "Scene Flow's frames_finalpass and disparity")


def read_stereo(files: StereoFiles) -> StereoPair:
    """The pair with its truth, a batch of 1; without any word on occlusion nothing is occluded.

    Raises:
        ImageError, UsageError: a file is missing or damaged, or sizes differ (E105).
    """
    views = (load_image(path, apply_exif=False).gray for path in files[1:3])
    left, right = (torch.from_numpy(view)[None, None] for view in views)
    truth = read_disparity(files.disparity)
    if not left.shape[-2:] == right.shape[-2:] == truth.shape:
        sizes = f"{tuple(left.shape[-2:])}, {tuple(right.shape[-2:])} and {truth.shape}"
        raise ImageError(
            Code.UNSUPPORTED_IMAGE, files.disparity, f"views and disparity of sizes {sizes}"
        )
    disparity = torch.from_numpy(truth)[None]
    valid = disparity > 0
    return StereoPair(left, right, disparity, _occluded(files, disparity) & valid, valid)


def filled(disparity: np.ndarray, found: np.ndarray) -> np.ndarray:
    """(H, W) disparity whose holes take the lower of the next known values left and right; a row
    without any is 0."""
    width = disparity.shape[1]
    column = np.arange(width)
    before = np.maximum.accumulate(np.where(found, column, -1), axis=1)
    after = np.minimum.accumulate(np.where(found, column, width)[:, ::-1], axis=1)[:, ::-1]
    sides = [
        np.where(
            (index >= 0) & (index < width),
            np.take_along_axis(disparity, index.clip(0, width - 1), axis=1),
            np.inf,
        )
        for index in (before, after)
    ]
    lower = np.minimum(*sides)
    return np.where(np.isfinite(lower), lower, 0).astype(np.float32)


def _occluded(files: StereoFiles, disparity: torch.Tensor) -> torch.Tensor:
    path = files.mask or files.visible or files.right_disparity
    if path is None:
        return torch.zeros_like(disparity, dtype=torch.bool)
    other = read_rgb(path)[..., 0] if path == files.mask else read_disparity(path)
    if other.shape != disparity.shape[1:]:
        what = f"size {other.shape}, the disparity {tuple(disparity.shape[1:])}"
        raise ImageError(Code.UNSUPPORTED_IMAGE, path, what)
    values = torch.from_numpy(np.ascontiguousarray(other))[None]
    if path == files.mask:
        return (values >= HIDDEN) & (values < BOTH_SEE)
    return values == 0 if path == files.visible else occluded_in(disparity, values)


def _name(place: Path, folder: str | Path) -> str:
    """What a folder of a pair is called in the one that was given."""
    inner = place.relative_to(folder)
    return inner.as_posix() if inner.parts else place.resolve().name


def _sorted(folder: str | Path, pattern: str) -> Iterator[Path]:
    if not Path(folder).is_dir():
        raise UsageError(Code.MISSING_FILE, folder, "no such folder")
    yield from sorted(Path(folder).rglob(pattern))


def _some(found: list[StereoFiles], folder: str | Path, expected: str) -> list[StereoFiles]:
    if not found:
        raise UsageError(Code.MISSING_FILE, folder, "holds no stereo pair", f"expected {expected}")
    return found


def _if_file(path: Path) -> Path | None:
    return path if path.is_file() else None


def _picture(path: Path) -> Path | None:
    return next((p for s in (".png", ".webp") if (p := path.with_suffix(s)).is_file()), None)
